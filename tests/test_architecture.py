"""The architecture, held by a test: layers, imports, lazy imports, file sizes, docstrings.

Imports point downwards.  A module may import from lower layers and from its own layer, where modules must
not form a cycle.  What the rules say is explained at each constant; ``violations`` checks a whole source
tree, and is itself tested on small made-up trees that break one rule each.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "funcgrad"

# What is not named here is a face for users, the top layer.
LAYERS: dict[str, int] = {
    "_version": 0,
    "errors": 0,
    "garbage": 0,
    "later": 0,
    "record": 0,
    "util": 0,
    "tree": 0,
    "tree_path": 0,
    "tree_registry": 0,
    "tree_specialize": 0,
    "tree_walk": 0,
    "core": 1,
    "ops": 2,
    "transforms": 3,
    "control": 4,
    "passes": 5,
    "kernels": 6,
    "codegen": 7,
    "runtime": 8,
    "compiler": 9,
    "jit": 10,
}
TOP = 11

# All that may be imported at module level beside the standard library: what `import funcgrad` may cost.
EAGER_LIBRARIES = {"numpy", "scipy", "optree"}

# Libraries imported inside functions, when they are first needed, and the rooms that may do so.
LAZY_LIBRARIES: dict[str, set[str]] = {
    "numba": {"codegen", "njit"},
    "llvmlite": {"codegen", "runtime", "njit"},
    "matplotlib": {"draw"},
}

# A file that passes about 500 lines is usually two ideas; at 600 this test asks for the split.  A file that
# is one long table may be listed here with its reason.
MAX_LINES = 600
LONG_FILES: dict[str, str] = {}


class Import(NamedTuple):
    """One imported module, as seen from the file that imports it."""

    target: str
    line: int
    in_function: bool
    for_types: bool


class Module(NamedTuple):
    """One source file."""

    name: str
    path: Path
    is_package: bool
    text: str
    tree: ast.Module


def load(root: Path) -> dict[str, Module]:
    """Every module below ``root / PACKAGE``, by its dotted name."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path.relative_to(root), is_package, text, ast.parse(text, str(path)))
    return modules


def room(name: str) -> str:
    """The part of the package a module belongs to: ``funcgrad.core.avals`` is in ``core``."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def layer(name: str) -> int:
    return LAYERS.get(room(name), TOP)


def imports(module: Module, modules: dict[str, Module]) -> Iterator[Import]:
    """Every import statement of a file, anywhere in it, resolved to module names."""

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                for target in targets(child):
                    yield Import(target, child.lineno, in_function, for_types)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from visit(child, in_function, True)
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from visit(child, in_function or function, for_types)

    def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            parts = module.name.split(".")
            up = node.level - 1 if module.is_package else node.level
            base = ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            yield submodule if submodule in modules else base

    yield from visit(module.tree, False, False)


def violations(root: Path) -> list[str]:
    """Every broken rule in the tree, one line each."""
    modules = load(root)
    found: list[str] = []
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for module in modules.values():
        found += _file_violations(module)
        for imported in imports(module, modules):
            where = f"{module.path}:{imported.line}"
            if imported.target.split(".")[0] == PACKAGE:
                found += _own_import(module, imported, where)
                if not imported.for_types and imported.target in graph and not imported.in_function:
                    graph[module.name].add(imported.target)
            else:
                found += _library_import(module, imported, where)
    return found + [f"import cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def _file_violations(module: Module) -> list[str]:
    found = []
    n_lines = module.text.count("\n")
    if n_lines > MAX_LINES and str(module.path) not in LONG_FILES:
        found.append(f"{module.path}: {n_lines} lines; a file beyond {MAX_LINES} is two ideas: split it")
    if not ast.get_docstring(module.tree):
        found.append(f"{module.path}: no module docstring")
    return found


def _own_import(module: Module, imported: Import, where: str) -> list[str]:
    found = []
    if imported.in_function:
        found.append(f"{where}: imports {imported.target} inside a function; move it to the top of the file")
    if layer(imported.target) > layer(module.name):
        found.append(
            f"{where}: layer {layer(module.name)} imports {imported.target} of layer "
            f"{layer(imported.target)}; imports point downwards"
        )
    same_layer_other_room = layer(imported.target) == layer(module.name) not in (0, TOP)
    if same_layer_other_room and room(imported.target) != room(module.name):
        found.append(f"{where}: imports {imported.target}, another room of the same layer")
    return found


def _library_import(module: Module, imported: Import, where: str) -> list[str]:
    library = imported.target.split(".")[0]
    if library in sys.stdlib_module_names or library in EAGER_LIBRARIES or imported.for_types:
        return []
    if not imported.in_function:
        return [f"{where}: imports {library} at module level; only {sorted(EAGER_LIBRARIES)} may be"]
    if room(module.name) not in LAZY_LIBRARIES.get(library, set()):
        return [f"{where}: imports {library}, which {room(module.name) or PACKAGE} may not use"]
    return []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for every strongly connected group of modules, found by repeated depth-first search."""
    state: dict[str, int] = {}
    found: list[list[str]] = []

    def visit(node: str, trail: list[str]) -> None:
        state[node] = 1
        trail.append(node)
        for target in sorted(graph[node]):
            if state.get(target) == 1:
                found.append([*trail[trail.index(target) :], target])
            elif target not in state:
                visit(target, trail)
        trail.pop()
        state[node] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [])
    return found


