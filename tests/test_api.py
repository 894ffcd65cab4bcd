"""The public interface: every ordinary form of import works, verbs have signatures, and a user's type checker sees them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import permgraph as pg

VERBS = [
    "trace",
    "infer",
    "plan",
    "random_permutations",
    "calibrate",
    "calibrate_many",
    "match",
    "match_many",
    "compare",
    "reorder",
    "find_factors",
    "fit_factors",
    "fold_factors",
    "multiply",
    "random_factors",
    "verify_factors",
    "slices",
    "remove",
    "assign",
    "apply",
    "unapply",
    "merge",
    "merge_many",
    "fit",
    "pair_layers",
    "merge_fitted",
    "matched_weights",
    "replay",
    "verify",
    "why",
    "draw",
    "view",
    "report",
    "lint",
    "evaluate",
    "export",
    "score",
]
TYPES = [
    "Group",
    "Moments",
    "Pair",
    "PermSpec",
    "PermgraphError",
    "Permutations",
    "Place",
    "Plan",
    "Probe",
    "Trace",
    "WarmStart",
]

FORMS = {
    "attribute": "import permgraph.weights.apply\nassert callable(permgraph.apply) and permgraph.weights.apply.apply",
    "alias": "import permgraph.weights.apply as a\nassert a.apply_checkpoint",
    "type": "from permgraph.ir import Trace\nimport permgraph as pg\nassert Trace is pg.Trace",
    "module": "from permgraph.ir import trace\nassert trace.Trace",
    "verb after module": "import permgraph.ir.plan, permgraph.ir.trace\nfrom permgraph import plan, trace\n"
    "assert callable(plan) and callable(trace)",
    "import_module": "import importlib\nassert importlib.import_module('permgraph.planning.compile').compile_plan",
    "star": "from permgraph import *\nassert callable(trace) and callable(lint)",
}


def python(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("form", FORMS)
def test_ordinary_forms_of_import_work(form: str) -> None:
    done = python(FORMS[form])
    assert done.returncode == 0, done.stderr


def test_every_module_imports_and_leaves_the_verbs_in_place() -> None:
    before = {name: getattr(pg, name) for name in VERBS}
    for module in pkgutil.walk_packages(pg.__path__, "permgraph."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {name: getattr(pg, name) for name in VERBS} == before


def test_no_package_or_module_at_the_top_is_named_like_a_verb() -> None:
    """A package named like a verb hides it or is hidden by it."""
    assert not {module.name for module in pkgutil.iter_modules(pg.__path__)} & set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_what_it_takes(verb: str) -> None:
    function = getattr(pg, verb)
    parameters = inspect.signature(function).parameters.values()
    assert all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    assert all(p.annotation is not p.empty for p in parameters)
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
    assert function.__doc__ and function.__module__ == "permgraph"


def test_all_lists_the_verbs_and_types_and_nothing_else() -> None:
    assert sorted(pg.__all__) == sorted([*VERBS, *TYPES])


USER = """
import permgraph as pg

reveal_type(pg.infer(pg.trace("hubert")))
reveal_type(pg.Plan.load("plan.json").steps)
pg.plan(3)
pg.merge({}, {}, shares=(1, 0))
"""


@pytest.mark.slow
def test_a_users_type_checker_sees_our_types(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    options = ["--no-incremental", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "mypy", *options, "user.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    said = done.stdout
    assert 'Revealed type is "permgraph.ir.spec.PermSpec"' in said
    assert "permgraph.ir.spec.Place" in said
    assert 'Argument 1 to "plan" has incompatible type "int"' in said
    assert 'Unexpected keyword argument "shares" for "merge"' in said
    assert "untyped" not in said
