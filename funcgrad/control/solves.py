"""``custom_root`` and ``custom_linear_solve``: solvers that are differentiated at their solution, not through their
steps.

Of ``F(m, u(m)) = 0`` the implicit function theorem gives ``du = -(dF/du)^-1 dF/dm dm``: one linear system at the
solution, whatever the solver did. Of ``A x = b`` it is ``dx = A^-1 (db - dA x)``, the same system again; and its
transpose, which reverse mode wants, is a solve with the transposed system. Both are calls with custom rules
(``control.custom``), whose operands are all that the user's functions capture. Rules call the solver again, so that
derivatives of any order work; none ever looks into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr
from ..core.primitive import ZERO
from ..core.staging import stage
from ..core.trace import Tracer
from ..errors import FuncgradError, LeakedTracerError
from ..ops.elementwise import neg, sub
from ..ops.promotion import as_dtype
from ..transforms.derive import linearize, quiet
from ..transforms.flat import FlatFunction, check_callable, function_name, own_all
from ..transforms.forward import jvp_flat, tangent_zeros
from ..transforms.linear import linear_function
from .custom import Rules, custom_p
from .derived import call_jaxpr, closed_over, select_program, transposed_jaxpr
from .linear_call import check_no_offset, linear_call_p

__all__ = ["custom_linear_solve", "custom_root"]

Values = Sequence[Any]


class _Program:
    """A staged function of flat arrays, with what it captures as leading operands."""

    def __init__(self, closed: ClosedJaxpr) -> None:
        self.consts = closed.consts
        self.n_consts = len(closed.consts)
        self.n_outs = len(closed.out_avals)
        self.out_avals = [a.strong() for a in closed.out_avals]
        whole = closed_over(closed.consts, closed)
        self.jaxpr = select_program(whole, range(len(whole.in_avals)), whole.jaxpr.outvars)

    def __call__(self, consts: Values, args: Values) -> list[Any]:
        return call_jaxpr(self.jaxpr)(*consts, *args)


class _Unknown:
    """The structure and the types of what is solved for."""

    def __init__(self, what: str, name: str, value: Any) -> None:
        self.what = what
        leaves, self.tree = tree.flatten(value)
        self.leaves = []
        for path, x in zip(tree.leaf_paths(self.tree), leaves, strict=True):
            try:
                aval = aval_of(x)
            except TypeError as error:
                raise TypeError(f"{what}: {name}{path}: {error}") from None
            if aval.dtype.kind not in "fc":
                raise TypeError(
                    f"{what}: {name}{path} has dtype {aval.dtype.name}; what is solved for is floating point or "
                    "complex: write .astype(float)"
                )
            self.leaves.append(as_dtype(x, aval.dtype))
        self.name = name
        self.avals = [aval_of(x).strong() for x in self.leaves]
        self.n = len(self.leaves)

    def check(self, role: str, fun: Callable[..., Any], treedef: tree.PyTreeDef, avals: Sequence[ShapedArray]) -> None:
        """Raise for a result that is not of the type of the unknown; ``role`` is the argument that gave it."""
        if treedef != self.tree:
            raise TypeError(
                f"{self.what}: {role} ({function_name(fun)}) must return the structure of {self.name}: "
                + tree.describe_difference(self.tree, treedef)
            )
        for path, a, b in zip(tree.leaf_paths(treedef), avals, self.avals, strict=True):
            if a.shape != b.shape or (a.dtype != b.dtype and not a.weak_type):
                raise TypeError(
                    f"{self.what}: {role} ({function_name(fun)}) returned {a.short()} for {self.name}{path}, which is "
                    f"{b.short()}; it must return the shapes and dtypes of {self.name}"
                )

    def program(self, role: str, user: Callable[..., Any], fun: Callable[[Any], Any], aux: bool = False) -> Any:
        """``fun`` of one value of the unknown's type, staged; with ``aux`` also the structure of its second result."""
        flat = FlatFunction(fun, tree.structure(((self.tree.unflatten([0] * self.n),), {})))
        closed = stage(flat, self.avals, function_name(user))
        out_tree = flat.out_tree
        aux_tree = None
        if aux:
            children = out_tree.children()
            example = out_tree.unflatten([0] * len(closed.out_avals))
            if not isinstance(example, tuple) or len(children) != 2:
                raise TypeError(
                    f"{self.what}: {role} ({function_name(user)}) must return a pair (solution, auxiliary data), "
                    "because has_aux is True"
                )
            out_tree, aux_tree = children
        self.check(role, user, out_tree, closed.out_avals[: out_tree.num_leaves])
        return self.typed(closed), aux_tree

    def typed(self, closed: ClosedJaxpr) -> _Program:
        """The program, whose first results have the unknown's dtypes, also where it returns Python's numbers."""
        if all([not a.weak_type for a in closed.out_avals[: self.n]]):
            return _Program(closed)
        program = _Program(closed)

        def fun(*args: Any) -> list[Any]:
            outs = call_jaxpr(program.jaxpr)(*args)
            return [*[as_dtype(o, a.dtype) for o, a in zip(outs, self.avals, strict=False)], *outs[self.n :]]

        typed = _Program(stage(fun, program.jaxpr.in_avals, closed.jaxpr.name))
        typed.consts, typed.n_consts = program.consts, program.n_consts
        return typed

    def result(self, outs: Values, aux_tree: tree.PyTreeDef | None) -> Any:
        owned = own_all(outs, self.leaves)
        solution = self.tree.unflatten(owned[: self.n])
        return solution if aux_tree is None else (solution, aux_tree.unflatten(owned[self.n :]))


