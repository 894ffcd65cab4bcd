"""A dataset of Ray: the moments of all actors together are those of one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import permgraph as pg
from permgraph.errors import MatchError, UsageError
from permgraph.ray_data import calibrate_dataset

ray = pytest.importorskip("ray", reason="Ray is not installed (permgraph[ray])")
data = pytest.importorskip("ray.data", reason="Ray Data is not installed (permgraph[ray])")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.GELU(), nn.Linear(20, 4)).eval()


def models() -> tuple[nn.Module, nn.Module]:
    return network(0), network(1)


def inputs(block: dict[str, Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(block["data"]))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


ROWS = np.random.default_rng(0).standard_normal((48, 6)).astype(np.float32)
PLAN = pg.plan(pg.infer(pg.trace(network(0), (torch.zeros(1, 6),))), "ffn")


@pytest.mark.parametrize("actors", [1, 2])
def test_the_sum_over_actors_is_that_of_one_process(actors: int) -> None:
    want = pg.calibrate(PLAN, *models(), [torch.from_numpy(ROWS)])
    dataset = data.from_numpy(list(np.array_split(ROWS, 6)))
    found = calibrate_dataset(PLAN, dataset, models, inputs=inputs, actors=actors)
    assert found.origin == want.origin and found.meta == {}
    for key, probe in want.probes.items():
        assert found[key].n == probe.n
        np.testing.assert_allclose(found[key].correlation(), probe.correlation(), atol=1e-6)
    assert pg.match(PLAN, found) == pg.match(PLAN, want)


def test_more_actors_than_blocks_and_no_rows_at_all() -> None:
    found = calibrate_dataset(PLAN, data.from_numpy(ROWS[:4]), models, inputs=inputs, actors=2)
    assert max(probe.n for probe in found.probes.values()) == 4
    empty = data.from_numpy(ROWS[:4]).filter(lambda row: False)
    with pytest.raises(MatchError, match="no batch to calibrate on"):
        calibrate_dataset(PLAN, empty, models, inputs=inputs)
    with pytest.raises(UsageError, match="actors=0"):
        calibrate_dataset(PLAN, empty, models, inputs=inputs, actors=0)
