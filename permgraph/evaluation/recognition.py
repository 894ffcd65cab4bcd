"""Speech recognition of one encoder on one task: a hypothesis for every test clip, and its words that are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from permgraph.evaluation import ctc
from permgraph.evaluation.dataset import Dataset
from permgraph.evaluation.features import Array, Progress
from permgraph.evaluation.frames import Frames
from permgraph.evaluation.predictions import prediction
from permgraph.evaluation.results import Prediction
from permgraph.evaluation.transcripts import characters, trained_on, word_errors


def recognise(
    dataset: Dataset,
    name: str,
    run: str,
    frames: Frames,
    seeds: int,
    choices: dict[tuple[str, str], str],
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Predictions of one encoder on one task, for every seed and every fold."""
    task, texts = dataset.task, dataset.labels()
    probes = [(part, seed) for part in dataset.rounds for seed in range(seeds)]

    def of(rows: Sequence[int]) -> list[Array]:
        return [frames.of(dataset.rows[i].file) for i in rows]

    def clips(rows: Sequence[int]) -> ctc.Clips:
        return ctc.Clips(of(rows), [texts[i] for i in rows])

    for number, (part, seed) in enumerate(probes):

        def step(done: int, total: int, before: int = number) -> None:
            if progress:
                progress(before * total + done, len(probes) * total)

        train = clips(trained_on(dataset, name, part, frames))
        alphabet = characters([texts[i] for i in part.train])
        found = ctc.transcribe(alphabet, train, clips(part.valid), of(part.test), seed, step)
        choices.setdefault((task.name, name), found.choice)
        for i, hypothesis in zip(part.test, found.test, strict=True):
            one = prediction(dataset, part, i, name, run, seed, texts[i], hypothesis)
            yield replace(one, errors=word_errors(texts[i], hypothesis), words=len(texts[i].split()))