def _bind(values: Values, jaxpr: ClosedJaxpr, rules: Rules) -> list[Any]:
    return list(custom_p.bind(*values, jaxpr=jaxpr, rules=rules, n_consts=0, n_fixed=0))


def custom_root(
    f: Callable[[Any], Any],
    initial_guess: Any,
    solve: Callable[[Callable[[Any], Any], Any], Any],
    tangent_solve: Callable[[Callable[[Any], Any], Any], Any],
    has_aux: bool = False,
) -> Any:
    """A root of ``f``, differentiated by the implicit function theorem.

    Args:
        f: a function of one pytree, to one of the same structure, shapes and dtypes. Derivatives of the root are with
            respect to what it captures.
        initial_guess: where ``solve`` starts; a pytree of floating-point or complex arrays. The root does not depend
            on it.
        solve: ``solve(f, initial_guess)`` returns a root. It is traced, but never differentiated: it may loop as long
            as it likes. That its result is a root is taken for granted.
        tangent_solve: ``tangent_solve(g, y)`` returns the solution of ``g(x) = y``, where ``g`` is ``f`` linearized at
            the root. It must be linear in ``y``: ``y / g(1.0)`` of a scalar, ``np.linalg.solve(jacobian(g)(y), y)`` of
            a vector, or `custom_linear_solve`.
        has_aux: ``solve`` returns ``(root, auxiliary data)``, and so does this function.

    Raises:
        TypeError: a function returns something of another type than ``initial_guess``.

    >>> import funcgrad as fg
    >>> def newton(f, x):
    ...     return fg.lax.fori_loop(0, 20, lambda _, x: x - f(x) / fg.grad(f)(x), x)
    >>> def square_root(a):
    ...     return custom_root(lambda x: x**2 - a, 1.0, newton, lambda g, y: y / g(1.0))
    >>> square_root(9.0), fg.grad(square_root)(9.0)
    (np.float64(3.0), np.float64(0.16666666666666666))
    """
    for role, fun in (("f", f), ("solve", solve), ("tangent_solve", tangent_solve)):
        check_callable(fun, f"custom_root ({role})")
    unknown = _Unknown("custom_root", "initial_guess", initial_guess)

    def linearize_and_solve(pair: Any) -> Any:
        x, y = pair
        return tangent_solve(linearize(f, x)[1], y)

    with quiet():
        of_f, _ = unknown.program("f", f, f)
        of_solve, aux_tree = unknown.program("solve", solve, lambda x: solve(f, x), has_aux)
        example = unknown.tree.unflatten([0] * unknown.n)
        flat = FlatFunction(linearize_and_solve, tree.structure((((example, example),), {})))
        closed = stage(flat, unknown.avals * 2, function_name(tangent_solve))
        unknown.check("tangent_solve", tangent_solve, flat.out_tree, closed.out_avals)
        of_tangents = unknown.typed(closed)
        ends = (of_f.n_consts, of_f.n_consts + of_solve.n_consts)
        n_known = ends[1] + of_tangents.n_consts

        def run(*values: Any) -> list[Any]:
            return of_solve(values[ends[0] : ends[1]], values[n_known:])

        def jvp(fixed: Values, values: Values, tangents: Values) -> tuple[Values, Values]:
            outs = _bind(values, jaxpr, rules)
            root = outs[: unknown.n]
            captured = values[: ends[0]]
            _, moved = jvp_flat(lambda *c: of_f(c, root), captured, tangents[: ends[0]])
            if all([t is ZERO for t in moved]):
                return outs, [ZERO] * len(outs)
            rhs = [tangent_zeros(a) if t is ZERO else t for t, a in zip(moved, unknown.avals, strict=True)]
            steps = of_tangents(values[ends[1] : n_known], [*root, *rhs])
            return outs, [*[neg(s) for s in steps], *[ZERO] * (len(outs) - unknown.n)]

        rules = Rules(f"custom_root of {function_name(f)}", jvp, None)
        values = [*of_f.consts, *of_solve.consts, *of_tangents.consts, *unknown.leaves]
        jaxpr = stage(run, [aval_of(x) for x in values], function_name(solve))
        return unknown.result(_bind(values, jaxpr, rules), aux_tree)