def test_source_tree(repo_root: Path) -> None:
    found = violations(repo_root)
    assert not found, "\n".join(found)


def test_layers_name_what_exists_or_is_planned(repo_root: Path) -> None:
    """Modules directly below the package named ``tree_...`` are of layer 0, but for the public face."""
    names = {path.stem for path in (repo_root / PACKAGE).glob("tree_*.py")} - {"tree_util"}
    assert names <= LAYERS.keys()


def test_import_is_cheap(repo_root: Path) -> None:
    """``import funcgrad`` loads no compiler, no peer and no plotting library (D14)."""
    heavy = ["numba", "llvmlite", "jax", "matplotlib", "sklearn", "autograd", "torch"]
    code = f"import sys, {PACKAGE}; print([m for m in {heavy!r} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


DOC = '"""Documented."""\n'

# files of a made-up tree, and words that the one violation must contain (none: the tree is in order)
ROWS = {
    "in order": ({"core/a.py": "import numpy\nfrom ..errors import E", "errors.py": ""}, None),
    "upwards": ({"core/a.py": "from ..ops import add", "ops/__init__.py": ""}, "core/a.py:2: layer 1 imports"),
    "upwards, absolute": ({"util.py": "import funcgrad.core.a", "core/a.py": ""}, "point downwards"),
    "upwards, submodule": ({"core/a.py": "from funcgrad import jit", "jit.py": ""}, "funcgrad.jit of layer 10"),
    "upwards, for types only": (
        {"core/a.py": "import typing\nif typing.TYPE_CHECKING:\n    from ..jit import J", "jit.py": ""},
        "layer 1 imports funcgrad.jit",
    ),
    "the package itself": ({"ops/a.py": "import funcgrad", "__init__.py": ""}, "imports funcgrad of layer 11"),
    "in a function": ({"ops/a.py": "def f():\n    from ..core import a", "core/a.py": ""}, "inside a function"),
    "in a method": (
        {"ops/a.py": "class C:\n    def f(self):\n        from .. import core", "core/__init__.py": ""},
        "inside a function",
    ),
    "cycle of two": ({"core/a.py": "from . import b", "core/b.py": "from .a import x"}, "import cycle"),
    "cycle of three": (
        {"core/a.py": "from . import b", "core/b.py": "from . import c", "core/c.py": "from funcgrad.core.a import x"},
        "import cycle",
    ),
    "no cycle for types": (
        {
            "core/a.py": "from . import b",
            "core/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import x",
        },
        None,
    ),
    "package and its part": (
        {"core/__init__.py": "from .a import x", "core/a.py": "from . import b", "core/b.py": ""},
        None,
    ),
    "face on face": (
        {"nn.py": "from . import numpy", "numpy/__init__.py": "from ..jit import jit", "jit.py": ""},
        None,
    ),
    "numba at the top": ({"codegen/a.py": "import numba"}, "imports numba at module level"),
    "numba lazily": ({"codegen/a.py": "def f():\n    import numba.core"}, None),
    "numba in the wrong room": ({"ops/a.py": "def f():\n    import numba"}, "which ops may not use"),
    "jax, even lazily": ({"codegen/a.py": "def f():\n    import jax.numpy"}, "imports jax"),
    "unknown library": ({"nn.py": "from pandas import x"}, "imports pandas at module level"),
    "too long": ({"core/a.py": "x = 1\n" * 700}, "split it"),
}


@pytest.mark.parametrize("name", ROWS)
def test_checker(name: str, tmp_path: Path) -> None:
    files, words = ROWS[name]
    for path, text in files.items():
        target = tmp_path / PACKAGE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(DOC + text)
    found = violations(tmp_path)
    if words is None:
        assert found == []
    else:
        assert len(found) == 1 and words in found[0], found


def test_checker_wants_docstrings(tmp_path: Path) -> None:
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "nn.py").write_text("x = 1\n")
    assert violations(tmp_path) == [f"{PACKAGE}/nn.py: no module docstring"]
