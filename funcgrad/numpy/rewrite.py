"""The user's own ``if``, ``while`` or ``for``, written with ``lax``: for the messages of `concretize`.

The statement is found in its file by its line, and its branches become functions of the names that they change. Where
that cannot be done in a few lines (a ``return`` within a loop, a file that cannot be read), there is no suggestion.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Sequence

from ..core.trace import Source

__all__ = ["rewritten"]

MOST_LINES = 14
_JUMPS = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom, ast.Raise)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def rewritten(source: Source | None, kinds: tuple[type[ast.AST], ...] = (ast.If, ast.IfExp, ast.While)) -> str:
    """What to write in place of the statement at a line, with that statement; empty if there is nothing to say."""
    if source is None:
        return ""
    lines = linecache.getlines(source.filename)
    try:
        module = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return ""
    found = _at_line(module, source.line, kinds)
    if found is None:
        return ""
    node, function = found
    try:
        text = _rewrite(node, function)
    except _NotInAFewLines:
        return ""
    if text.count("\n") >= MOST_LINES:
        return ""
    own = ast.unparse(node.test if isinstance(node, (ast.If, ast.While)) else node)
    first = {ast.If: f"if {own}:", ast.While: f"while {own}:"}.get(type(node), own.splitlines()[0])
    shown = "\n".join(["    " + line for line in text.splitlines()])
    return f" In place of `{first}`:\n\n{shown}\n\n"


class _NotInAFewLines(Exception):
    pass


def _at_line(module: ast.Module, line: int, kinds: tuple[type[ast.AST], ...]) -> tuple[ast.AST, ast.AST] | None:
    """The innermost statement whose condition is at a line, and the function that it is in."""
    best: tuple[ast.AST, ast.AST] | None = None
    work: list[tuple[ast.AST, ast.AST]] = [(module, module)]
    while work:
        node, function = work.pop()
        if isinstance(node, kinds):
            part = _condition(node)
            if part.lineno <= line <= (part.end_lineno or part.lineno):
                best = node, function
        inner = node if isinstance(node, _FUNCTIONS) else function
        work += [(child, inner) for child in ast.iter_child_nodes(node)]
    return best


def _condition(node: ast.AST) -> ast.expr:
    if isinstance(node, ast.For):
        return node.iter
    assert isinstance(node, (ast.If, ast.IfExp, ast.While))
    return node.test


def _rewrite(node: ast.AST, function: ast.AST) -> str:
    if isinstance(node, ast.IfExp):
        return _cond(node.test, node.body, node.orelse)
    if isinstance(node, ast.If):
        return _if(node, function)
    if isinstance(node, ast.While):
        return _while(node, function)
    assert isinstance(node, ast.For)
    return _for(node, function)


def _cond(test: ast.expr, a: ast.expr, b: ast.expr) -> str:
    return f"lax.cond({ast.unparse(test)}, lambda: {ast.unparse(a)}, lambda: {ast.unparse(b)})"


def _if(node: ast.If, function: ast.AST) -> str:
    then, other = node.body, node.orelse
    if not other:
        other = _following(node, function)
    if _is_return(then) and _is_return(other):
        return f"return {_cond(node.test, then[0].value, other[0].value)}"  # type: ignore[attr-defined]
    other = node.orelse
    _plain([*then, *other])
    before = _known_before(node, function)
    both = set(_assigned(then)) & set(_assigned(other))
    names = [n for n in dict.fromkeys([*_assigned(then), *_assigned(other)]) if n in before or n in both]
    if not names:
        raise _NotInAFewLines
    value, alternative = _value(then, names), _value(other, names)
    if value is not None and alternative is not None:
        return f"{names[0]} = {_cond(node.test, value, alternative)}"
    given = [n for n in names if n in before]
    args, results = ", ".join(given), ", ".join(names)
    text = _function("then", args, then, results)
    text += _function("otherwise", args, other, results)
    operands = "".join([f", {n}" for n in given])
    return text + f"{results} = lax.cond({ast.unparse(node.test)}, then, otherwise{operands})"


def _while(node: ast.While, function: ast.AST) -> str:
    names = _state(node, node.body, function)
    if node.orelse:
        raise _NotInAFewLines
    test = ast.unparse(node.test)
    value = _value(node.body, names)
    if value is not None:
        (x,) = names
        return f"{x} = lax.while_loop(lambda {x}: {test}, lambda {x}: {ast.unparse(value)}, {x})"
    state = ", ".join(names)
    if len(names) == 1:
        text = _function("step", state, node.body, state)
        return text + f"{state} = lax.while_loop(lambda {state}: {test}, step, {state})"
    unpack = ast.parse(f"{state} = state").body
    text = _function("going", "state", unpack, test)
    text += _function("step", "state", [*unpack, *node.body], state)
    return text + f"{state} = lax.while_loop(going, step, ({state}))"


def _for(node: ast.For, function: ast.AST) -> str:
    call = node.iter
    is_range = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"
    if not is_range or not isinstance(node.target, ast.Name) or node.orelse:
        raise _NotInAFewLines
    assert isinstance(call, ast.Call)
    bounds = [ast.unparse(a) for a in call.args]
    if len(bounds) not in (1, 2) or call.keywords:
        raise _NotInAFewLines
    lower, upper = bounds if len(bounds) == 2 else ("0", bounds[0])
    names = _state(node, node.body, function)
    i, value, state = node.target.id, _value(node.body, names), ", ".join(names)
    if value is not None:
        return f"{state} = lax.fori_loop({lower}, {upper}, lambda {i}, {state}: {ast.unparse(value)}, {state})"
    if len(names) == 1:
        text = _function("step", f"{i}, {state}", node.body, state)
        return text + f"{state} = lax.fori_loop({lower}, {upper}, step, {state})"
    unpack = ast.parse(f"{state} = state").body
    text = _function("step", f"{i}, state", [*unpack, *node.body], state)
    return text + f"{state} = lax.fori_loop({lower}, {upper}, step, ({state}))"


# pieces ---------------------------------------------------------------------------------------------------------------


def _is_return(body: Sequence[ast.stmt]) -> bool:
    return len(body) >= 1 and isinstance(body[0], ast.Return) and body[0].value is not None


def _following(node: ast.stmt, function: ast.AST) -> list[ast.stmt]:
    """The statements after one, in the same block."""
    for parent in ast.walk(function):
        for block in (getattr(parent, "body", None), getattr(parent, "orelse", None)):
            if isinstance(block, list) and node in block:
                return block[block.index(node) + 1 :]
    return []


def _plain(body: Sequence[ast.stmt]) -> None:
    """No statement jumps out of its block."""
    if any([isinstance(n, _JUMPS) for statement in body for n in ast.walk(statement)]):
        raise _NotInAFewLines


def _assigned(body: Sequence[ast.stmt]) -> list[str]:
    """The names that statements assign to or write through (``x[i] = v``), in order."""
    found: dict[str, None] = {}
    for statement in body:
        for n in ast.walk(statement):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                found[n.id] = None
            elif isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store) and isinstance(n.value, ast.Name):
                found[n.value.id] = None
    return list(found)


def _known_before(node: ast.stmt, function: ast.AST) -> set[str]:
    """Arguments of the function, and names that it assigns above a statement."""
    names = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    for n in ast.walk(function):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.lineno < node.lineno:
            names.add(n.id)
    return names


def _state(node: ast.stmt, body: Sequence[ast.stmt], function: ast.AST) -> list[str]:
    """What a loop carries: names that it changes and that are there before it."""
    _plain(body)
    before = _known_before(node, function)
    names = [n for n in _assigned(body) if n in before]
    if not names:
        raise _NotInAFewLines
    return names


def _value(body: Sequence[ast.stmt], names: Sequence[str]) -> ast.expr | None:
    """The new value of the only name that changes, if one assignment gives it."""
    if len(names) != 1:
        return None
    if not body:
        return ast.Name(names[0], ast.Load())
    if len(body) != 1:
        return None
    (statement,) = body
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.value
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        return ast.BinOp(ast.Name(statement.target.id, ast.Load()), statement.op, statement.value)
    return None


def _function(name: str, args: str, body: Sequence[ast.stmt], results: str) -> str:
    lines = [line for statement in body for line in ast.unparse(statement).splitlines()]
    return "\n".join([f"def {name}({args}):", *["    " + line for line in [*lines, f"return {results}"]], ""])
