"""Imports go downward only, and heavy libraries are imported by the verb that needs them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "permgraph"

LONGEST = 300  # lines of a file

FLOORS = [  # a module imports from its own package and from floors above it in this list
    {"errors", "tolerances", "torch_modes"},
    {"data_files", "atomic_write"},
    {"ir"},
    {"frontend"},
    {"axes"},
    {"symmetry"},
    {"planning"},
    {"inputs", "matching", "weights"},
    {"compression", "transformations"},
    {"verification"},
    {"reporting"},
    {"evaluation"},
    {"linter"},
    {"matchers", "rules"},  # for users to import; nothing here does
    {"memory"},
    {"calibration", "doctor", "fitting"},
    {"passes", "ray_data", "repaired", "fx"},
    {"pipeline"},
    {"many"},
    {"demo", "provenance"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

LIGHT = [  # without torch and transformers: they read saved files
    "permgraph",
    "permgraph.errors",
    "permgraph.ir.files",
    "permgraph.data_files",
    "permgraph.ir.trace",
    "permgraph.frontend.architectures",
    "permgraph.axes.rules",
    "permgraph.axes.propagation",
    "permgraph.symmetry.infer",
    *(f"permgraph.planning.{path.stem}" for path in sorted((PACKAGE / "planning").glob("[a-z]*.py"))),
    *(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted((PACKAGE / "reporting").rglob("[a-z]*.py"))
    ),
    "permgraph.evaluation.scoring",
    "permgraph.cli",
]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The module or package directly under permgraph that a file is of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def statements(tree: ast.AST, typing: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import in a file, also inside functions; those under TYPE_CHECKING where `typing` asks for them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not typing and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(ast.Module(node.orelse, []), typing)
        else:
            yield from statements(node, typing)


def names_in(path: Path, typing: bool = True) -> Iterator[tuple[str, int]]:
    """(what is imported, line), written in full: `from a import b` may read the module a.b or a name of a."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), typing):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        else:
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(unit of permgraph, line) of every import in a file, once per statement."""
    for name, line in dict.fromkeys((".".join(name.split(".")[:2]), line) for name, line in names_in(path)):
        if name.startswith("permgraph"):
            found = name.partition(".")[2]
            yield (found if found in FLOOR else "__init__"), line


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def cycles(files: list[Path], root: Path) -> list[list[str]]:
    """Modules that import each other, if by a detour; what only types need does not count."""
    known = {module_name(path, root): path for path in files}
    graph = nx.DiGraph()
    for module, path in known.items():
        for name, _ in names_in(path, typing=False):
            graph.add_edge(module, name if name in known else name.rpartition(".")[0])
    return [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]


def test_no_module_imports_itself_by_a_detour() -> None:
    assert cycles(modules(), PACKAGE.parent) == []


def test_a_cycle_would_be_seen(tmp_path: Path) -> None:
    late = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import a\n"
    bodies = {"a": "from b import x\n", "b": "def f():\n    import c\n", "c": late}
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    files = sorted(tmp_path.glob("*.py"))
    assert cycles(files, tmp_path) == []
    (tmp_path / "c.py").write_text("def f():\n    import a\n")
    assert cycles(files, tmp_path) == [["a", "b", "c"]]


def test_a_file_is_one_idea() -> None:
    """But for the list of verbs, whose docstrings are what a user reads."""
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_bytes().splitlines()) for path in modules()}
    lengths.pop("__init__.py")
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_every_module_has_a_floor() -> None:
    assert {unit(path) for path in modules()} <= set(FLOOR)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    here = unit(path)
    upward = [
        f"line {line}: {here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR[there]})"
        for there, line in imported(path)
        if there != here and FLOOR[there] >= FLOOR[here]
    ]
    assert not upward


def test_an_upward_import_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text("def f():\n    from permgraph.cli import main\n    import permgraph.planning.compile\n")
    assert list(imported(file)) == [("cli", 2), ("planning", 3)]


def test_light_modules_import_neither_torch_nor_transformers() -> None:
    code = f"""
import importlib, sys
for name in {LIGHT!r}:
    importlib.import_module(name)
    found = [h for h in ("torch", "transformers") if h in sys.modules]
    if found:
        sys.exit(name + " imports " + ", ".join(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
