"""The notebook of the documentation is executed, by nbclient as a reader's Jupyter does, and shows what it says."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def test_the_notebook_is_kept_without_results() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def executed(source: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook with its results. Raises CellExecutionError."""
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient is not installed (pip install 'permgraph[dev]')"
    )
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (pip install 'permgraph[dev]')")
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own libraries
        client = nbclient.NotebookClient(
            source, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        return client.execute()


def opened() -> Any:
    nbformat = pytest.importorskip(
        "nbformat", reason="nbformat is not installed (pip install 'permgraph[dev]')"
    )
    return nbformat.read(NOTEBOOK, as_version=4)


def test_every_cell_runs_and_shows_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = executed(opened(), tmp_path, monkeypatch).cells
    shown = [output for cell in cells for output in cell.get("outputs", ())]
    kinds = [output.get("data", {}) for output in shown]
    assert sum("text/html" in kind for kind in kinds) >= 3, "spec, plan and report show tables"
    assert any("image/svg+xml" in kind for kind in kinds)
    assert all(
        len(kind.get("text/plain", "")) < 2000 and len(kind.get("text/html", "")) < 30_000 for kind in kinds
    )
    assert "from the first network: 0.0" in "".join(o.get("text", "") for o in shown)
    assert not [o for o in shown if o.get("name") == "stderr"]


def test_a_cell_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = opened()
    notebook.cells = [notebook.cells[1]]
    notebook.cells[0].source = "assert False, 'wrong'"
    with pytest.raises(Exception, match="wrong"):
        executed(notebook, tmp_path, monkeypatch)
