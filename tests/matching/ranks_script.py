"""Run by two processes side by side (test_ranks.py): what ranks do in turn, one line of JSON for each."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import torch

from permgraph.errors import PermgraphError
from permgraph.ir.moments import Layout, Moments
from permgraph.ir.plan import Origin
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.ranks import Ranks

LAYOUTS = {"ffn.0": Layout(("ffn.0",), (70,)), "cnn.0": Layout(("cnn.0",), (5,))}


def samples(key: str) -> tuple[torch.Tensor, torch.Tensor]:
    """300 samples of both models, far from zero and drifting, so that the shifts of shards differ."""
    rng = np.random.default_rng(sum(map(ord, key)))
    units = LAYOUTS[key].units
    ramp = np.linspace(0, 50, 300)[:, None]
    a = rng.standard_normal((300, units)) + ramp
    b = rng.standard_normal((300, units)) + a[:, ::-1] - 2 * ramp
    return torch.from_numpy(a).float(), torch.from_numpy(b).float()


def moments(rows: slice, keys: tuple[str, ...] = tuple(LAYOUTS), **meta: str) -> Moments:
    builder = MomentsBuilder(LAYOUTS, Origin("plan"), {"data": "same", "shard": "0/2", "batches": "1"} | meta)
    for key in keys:
        a, b = samples(key)
        builder.update(key, a[rows], b[rows])
    return builder.build()


def share(case: str, rank: int) -> Moments:
    if case == "fails" and rank == 1:
        raise PermgraphError("this rank has no audio")
    if case == "dies" and rank == 1:
        os._exit(9)
    rows = slice(0, 100) if rank == 0 else slice(100, 300)  # uneven
    keys = ("ffn.0",) if case == "unseen" and rank == 0 else tuple(LAYOUTS)
    return moments(rows, keys, data="other" if case == "files" and rank == 1 else "same")


def main(folder: str) -> None:
    rank = int(os.environ["RANK"])
    port = int(os.environ["MASTER_PORT"])
    for number, case in enumerate(("sum", "unseen", "files", "fails", "dies")):
        os.environ["MASTER_PORT"] = str(port + number)
        ranks = Ranks.of_environment()
        assert ranks is not None
        try:
            found, _ = ranks.all_of(lambda case=case: (share(case, rank), ()), wait=20)  # type: ignore[misc]
            found.save(f"{folder}/{case}-{rank}")
            said = "done"
        except PermgraphError as error:
            said = str(error)
        print(json.dumps([case, said]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
