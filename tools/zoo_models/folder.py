"""What a network saved by transformers must survive: its folder permuted, and loaded again by `from_pretrained`.

The tensors that come back must be those of `permgraph.apply` on the network's own state, bit for bit; that these
compute the same is what the zoo's function check says of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from networks.randomise import randomise
from torch import Tensor, nn

from permgraph.ir.permutations import random_permutations
from permgraph.ir.spec import PermSpec
from permgraph.planning.compile import compile_plan
from permgraph.weights.apply import apply, apply_checkpoint
from permgraph.weights.checkpoint import open_checkpoint

Facts = dict[str, Any]


class NotReloaded(Exception):
    """transformers does not give back what it saved, so nothing can be asked of us."""


def saved(net: nn.Module, folder: Path) -> Mapping[str, Tensor]:
    """Save a network with random weights, and its state. Raises NotReloaded when transformers cannot reload it."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    randomise(net)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    try:
        net.save_pretrained(folder, max_shard_size="200KB")  # type: ignore[operator]
        back = reloaded(net, folder)
    except Exception as error:
        raise NotReloaded(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error
    wrong = list(differing(back, state))
    if wrong:
        raise NotReloaded(f"{len(wrong)} tensors come back with other values: {', '.join(wrong[:3])}")
    return state


def reloaded(net: nn.Module, folder: Path) -> Mapping[str, Tensor]:
    """The state that `from_pretrained` gives to a network of this class."""
    kind: Any = type(net)
    found: Mapping[str, Tensor] = kind.from_pretrained(folder, dtype=torch.float32).state_dict()
    return found


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of the tensors that are not the same bits."""
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        if a is None or b is None or a.shape != b.shape or not torch.equal(a, b):
            yield name


def survives(net: nn.Module, spec: PermSpec, folder: Path) -> Facts:
    """Permute the saved folder by a random element of the whole group, and reload it.

    Returns how it is stored. Raises AssertionError with the names of the tensors that are wrong, NotReloaded, and what
    permgraph raises.
    """
    state = saved(net, folder / "a")
    stored = open_checkpoint(folder / "a")
    units = stored.conversion.units if stored.conversion else ()
    plan = compile_plan(spec)
    perms = random_permutations(plan, seed=1)
    apply_checkpoint(plan, perms, folder / "a", folder / "b")
    wrong = list(differing(reloaded(net, folder / "b"), apply(plan, perms, state)))
    assert not wrong, f"{len(wrong)} tensors come back wrong: {', '.join(wrong[:3])}"
    kept = open_checkpoint(folder / "b").stored
    assert kept == stored.stored, "the result is not stored under the keys it had"
    return {
        "stored": len(stored.stored),
        "shards": len(stored.shards),
        "renamed": sum(u.movement is None and u.stored != u.names for u in units),
        "fused": sum(u.movement is not None for u in units),
    }


def check_folder(net: nn.Module, spec: PermSpec) -> Facts:
    """`survives` in a folder of its own, with a status. Raises what it raises, but NotReloaded."""
    with TemporaryDirectory() as folder:
        try:
            return {"status": "ok", **survives(net, spec, Path(folder))}
        except NotReloaded as error:
            return {"status": "not reloaded", "reason": str(error)}
