"""A recipe as data: one TOML file of specs/encoders, several runs that share their settings.

tasks = ["phil-pitch", …]         # that judge: none of their clips but train is read
[settings]                        # of every run; see Settings in train.py, audio relative to the data folder
[first]                           # what differs in the first iteration: seed, targets of the signal
[second]                          # in the second: targets = ["first:2"], layer 2 of the first
[encoders.music-0]                # the runs of the second iteration: seed, or seed and init
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permgraph.data_files import fields_of, read_toml, refuse_missing, refuse_unknown
from permgraph.evaluation.task import Task, load_task
from pretraining.train import Settings

PARTS = ("tasks", "settings", "first", "second", "encoders")
FIRST = "first"


@dataclass(frozen=True)
class Run:
    """An encoder: its name, which is that of its folder, and its settings."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Recipe:
    """The tasks that judge, and the runs in order: the first iteration, then those that take their targets from it."""

    name: str
    tasks: tuple[Task, ...]
    runs: tuple[Run, ...]


def load_recipe(path: Path, data: Path, out: Path) -> Recipe:
    """A recipe with its paths filled in. Raises FileError, which names the file and the field."""
    table = read_toml(path)
    refuse_unknown(str(path), "part", table, PARTS)
    refuse_missing(str(path), table, PARTS)
    common, stem = table["settings"], path.stem
    first = Run(f"{stem}-{FIRST}", _settings(common | table["first"], path, data, out, stem))
    later = [
        Run(name, _settings(common | table["second"] | one, path, data, out, stem))
        for name, one in table["encoders"].items()
    ]
    return Recipe(stem, tuple(map(load_task, table["tasks"])), (first, *later))


def _settings(values: Mapping[str, Any], path: Path, data: Path, out: Path, stem: str) -> Settings:
    filled = fields_of(Settings, "setting", values, str(path))
    filled["audio"] = tuple(str(data / text) for text in filled.get("audio", ()))
    filled["targets"] = tuple(_target(text, out, stem) for text in filled.get("targets", ()))
    return Settings(**filled)


def _target(text: str, out: Path, stem: str) -> str:
    """ "first:2" as FOLDER:2."""
    name, colon, layer = text.partition(":")
    return f"{out / f'{stem}-{name}'}:{layer}" if colon and name == FIRST else text
