"""Run by test_ray_data.py in a process of its own: what actors of a local Ray find, one line of JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from torch import nn

import permgraph as pg
from permgraph.errors import PermgraphError
from permgraph.ray_data import calibrate_dataset


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.GELU(), nn.Linear(20, 4)).eval()


def models() -> tuple[nn.Module, nn.Module]:
    return network(0), network(1)


def inputs(block: dict[str, Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(block["data"]))


def refused(*arguments: Any, **options: Any) -> str:
    try:
        calibrate_dataset(*arguments, **options)
    except PermgraphError as error:
        return str(error)
    return ""


def main() -> None:
    rows = np.random.default_rng(0).standard_normal((48, 6)).astype(np.float32)
    plan = pg.plan(pg.infer(pg.trace(network(0), (torch.zeros(1, 6),))), "ffn")
    want = pg.calibrate(plan, *models(), [torch.from_numpy(rows)])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    found: dict[str, Any] = {}
    dataset = ray.data.from_numpy(list(np.array_split(rows, 6)))
    for actors in (1, 2):
        made = calibrate_dataset(plan, dataset, models, inputs=inputs, actors=actors)
        pairs = [(made[key], probe) for key, probe in want.probes.items()]
        found[f"{actors} actors"] = {
            "origin": made.origin == want.origin and made.meta == {},
            "samples": [one.n for one, _ in pairs] == [other.n for _, other in pairs],
            "error": max(float(np.abs(a.correlation() - b.correlation()).max()) for a, b in pairs),
            "same": pg.match(plan, made) == pg.match(plan, want),
        }
    found["none"] = refused(plan, dataset, models, inputs=inputs, actors=0)
    print(json.dumps(found), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
