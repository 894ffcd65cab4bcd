"""Evaluate: probes on frozen encoders, task by task, beside the log-mel baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from filecmp import cmp
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from permgraph.errors import FileError, UsageError, nearest
from permgraph.evaluation.dataset import Dataset, Round, files_of, load_dataset
from permgraph.evaluation.extras import extra
from permgraph.evaluation.features import (
    Features,
    FrozenEncoder,
    Progress,
    side_by_side,
    usable,
    usable_rate,
)
from permgraph.evaluation.frames import Frames, encoder_frames
from permgraph.evaluation.heads import HEADS, OF_METRIC, Parts
from permgraph.evaluation.logmel import NAME, logmel_features, logmel_frames
from permgraph.evaluation.predictions import prediction
from permgraph.evaluation.recognition import recognise
from permgraph.evaluation.results import Evaluation, Prediction, Retained
from permgraph.evaluation.retention import retained
from permgraph.evaluation.subjects import Encoders, Subject, listed, subjects_of
from permgraph.evaluation.summary import notes_of, results_of
from permgraph.evaluation.task import Task, load_task
from permgraph.evaluation.transcripts import notes_on_lengths, notes_on_texts
from permgraph.inputs.clips import spread
from permgraph.inputs.sources import shown
from permgraph.weights.encoder import open_encoder

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]

BASELINES = ("ridge", "logistic", "logistic-plain")  # of which the strongest counts
SCREENED = 200, 50, 100  # clips that fit, choose and judge the label-free screen


def evaluate(
    encoders: Encoders,
    tasks: Sequence[str | Path],
    data: str | Path,
    *,
    head: str | None = None,
    seeds: int = 1,
    parents: Sequence[str] = (),
    cache: str | Path | None = None,
    device: str = "cpu",
    bar: Bar | None = None,
    model_class: str = "",
) -> Evaluation:
    """Probe every encoder on every task. See `permgraph.evaluate`."""
    subjects = subjects_of(encoders)
    tasks, parents = listed(tasks), listed(parents)
    for name in parents:
        if name not in (known := [s.name for s in subjects]):
            raise UsageError(
                f"--parents {name}: no such encoder.{nearest(name, known)} There are: {', '.join(known)}."
            )
        if any(len(run) > 1 for s in subjects if s.name == name for run in s.runs):
            raise UsageError(f"--parents {name}: encoders side by side are no parent.")
    if seeds < 1 or not tasks:
        raise UsageError("give one task and one seed at least.")
    datasets = [load_dataset(task, data) for task in _tasks(tasks, head)]
    with nullcontext(cache) if cache is not None else TemporaryDirectory(prefix="permgraph-") as folder:
        made = _Work(subjects, datasets, Path(folder), device, bar or _silent, model_class)
        predictions, choices, notes = made.predictions(seeds)
        screen = tuple(made.screen(parents)) if parents else ()
    results = [r for d in datasets for r in results_of(d, Path(data), predictions, choices)]
    notes = [*notes, *(f"{d.task.name}: {note}." for d in datasets for note in notes_of(d, results))]
    return Evaluation(tuple(results), tuple(predictions), screen, tuple(notes))


def _tasks(names: Sequence[str | Path], head: str | None) -> list[Task]:
    heads = [name for names in OF_METRIC.values() for name in names]
    if head is not None and head not in heads:
        raise UsageError(f"--head {head}: no such head.{nearest(head, heads)} There are: {', '.join(heads)}.")
    tasks = [load_task(name) for name in dict.fromkeys(names)]
    for name, count in Counter(task.name for task in tasks).items():
        if count > 1:
            raise UsageError(f"{name}: two tasks of this name.")
    for task in tasks:
        if head is not None and head not in (fitting := OF_METRIC[task.metric]):
            raise UsageError(
                f"--head {head}: {task.name} is judged by {task.metric}, for which there are: {', '.join(fitting)}. Leave out the "
                "task or --head."
            )
        if task.transcribes:
            extra("jiwer")  # before hours of audio
    return [replace(task, head=head) if head else task for task in tasks]


class _Work:
    """The encoders and data sets of one evaluation, and where their features lie."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        datasets: Sequence[Dataset],
        cache: Path,
        device: str,
        bar: Bar,
        model_class: str,
    ) -> None:
        self.subjects, self.datasets, self.cache = subjects, datasets, cache
        self.device, self.bar = usable(device), bar
        paths = {path for subject in subjects for run in subject.runs for path in run}
        self.encoders = {path: open_encoder(path, model_class=model_class) for path in sorted(paths)}
        for encoder in self.encoders.values():  # before hours of audio
            usable_rate(encoder)
        self.groups: dict[tuple[str, str, str], list[Dataset]] = {}
        for dataset in datasets:
            key = (dataset.task.manifest, dataset.task.layout, dataset.task.folder)
            self.groups.setdefault(key, []).append(dataset)
        classes = [[d for d in group if not d.task.transcribes] for group in self.groups.values()]
        self.classes = [group for group in classes if group]
        self.texts = [dataset for dataset in datasets if dataset.task.transcribes]
        beside = [subject.name for subject in subjects if any(len(run) > 1 for run in subject.runs)]
        if beside and self.texts:
            raise UsageError(
                f"{beside[0]}: encoders side by side are judged on tasks of classes; {self.texts[0].task.name} is one of "
                "transcripts. Leave out the task or the encoders."
            )

    def predictions(self, seeds: int) -> tuple[list[Prediction], dict[tuple[str, str], str], list[str]]:
        """Per clip; what was chosen, by task and encoder; notes."""
        found: list[Prediction] = []
        choices: dict[tuple[str, str], str] = {}
        heads, notes = _baselines() if self.classes else ([], [])
        notes += [
            f"{dataset.task.name}: {note}." for dataset in self.texts for note in notes_on_texts(dataset)
        ]
        for group, features in self._features(NAME, logmel_features):
            for dataset in group:
                _refuse_copies(dataset, features)
                for head in heads:
                    name = f"{NAME} ({head})"
                    task = replace(dataset.task, head=head)
                    found += probe(replace(dataset, task=task), name, "0", features, 1, choices)
        for dataset, frames in self._frames(NAME, logmel_frames, notes):
            _refuse_copies(dataset, frames)
            name = f"{NAME} ({dataset.task.head})"
            found += self._recognised(dataset, name, "0", frames, seeds, choices)
        for subject in self.subjects:
            for number, paths in enumerate(subject.runs):
                name, run, encoders = subject.name, str(number), [self._frozen(path) for path in paths]
                notes += [f"{name}: {note}." for encoder in encoders for note in encoder.notes]
                for group, features in self._features(name, partial(side_by_side, encoders)):
                    for dataset in group:
                        found += probe(dataset, name, run, features, seeds, choices)
                for dataset, frames in self._frames(name, partial(encoder_frames, encoders[0]), notes):
                    found += self._recognised(dataset, name, run, frames, seeds, choices)
        return found, choices, list(dict.fromkeys(notes))

    def _features(
        self, name: str, of: Callable[[Sequence[Path], Path, Progress], Features]
    ) -> Iterator[tuple[list[Dataset], Features]]:
        """For the tasks of classes, one pass over the audio of each data set."""
        for group in self.classes:
            with self.bar(name) as step:
                features = of(files_of(group), self.cache, step)
            yield group, features

    def _frames(
        self, name: str, of: Callable[[Sequence[Path], Path, Progress], Frames], notes: list[str]
    ) -> Iterator[tuple[Dataset, Frames]]:
        """For the tasks of texts; and notes on clips that are too short."""
        for dataset in self.texts:
            with self.bar(name) as step:
                frames = of(files_of([dataset]), self.cache, step)
            notes += [f"{dataset.task.name}: {note}." for note in notes_on_lengths(dataset, name, frames)]
            yield dataset, frames

    def _recognised(
        self,
        dataset: Dataset,
        name: str,
        run: str,
        frames: Frames,
        seeds: int,
        choices: dict[tuple[str, str], str],
    ) -> list[Prediction]:
        with self.bar(f"{name}, {dataset.task.name}") as step:
            return list(recognise(dataset, name, run, frames, seeds, choices, step))

    def _frozen(self, path: Path) -> FrozenEncoder:
        return FrozenEncoder(self.encoders[path], self.device)

    def screen(self, parents: Sequence[str]) -> Iterator[Retained]:
        """R² of the parents' layers, for the first run of every other encoder that is one, on each data set."""
        frozen = {s.name: self._frozen(s.runs[0][0]) for s in self.subjects if len(s.runs[0]) == 1}
        for name, encoder in frozen.items():
            if name in parents:
                continue
            for dataset, *_ in self.groups.values():
                part = dataset.rounds[0]
                files = [
                    [dataset.rows[i].file for i in spread(list(rows), count)]
                    for rows, count in zip((part.train, part.valid, part.test), SCREENED, strict=True)
                ]
                with self.bar(f"{name}, screen") as step:
                    step(0, 1)
                    every = retained(encoder, [frozen[p] for p in parents], files[0], files[1], files[2])
                    step(1, 1)
                for parent, layers in zip(parents, every, strict=True):
                    for layer, value in enumerate(layers):
                        yield Retained(dataset.task.name, name, parent, layer, value)


