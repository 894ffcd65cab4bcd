"""The encoders that are judged, by name; and what valid says of them, where a choice is to be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import permgraph as pg
from permgraph.errors import UsageError
from permgraph.evaluation.dataset import Dataset, files_of, load_dataset
from permgraph.evaluation.features import FrozenEncoder, encoder_features
from permgraph.evaluation.probing import probe
from permgraph.evaluation.results import Retained
from permgraph.evaluation.task import load_task
from permgraph.weights.encoder import open_encoder
from reproduction.making import Maker
from reproduction.rows import Experiment, Row, Section

BOTH = "side by side"
SHARES = (0.9, 0.7, 0.5)  # of the finding
SCREENED = ("plain", "aligned", "random")

Runs = list[str]  # a path for each pre-training run; two of them, joined by "+", side by side


@dataclass(frozen=True)
class Pairs:
    """The parents: (A, B) of every pre-training run, and of encoders that began alike."""

    trained: tuple[tuple[Path, Path], ...]
    shared: tuple[tuple[Path, Path], ...] = ()

    def of(self, section: Section, row: Row) -> tuple[tuple[Path, Path], ...]:
        return self.shared if section.pairs == "shared" else self.trained[: row.runs or None]

    @property
    def names(self) -> tuple[str, str]:
        """Of A and B, without the number of a run: speech-0, speech-1 → speech."""
        return _common([a.name for a, _ in self.trained]), _common([b.name for _, b in self.trained])

    def parents(self) -> dict[str, Runs]:
        a, b = self.names
        if a == b:
            raise UsageError(f"A and B are both named {a}. Rename a folder.")
        found = {
            a: [str(one) for one, _ in self.trained],
            b: [str(one) for _, one in self.trained],
            BOTH: [f"{one}+{other}" for one, other in self.trained],
        }
        if self.shared:
            found |= {
                f"{a}'": [str(one) for one, _ in self.shared],
                f"{b}'": [str(one) for _, one in self.shared],
            }
        return found


def encoders(experiment: Experiment, pairs: Pairs, maker: Maker) -> Iterator[tuple[str, Runs]]:
    """Every merged encoder: name and runs, made where it is not there. Sections without their pairs are left out."""
    for section in experiment.sections:
        found: dict[str, Runs] = {}
        for row in section.rows:
            for a, b in pairs.of(section, row):
                made = maker.make(row, a, b)
                for other, share, name in section.names():
                    if other is row:
                        found.setdefault(name, []).append(str(made[share]))
            print(f"{section.title}: {row.name}", flush=True)
        yield from found.items()


def valid_means(
    chosen: Mapping[str, Runs], experiment: Experiment, data: Path, cache: Path
) -> dict[str, float]:
    """The accuracy on valid, the mean over tasks and runs. What the probe chooses, it chooses there too."""
    datasets = _datasets(experiment, data)
    return {
        name: float(np.mean([_on_valid(Path(path), datasets, cache) for path in runs]))
        for name, runs in chosen.items()
    }


def left_in(
    merged: Mapping[str, Runs], experiment: Experiment, pairs: Pairs, data: Path, cache: Path
) -> Sequence[Retained]:
    """The screen of the rows of the finding, run 0, on one task of each data set."""
    first = dict(zip(pairs.names, map(str, pairs.trained[0]), strict=True))
    wanted = (f"{row} {share:g}" for share in SHARES for row in SCREENED)
    rows = {name: merged[name][0] for name in wanted if name in merged}
    judged = zip(experiment.tasks, _datasets(experiment, data), strict=True)
    tasks = {d.task.manifest or d.task.folder: task for task, d in judged}
    if not rows:
        return ()
    return pg.evaluate(
        first | rows,
        list(tasks.values()),
        data,
        head=experiment.head,
        parents=list(first),
        cache=cache,
    ).retained


def _datasets(experiment: Experiment, data: Path) -> list[Dataset]:
    return [load_dataset(replace(load_task(t), head=experiment.head), data) for t in experiment.tasks]


def _on_valid(path: Path, datasets: Sequence[Dataset], cache: Path) -> float:
    encoder, values = FrozenEncoder(open_encoder(path)), []
    for dataset in datasets:
        beside = [d for d in datasets if d.task.manifest == dataset.task.manifest]
        features = encoder_features(encoder, files_of(beside), cache)
        on_valid = replace(dataset, rounds=tuple(replace(r, test=r.valid) for r in dataset.rounds))
        values.append(np.mean([p.correct for p in probe(on_valid, "", "0", features, 1, {})]))
    return float(np.mean(values))


def _common(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    stems = {name.rstrip("0123456789").rstrip("-_.") for name in names}
    if len(stems) > 1 or "" in stems:
        raise UsageError(
            f"{', '.join(names)}: runs of one encoder are named alike but for a number: a-0, a-1."
        )
    return stems.pop()
