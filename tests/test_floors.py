"""Imports go downward only, and heavy libraries are imported by the verb that needs them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "permgraph"

FLOORS = [  # a module imports from its own package and from floors above it in this list
    {"errors", "tolerances", "torch_modes"},
    {"data_files", "atomic_write"},
    {"ir"},
    {"frontend"},
    {"axes"},
    {"symmetry"},
    {"planning"},
    {"inputs", "matching", "weights"},
    {"verification"},
    {"reporting"},
    {"linter"},
    {"matchers", "rules"},  # for users to import; nothing here does
    {"pipeline", "doctor"},
    {"demo"},
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
    "permgraph.cli",
]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The module or package directly under permgraph that a file is of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(unit of permgraph, line) of every import in a file, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            # `from permgraph import x` reads a unit or a name of the package itself
            whole = node.module == "permgraph"
            names = [f"permgraph.{a.name}" for a in node.names] if whole else [node.module or ""]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "permgraph":
                found = rest.partition(".")[0]
                yield (found if found in FLOOR else "__init__"), node.lineno


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
