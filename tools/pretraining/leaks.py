"""No clip that judges an encoder may have trained it: neither by its path nor, under another name, by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.dataset import read_rows
from permgraph.evaluation.task import Task
from permgraph.inputs.sources import Source, gather, shown
from pretraining.corpus import conditions


def refuse_leaks(audio: Sequence[str], tasks: Iterable[Task], data: Path) -> int:
    """How many files train; refuse those that a task holds as anything but train.

    audio   as `Settings.audio`
    Raises FileError, which names the file, the task and the split.
    """
    held = {
        _content(row.file): (task.name, row.values[task.split])
        for task in tasks
        for row in read_rows(task, data)
        if row.values[task.split] != "train"
    }
    used = [source.path for text in audio for source in _sources(text)]
    for file in used:
        if (where := held.get(_content(file))) is not None:
            raise FileError(
                f"{shown(file)}: is in {where[1]} of {where[0]}. An encoder must not train on what judges it."
            )
    return len(used)


def _sources(text: str) -> list[Source]:
    path, where = conditions(text)
    return gather([path], where or None)[0]


def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