class _System:
    """A linear system and its transpose, each with its solver, as programs of what they capture.

    Operands of a call: what ``matvec`` captures, what ``solve`` and ``transpose_solve`` capture, the right-hand side.
    """

    def __init__(
        self,
        name: str,
        avals: Sequence[ShapedArray],
        captured: Sequence[ShapedArray],
        matvec: Callable[[Values, Values], Values],
        vecmat: Callable[[Values, Values], Values],
        solve: _Program,
        transpose_solve: _Program | None,
    ) -> None:
        self.name = name
        self.avals = avals
        self.captured = captured
        self.matvec = matvec
        self.vecmat = vecmat
        self.solve = solve
        self.transpose_solve = transpose_solve
        self.n = len(avals)
        self.n_matvec = len(captured)
        self.rules = Rules(name, self.jvp, None)

    @cached_property
    def transposed(self) -> _System:
        if self.transpose_solve is None:
            raise TypeError(
                f"{self.name}: reverse mode solves the transposed system, for which there is no solver. Pass "
                "transpose_solve, or symmetric=True if matvec is its own transpose."
            )
        name = f"transpose({self.name})"
        system = _System(name, self.avals, self.captured, self.vecmat, self.matvec, self.transpose_solve, self.solve)
        system.transposed = self
        return system

    @cached_property
    def jaxpr(self) -> ClosedJaxpr:
        """The solve at a given system: linear in the right-hand side."""
        known = [*self.captured, *self._avals(self.solve), *self._avals(self.transpose_solve)]
        n_known = len(known)
        n_solve = self.n_matvec + self.solve.n_consts

        def push(known: Values, b: Values) -> Values:
            full = [tangent_zeros(a) if x is ZERO else x for x, a in zip(b, self.avals, strict=True)]
            return self.solve(known[self.n_matvec : n_solve], full)

        def pull(known: Values, cts: Values) -> Values:
            full = [tangent_zeros(a) if c is ZERO else c for c, a in zip(cts, self.avals, strict=False)]
            swapped = [*known[: self.n_matvec], *known[n_solve:], *known[self.n_matvec : n_solve]]
            return self.transposed(*swapped, *full)[: self.n]

        linear = {"push": push, "pull": pull, "n_res": n_known, "out_avals": tuple(self.solve.out_avals)}
        return stage(
            lambda *values: linear_call_p.bind(*values, **linear, name=self.name), [*known, *self.avals], self.name
        )

    @staticmethod
    def _avals(program: _Program | None) -> list[ShapedArray]:
        return [] if program is None else program.jaxpr.in_avals[: program.n_consts]

    def __call__(self, *values: Any) -> list[Any]:
        return _bind(values, self.jaxpr, self.rules)

    def jvp(self, fixed: Values, values: Values, tangents: Values) -> tuple[Values, Values]:
        outs = self(*values)
        x = outs[: self.n]
        n_known = len(values) - self.n
        captured, moving = values[: self.n_matvec], tangents[: self.n_matvec]
        rhs = list(tangents[n_known:])
        if any([t is not ZERO for t in moving]):
            _, moved = jvp_flat(lambda *c: self.matvec(c, x), captured, moving)
            rhs = [_difference(t, s) for t, s in zip(rhs, moved, strict=True)]
        if all([t is ZERO for t in rhs]):
            return outs, [ZERO] * len(outs)
        full = [tangent_zeros(a) if t is ZERO else t for t, a in zip(rhs, self.avals, strict=True)]
        steps = self(*values[:n_known], *full)
        return outs, [*steps[: self.n], *[ZERO] * (len(outs) - self.n)]


def _difference(x: Any, y: Any) -> Any:
    return x if y is ZERO else neg(y) if x is ZERO else sub(x, y)


