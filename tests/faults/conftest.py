"""One pair for all; each test works on a copy of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.kit import make_pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_pair(folder)
    return folder


@pytest.fixture
def place(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    shutil.copytree(pair, folder)
    monkeypatch.chdir(folder)
    return folder
