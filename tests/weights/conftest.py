"""Files for the tests of merge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
Maker = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> Maker:
    """A Hugging Face folder: kind "single", "shards", "bin" or "bin shards"."""

    def make(state: State, kind: str = "single", name: str = "model", **files: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "made"}))
        for file, text in files.items():
            (folder / file.replace("__", ".")).write_text(text)
        stem, suffix = ("pytorch_model", "bin") if kind.startswith("bin") else ("model", "safetensors")
        if not kind.endswith("shards"):
            _write(state, folder / f"{stem}.{suffix}")
            return folder
        names = [f"{stem}-{i}-of-2.{suffix}" for i in (1, 2)]
        weight_map = {key: names[i % 2] for i, key in enumerate(state)}
        for n in names:
            _write({k: v for k, v in state.items() if weight_map[k] == n}, folder / n)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
        return folder

    return make


def _write(state: State, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)
