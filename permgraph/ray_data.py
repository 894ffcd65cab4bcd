"""Calibration on a dataset of Ray Data: an actor for each share of its blocks, and the sum of what they find.

    moments = calibrate_dataset(plan, dataset, models, inputs=lambda block: torch.from_numpy(block["audio"]), actors=8)
    perms = pg.match(plan, moments)

Needs `permgraph[ray]`. Ray itself decides where actors run and reads blocks while they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from permgraph.errors import MatchError, UsageError
from permgraph.ir.moments import Moments
from permgraph.ir.plan import Plan

if TYPE_CHECKING:
    from torch import nn

    Models = Callable[[], tuple[nn.Module, nn.Module]]


def calibrate_dataset(
    plan: Plan,
    dataset: Any,
    models: Models,
    *,
    inputs: Callable[[dict[str, Any]], Any],
    actors: int = 1,
    batch_size: int = 4,
    resources: Mapping[str, Any] | None = None,
    stride: int = 1,
) -> Moments:
    """Moments over all rows of a `ray.data.Dataset`, as `pg.calibrate` has them over batches.

    models      makes A and B, in eval mode, on the device where an actor is to run them; called once in each actor
    inputs      makes of a batch of rows, {column: array}, what the forward takes; rows of one batch are of one length
    actors      how many run side by side, each on its share of the blocks
    resources   of one actor, as `ray.remote` takes them: {"num_gpus": 1}
    stride      as for `pg.calibrate`

    Raises UsageError without Ray, MatchError where there is no row, and what calibration raises.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed: pip install 'permgraph[ray]'.") from error
    if actors < 1:
        raise UsageError(f"actors={actors}: at least one is needed.")
    shares = dataset.streaming_split(actors)
    share = ray.remote(**(resources or {"num_cpus": 0}))(
        _moments_of
    )  # CPUs are left to what reads the blocks
    running = [
        share.remote(plan, part, models, inputs, batch_size, stride, (number, actors))
        for number, part in enumerate(shares)
    ]
    total: Moments | None = None
    while running:  # added as they come: a slow share does not keep the others in memory
        (done,), running = ray.wait(running)
        try:
            found: Moments | None = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            for other in running:
                ray.cancel(other, force=True)
            raise error.cause if isinstance(error.cause, MatchError | UsageError) else error from error
        if found is not None:
            total = found if total is None else total + found
    return _whole(plan, total)


def _moments_of(
    plan: Plan,
    part: Any,
    models: Models,
    inputs: Callable[[dict[str, Any]], Any],
    batch_size: int,
    stride: int,
    number: tuple[int, int],
) -> Moments | None:
    """What one actor finds in its share; None where that is empty."""
    from permgraph.matching.calibration import calibrate
    from permgraph.matching.shards import Shard

    seen = 0

    def batches() -> Iterator[Any]:
        nonlocal seen
        for block in part.iter_batches(batch_size=batch_size, batch_format="numpy"):
            seen += 1
            yield inputs(block)

    try:
        return calibrate(plan, *models(), batches(), stride=stride, shard=Shard(*number))
    except MatchError:
        if seen:
            raise
        return None


def _whole(plan: Plan, total: Moments | None) -> Moments:
    """All shares together, as one calibration. Raises MatchError."""
    from permgraph.matching.probes import refuse_unvisited
    from permgraph.matching.shards import common_meta

    if total is None:
        raise MatchError("no batch to calibrate on: the dataset has no row.")
    refuse_unvisited(plan, total.probes)
    total.refuse_excluded()
    return replace(total, meta=common_meta(total))
