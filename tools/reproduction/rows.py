"""What is compared, as data: a TOML file of specs/experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permgraph.data_files import fields_of, read_toml, refuse_missing, refuse_unknown
from permgraph.errors import FileError, nearest
from permgraph.evaluation.task import load_task
from permgraph.matching.matchers import find_matcher

PARTS = ("tasks", "head", "calibrate", "where", "row", "sections")
OF_SECTION = ("title", "about", "pairs", "candidates", "rows")
PAIRS = ("trained", "shared")


@dataclass(frozen=True)
class Row:
    """One way to bring B to A before the average λ·A + (1 - λ)·B.

    groups     a preset or a selection; "none" for plain interpolation
    mode       of the plan
    shares     λ, one merged encoder each
    calibrate  the kinds of audio, of those that the file names
    seconds    of audio in all; 0 for all there is
    clip       seconds of each clip of it
    untrained  match the encoders as they were before training
    repair     correct the deviations of activations afterwards (REPAIR)
    matched    less of B in tensors whose units matched badly
    rounds     match, merge, and match B to the merged encoder again
    runs       pre-training runs that it is made for; 0 for all
    """

    name: str
    groups: str = "cnn+ffn+attn"
    mode: str = "exact"
    matcher: str = "correlation"
    shares: tuple[float, ...] = (0.9, 0.7, 0.5)
    calibrate: tuple[str, ...] = ()
    seconds: float = 200.0
    clip: float = 0.5
    untrained: bool = False
    repair: bool = False
    matched: bool = False
    rounds: int = 1
    runs: int = 0


@dataclass(frozen=True)
class Section:
    """Rows under one title. `candidates`: changes of which valid chooses one. `pairs`: of encoders, trained apart or from one start."""

    title: str
    about: str
    pairs: str
    candidates: bool
    rows: tuple[Row, ...]

    def names(self) -> Iterator[tuple[Row, float, str]]:
        """Each row, λ, and the name under which the result stands in the tables."""
        mark = "' " if self.pairs == "shared" else " "
        for row in self.rows:
            for share in row.shares:
                yield row, share, f"{row.name}{mark}{share:g}"


@dataclass(frozen=True)
class Experiment:
    """The tasks and the head that judge, the audio that calibrates by kind, the rows of manifests of it, and the sections."""

    tasks: tuple[str, ...]
    head: str
    calibrate: Mapping[str, tuple[str, ...]]
    where: Mapping[str, str]
    sections: tuple[Section, ...]

    @staticmethod
    def load(path: Path) -> Experiment:
        """Raises FileError, which names the file and the field; UsageError for a task or matcher that there is not."""
        table = read_toml(path)
        refuse_unknown(str(path), "part", table, PARTS)
        refuse_missing(str(path), table, ("tasks", "head", "calibrate", "sections"))
        for task in table["tasks"]:
            load_task(task)
        audio = {kind: tuple(files) for kind, files in table["calibrate"].items()}
        common = {"calibrate": list(audio)} | table.get("row", {})
        sections = [_section(path, one, common, audio) for one in table["sections"]]
        names = [name for section in sections for *_, name in section.names()]
        for name in names:
            if names.count(name) > 1:
                raise FileError(f"{path}: two rows are named {name!r}.")
        return Experiment(
            tuple(table["tasks"]), table["head"], audio, table.get("where", {}), tuple(sections)
        )


def _section(
    path: Path, values: Mapping[str, Any], common: Mapping[str, Any], audio: Mapping[str, Any]
) -> Section:
    refuse_unknown(str(path), "key", values, OF_SECTION)
    pairs = values.get("pairs", PAIRS[0])
    if pairs not in PAIRS:
        raise FileError(f"{path}: pairs: {pairs!r}.{nearest(pairs, PAIRS)} There are: {', '.join(PAIRS)}.")
    if not values.get("title") or not values.get("rows"):
        raise FileError(f"{path}: a section needs a title and rows.")
    rows = tuple(_row(path, {**common, **row}, audio) for row in values["rows"])
    return Section(values["title"], values.get("about", ""), pairs, values.get("candidates", False), rows)


def _row(path: Path, values: Mapping[str, Any], audio: Mapping[str, Any]) -> Row:
    if not values.get("name"):
        raise FileError(f"{path}: a row has no name.")
    row = Row(**fields_of(Row, "key of a row", values, f"{path}: {values['name']}"))
    find_matcher(row.matcher)
    for kind in row.calibrate:
        if kind not in audio:
            raise FileError(f"{path}: {row.name}: calibrate: {kind!r}.{nearest(kind, audio)}")
    if not row.shares or not all(0 <= s <= 1 for s in row.shares):
        raise FileError(f"{path}: {row.name}: shares are numbers from 0 to 1.")
    if row.rounds < 1 or row.runs < 0 or row.seconds < 0 or row.clip <= 0:
        raise FileError(
            f"{path}: {row.name}: rounds is one at least, clip above 0, runs and seconds not below it."
        )
    return row