def _baselines() -> tuple[list[str], list[str]]:
    """Heads of the log-mel baseline, and a note where scikit-learn is not installed."""
    from importlib.util import find_spec

    if find_spec("sklearn") is not None:
        return list(BASELINES), []
    return ["ridge"], [
        "log-mel is judged by ridge alone: logistic regression needs pip install 'permgraph[evaluate]'."
    ]


def _refuse_copies(dataset: Dataset, features: Features | Frames) -> None:
    """Refuse a recording that is in two splits under two names."""
    digest = dict(zip(features.files, features.digests, strict=True))
    for part in dataset.rounds:
        alike: dict[str, list[tuple[str, int]]] = {}  # a digest knows size and ends of a file alone
        for name in ("train", "valid", "test"):
            for i in getattr(part, name):
                row = dataset.rows[i]
                others = alike.setdefault(digest[row.file], [])
                for split, other in others:
                    copy = dataset.rows[other].file
                    if split != name and cmp(row.file, copy, shallow=False):
                        raise FileError(
                            f"{row.where}: {shown(row.file.name)} is in {name} and has the content of {shown(copy.name)}, which "
                            f"is in {split}."
                        )
                others.append((name, i))


def probe(
    dataset: Dataset, name: str, run: str, features: Features, seeds: int, choices: dict[tuple[str, str], str]
) -> Iterator[Prediction]:
    """Predictions of one encoder on one task, for every seed that matters and every fold."""
    task, head = dataset.task, HEADS[dataset.task.head]
    labels = dataset.labels()
    for part in dataset.rounds:
        classes = sorted({labels[i] for i in part.train})
        parts = _parts(dataset, part, features, {label: k for k, label in enumerate(classes)}).standardised()
        for seed in range(seeds if head.random else 1):
            predicted = head.fit(parts, seed)
            choices.setdefault((task.name, name), predicted.choice)
            for i, k in zip(part.test, predicted.test, strict=True):
                yield prediction(dataset, part, i, name, run, seed, labels[i], classes[k])


def _parts(dataset: Dataset, part: Round, features: Features, number: Mapping[str, int]) -> Parts:
    labels = dataset.labels()
    deviations = HEADS[dataset.task.head].deviations
    x = [
        features.rows([dataset.rows[i].file for i in rows], deviations)
        for rows in (part.train, part.valid, part.test)
    ]
    y = [np.array([number[labels[i]] for i in rows], np.int64) for rows in (part.train, part.valid)]
    return Parts(x[0], y[0], x[1], y[1], x[2], len(number))


def _silent(title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None)