def custom_linear_solve(
    matvec: Callable[[Any], Any],
    b: Any,
    solve: Callable[[Callable[[Any], Any], Any], Any],
    transpose_solve: Callable[[Callable[[Any], Any], Any], Any] | None = None,
    symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """The solution of ``matvec(x) = b``, differentiated as such and not through the solver.

    Args:
        matvec: a linear function of one pytree, to one of the same structure, shapes and dtypes. What it captures may
            be differentiated.
        b: the right-hand side, a pytree of floating-point or complex arrays.
        solve: ``solve(matvec, b)`` returns the solution. It is traced, but never differentiated.
        transpose_solve: ``transpose_solve(vecmat, b)``, the same for the transpose of ``matvec``, which is worked out.
            Reverse mode needs it.
        symmetric: ``matvec`` is its own transpose (not its own adjoint), so that ``solve`` serves both.
        has_aux: ``solve`` and ``transpose_solve`` return ``(solution, auxiliary data)``, and so does this function.

    Raises:
        TypeError: a function returns something of another type than ``b``, or reverse mode without a transposed solver.
        FuncgradError: ``matvec`` is not linear.

    >>> import numpy as np
    >>> import funcgrad as fg
    >>> def solution(d, b):
    ...     return custom_linear_solve(lambda x: d * x, b, lambda matvec, b: b / matvec(np.ones(2)), symmetric=True)
    >>> fg.jacrev(solution)(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    array([[-1.  , -0.  ],
           [-0.  , -0.25]])
    """
    given = {"matvec": matvec, "solve": solve, "transpose_solve": solve if transpose_solve is None else transpose_solve}
    for role, fun in given.items():
        check_callable(fun, f"custom_linear_solve ({role})")
    if transpose_solve is None and symmetric:
        transpose_solve = solve
    unknown = _Unknown("custom_linear_solve", "b", b)
    with quiet():
        of_matvec, _ = unknown.program("matvec", matvec, matvec)
        transposed = _transposed(of_matvec, unknown, function_name(matvec))
        of_solve, aux_tree = unknown.program("solve", solve, lambda b: solve(matvec, b), has_aux)

        def vecmat(ct: Any) -> Any:
            cts, ct_tree = tree.flatten(ct)
            unknown.check("transpose_solve", solve, ct_tree, [aval_of(c) for c in cts])
            return unknown.tree.unflatten(transposed(of_matvec.consts, cts))

        of_transpose = None
        if transpose_solve is not None:
            solver, system = transpose_solve, matvec if symmetric else vecmat
            of_transpose, _ = unknown.program("transpose_solve", solver, lambda b: solver(system, b), has_aux)
        solver_system = _System(
            f"custom_linear_solve of {function_name(matvec)}",
            unknown.avals,
            of_matvec.jaxpr.in_avals[: of_matvec.n_consts],
            of_matvec,
            of_matvec if symmetric else transposed,
            of_solve,
            of_transpose,
        )
        extra = () if of_transpose is None else of_transpose.consts
        outs = solver_system(*of_matvec.consts, *of_solve.consts, *extra, *unknown.leaves)
        return unknown.result(outs, aux_tree)


def _transposed(matvec: _Program, unknown: _Unknown, name: str) -> Callable[[Values, Values], list[Any]]:
    """The transpose of ``matvec``, which shows at the same time that it is linear."""
    flags = (False,) * matvec.n_consts + (True,) * unknown.n
    try:
        function, outs = linear_function(lambda *xs: matvec(matvec.consts, xs), unknown.avals)
        check_no_offset(function)
        for o, mine in zip(outs, function.outs, strict=True):
            if mine is None and not isinstance(o, Tracer) and np.any(o):
                raise FuncgradError("a result does not depend on its argument and is not zero")
        jaxpr, nonzero = transposed_jaxpr(matvec.jaxpr, flags, (True,) * unknown.n)
    except LeakedTracerError:
        raise
    except FuncgradError as error:
        raise FuncgradError(
            f"custom_linear_solve: matvec ({name}) is not linear: {str(error).rstrip('.')}. "
            "It must be a sum of products of its argument with what does not depend on it; for the root of another "
            "function use custom_root."
        ) from error

    def vecmat(consts: Values, cts: Values) -> list[Any]:
        rest = iter(call_jaxpr(jaxpr)(*consts, *cts))
        return [next(rest) if nz else tangent_zeros(a) for nz, a in zip(nonzero, unknown.avals, strict=True)]

    return vecmat
