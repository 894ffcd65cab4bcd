"""Predictions: what a probe says of one clip, as a row of results."""

from __future__ import annotations

from permgraph.evaluation.dataset import Dataset, Round
from permgraph.evaluation.results import Prediction
from permgraph.inputs.sources import shown


def prediction(
    dataset: Dataset, part: Round, row: int, name: str, run: str, seed: int, label: str, predicted: str
) -> Prediction:
    """Of the encoder `name` on one row of a data set, whose label it is, in one fold."""
    task, values = dataset.task, dataset.rows[row].values
    return Prediction(
        task.name,
        task.domain,
        name,
        run,
        str(seed),
        task.head,
        part.fold,
        shown(values[task.path]),
        values[task.cluster] if task.cluster else "",
        label,
        predicted,
        int(predicted == label),
    )
