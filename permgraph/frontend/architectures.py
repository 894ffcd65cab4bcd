"""Aliases: published architectures as data, one TOML file each in `specs/architectures/`. Needs no torch.

source = "https://huggingface.co/facebook/hubert-large-ll60k"
extends = "hubert"          # take every field of another file that is not given here
config = "HubertConfig"     # classes of transformers
model = "HubertModel"
submodule = "encoder"       # the part to trace, when it is not the whole model
parameters = 315438720      # of that part, as published
[overrides]                 # fields of the config that differ from the class's defaults
hidden_size = 1024
[input]                     # the first argument of the forward
shape = [1, 4240]
dtype = "float32"
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from permgraph.data_files import read_extended_toml, specs
from permgraph.errors import FileError


@dataclass(frozen=True)
class Architecture:
    """What an alias stands for. The fields are those of the file, `overrides` merged along `extends`."""

    source: str
    config: str
    model: str
    parameters: int
    shape: tuple[int, ...]
    dtype: str
    submodule: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def hub_id(self) -> str:
        """The "owner/name" on the Hugging Face hub."""
        return "/".join(self.source.split("/")[-2:])


@cache
def aliases() -> dict[str, Architecture]:
    """Every alias, sorted by name. Raises FileError when a data file is damaged."""
    files = sorted((specs() / "architectures").glob("*.toml"), key=lambda path: path.stem)
    return {path.stem: _architecture(path) for path in files}


def is_alias(name: str) -> bool:
    """Whether `name` is one of `aliases()`."""
    return name in aliases()


def _architecture(path: Path) -> Architecture:
    data = read_extended_toml(path)
    try:
        example = data.pop("input")
        return Architecture(shape=tuple(example["shape"]), dtype=example["dtype"], **data)
    except (KeyError, TypeError) as error:
        raise FileError(f"{path}: a field is missing or unknown: {error}.") from error
