"""Doctor (fault 82): an old or broken library is found, named, and mended by what is advised."""

from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

from permgraph import doctor


def test_82_an_old_python_is_found() -> None:
    assert not doctor._python((3, 9, 18)).ok
    assert doctor._python((3, 10, 0)).ok


def test_82_an_old_library_is_found() -> None:
    found = doctor._library("numpy", SpecifierSet(">=99"))
    assert not found.ok
    assert ">=99 is needed" in found.state
    assert found.advice == 'pip install "numpy>=99"'
    assert doctor._library("numpy", SpecifierSet(">=1")).ok


def test_82_the_floor_of_torch_is_explained() -> None:
    found = doctor._library("torch", SpecifierSet(">=99"))
    assert not found.ok and "CVE-2026-24747" in found.advice and 'pip install "torch>=99"' in found.advice


def test_82_a_missing_library_is_found() -> None:
    found = doctor._library("permgraph-of-another-world", SpecifierSet())
    assert (found.ok, found.state) == (False, "is not installed")


@pytest.mark.parametrize(
    "trial, said, advice",
    [
        ("import os; os.abort()", "it ended with -6", "Install it again"),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "nms does not exist",
            "uninstall torchvision",
        ),
    ],
)
def test_82_a_library_that_does_not_work_is_found(
    trial: str, said: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor._TRIALS, "numpy", trial)
    found = doctor._library("numpy", SpecifierSet())
    assert not found.ok
    assert said in found.state
    assert advice in found.advice


def test_79_82_the_route_to_graphviz_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._graphviz().ok
    monkeypatch.setattr("permgraph.reporting.drawing.graphviz_layout._CODE", "raise SystemExit('gone')")
    found = doctor._graphviz()
    assert not found.ok
    assert "gone" in found.state


def test_everything_needed_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TRIALS", {})
    names = [f.name for f in doctor.examine()]
    assert names[0] == "Python"
    assert names[-1] == "Graphviz"
    assert {"torch", "transformers", "numpy", "typer"} <= set(names)
    assert not {"pytest", "mypy"} & set(names)


def test_a_first_look_imports_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._TRIALS, "torch", "raise RuntimeError('broken')")
    first = {f.name: f for f in doctor.examine()}
    assert first["torch"].ok and "not imported; --try does" in first["torch"].state
    monkeypatch.setattr(doctor, "_TRIALS", {"torch": "raise RuntimeError('broken')"})
    assert not {f.name: f for f in doctor.examine(tried=True)}["torch"].ok
