"""A task as data: one TOML file of specs/tasks, or of a user.

domain = "speech"
manifest = "fsdd/manifest.csv"  # relative to the folder given by --data
label = "digit"
split = "split_digit"           # a column with train, valid and test; or fold = "…" for cross-validation
cluster = "speaker"
disjoint = ["speaker"]
head = "linear"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permgraph.data_files import fields_of, read_toml, refuse_missing, specs
from permgraph.errors import FileError, UsageError, nearest

LOWER = ("wer",)  # metrics of which less is better
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Task:
    """What is classified or transcribed, on which clips, and how it is judged.

    name       of the file, without its suffix
    domain     speech, music, environment: scores are averaged within one
    label      column that holds what is to be predicted
    manifest   csv or tsv file with a row per clip, relative to the data folder; or
    layout     the official folder layout of a data set (`permgraph.evaluation.layouts`), and `folder`, where it lies
    path       column of the audio file, relative to the manifest
    split      column that holds train, valid or test; without valid rows, a fifth of train takes their place
    fold       column that holds the fold in which a clip is tested: cross-validation, in place of `split`
    skip       values of the split column whose rows take no part
    cluster    column of what was drawn together (speaker, recording): the bootstrap draws these
    disjoint   columns of which no value may be in two splits
    head       of the probe, a name in `permgraph.evaluation.heads.OF_METRIC`
    metric     accuracy, of classes; or wer, the word error rate of transcripts: less is better
    gate       by how much an encoder has to beat the strongest log-mel baseline for the task to say something of it
    only       labels that take part, all of them when empty; clips of others are left out and counted
    unseen     "refuse" or "skip" the clips of valid and test whose label train lacks
    note       what a reader should know of the task
    source     link to the data set or the protocol
    """

    name: str
    domain: str
    label: str
    manifest: str = ""
    layout: str = ""
    folder: str = ""
    path: str = "path"
    split: str = ""
    fold: str = ""
    skip: tuple[str, ...] = ()
    cluster: str = ""
    disjoint: tuple[str, ...] = ()
    head: str = "linear"
    metric: str = "accuracy"
    gate: float = 0.0
    only: tuple[str, ...] = ()
    unseen: str = "refuse"
    note: str = ""
    source: str = ""

    @property
    def transcribes(self) -> bool:
        """Whether the label is a text, not one of a set of classes."""
        return self.metric == "wer"

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the manifest that the task reads."""
        named = (self.path, self.label, self.split, self.fold, self.cluster, *self.disjoint)
        return tuple(dict.fromkeys(name for name in named if name))


def tasks_folder() -> Path:
    return specs() / "tasks"


def task_names() -> list[str]:
    """The tasks that come with the package, by name."""
    return sorted(path.stem for path in tasks_folder().glob("*.toml"))


def load_task(name: str | Path) -> Task:
    """A task by its name in specs/tasks, or from a TOML file. Raises UsageError, FileError."""
    path = Path(name)
    if path.suffix != ".toml":
        path = tasks_folder() / f"{name}.toml"
        if str(name) not in task_names():
            raise UsageError(
                f"{name}: no such task.{nearest(str(name), task_names())} There are: {', '.join(task_names())}; "
                "or give a .toml file of your own."
            )
    return task_of(read_toml(path), path)


def task_of(data: dict[str, Any], path: Path) -> Task:
    """The content of a TOML file as a task. Raises FileError, which names the file and the field."""
    values = fields_of(Task, "field", data, str(path), but=("name",))
    refuse_missing(str(path), data, ("domain", "label"))
    task = Task(path.stem, **values)
    _check(task, path)
    return task


def _check(task: Task, path: Path) -> None:
    from permgraph.evaluation.heads import OF_METRIC
    from permgraph.evaluation.layouts import LAYOUTS

    for one, other in (("manifest", "layout"), ("split", "fold")):
        if bool(getattr(task, one)) == bool(getattr(task, other)):
            raise FileError(f"{path}: give either {one} or {other}.")
    for field, value, choices in (
        ("metric", task.metric, tuple(OF_METRIC)),
        ("head", task.head, OF_METRIC.get(task.metric, ())),
        ("unseen", task.unseen, ("refuse", "skip")),
        ("layout", task.layout, ("", *LAYOUTS)),
    ):
        if value not in choices:
            known = f"Known{f' with metric = {task.metric!r}' if field == 'head' else ''}"
            raise FileError(
                f"{path}: {field} = {value!r}.{nearest(value, choices)} {known}: {', '.join(filter(None, choices))}."
            )
    if task.fold and (task.skip or task.unseen == "skip"):
        raise FileError(
            f'{path}: skip, and unseen = "skip", go with a split column; with fold there is none.'
        )
    if task.transcribes and (task.only or task.unseen == "skip"):
        raise FileError(
            f'{path}: only, and unseen = "skip", are for classes; with metric = "wer" the label is a text.'
        )
    if not 0 <= task.gate < 1:
        raise FileError(f"{path}: gate = {task.gate:g}: a difference of {task.metric}, from 0 to 1.")


def sign(metric: str) -> int:
    """1 where more is better, -1 where less is."""
    return -1 if metric in LOWER else 1
