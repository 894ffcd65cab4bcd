"""What the groups are worth to other tools: the numbers of docs/clients.md.

    python tools/clients.py > docs/clients.md

Reads the pretrained networks of ../shared/data; some minutes on one core, and mergekit (extra `mergekit`). The same run gives
the same numbers every time, but for the seconds.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator
from glob import escape
from itertools import product
from typing import Any

import numpy as np
import real_pairs
import torch
from networks import pretrained as p
from peers.exchange_search import exchanged, magnitude
from real_pairs import HALF, table
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ResNetConfig, ResNetForImageClassification

import permgraph as pg
from permgraph.matching.matchers import match

DRAWS = 2000  # of the bootstrap
TEXT = """# What groups are worth to other tools

Networks that other people trained. Written by `python tools/clients.py > docs/clients.md`. Intervals hold 95 %, from a paired bootstrap over
the images that are judged.

## Sparsity

`permgraph reorder --pattern 2:4`, then the two smallest of every four inputs set to zero, without any training after it. Magnitude that is kept, in
the order of training, in the order found, and the most that any order could keep; accuracy of the pruned networks on 1,000 images of CIFAR-10
and 4,000 of MNIST. Only tensors that a group orders are pruned.

{sparsity}
More magnitude is not always more accuracy. The order found keeps about 1 % more of it on each of the networks with convolutions of 16 to 64 channels;
the plain network gains from that without training, both residual ones lose. What fine-tuning makes of either was not measured.
Of the MNIST pair nothing can be ordered: its widths of 10 and 50 are no multiples of four, and the 320 inputs are sixteen pixels
of each channel, so that a channel fills whole stripes.

Wide groups, of random weights (no wide network that someone trained lies in ../shared/data), beside the greedy exchange of channels of
[Pool and Yu](https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html), written for this comparison
(`tools/peers/exchange_search.py`). Share of the magnitude of the tensor whose inputs are ordered, and seconds of CPU:

{wide}
The order found keeps a little more than the exchanges do, on both.

## Merge methods

B is aligned by activations and merged half and half (`pg.merge(…, method=…)`, mergekit). The networks were trained apart and have no common base: methods that merge
differences take them from zeros. `matched weights` is `pg.matched_weights`: less of B where it matched badly. `plain` is without alignment. Accuracy, and the difference from the aligned
average. Digits: 3,000 images judged. Objects: ResNet-20s, A at B's norms, BatchNorm statistics taken anew for every row, 600 images judged.

{methods}
- None of this replaces the alignment: no method brings the plain pair near the aligned average.
- SLERP is the average, within the interval. Task arithmetic from zeros is the average by its definition. TIES and DARE, made for small differences from a
  common base, throw away what networks without one are made of, and do harm.
- `matched weights` are better than half and half because they take less of B: the same share of B in every tensor does as well or better. So which tensors
  take it does not matter here, and A alone is above both.

## What a plan cannot hold

A plan re-orders: every unit of B goes to one slot of A. Partial merging as in ZipIt (https://arxiv.org/abs/2305.03053), which merges units within a network and leaves others
unmerged, changes the number of units; soft matching as by Sinkhorn's algorithm (https://arxiv.org/abs/2212.12042) mixes them. Both give other functions, which no check can hold against B's, and neither is offered.
The nearest that a plan can do is `pg.matched_weights`, and `--groups`, which leaves the layers that match badly out.
"""

Data = tuple[Tensor, Tensor]


def correct(model: nn.Module, data: Data) -> np.ndarray:
    """Whether each image is classified correctly."""
    with torch.no_grad():
        logits = torch.cat([model.eval()(x) for x in torch.split(data[0], 500)])
    return (logits.argmax(dim=1) == data[1]).numpy()


def difference(after: np.ndarray, before: np.ndarray) -> str:
    """In accuracy, with its interval over images."""
    change = after.astype(float) - before.astype(float)
    drawn = np.random.default_rng(0).integers(len(change), size=(DRAWS, len(change)))
    low, high = np.quantile(change[drawn].mean(axis=1), (0.025, 0.975))
    return f"{change.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def pruned(model: nn.Module, rows: tuple[object, ...], state: dict[str, Tensor]) -> nn.Module:
    """With this state, the two smallest of every four inputs set to zero in the tensors of `rows`."""
    result, state = copy.deepcopy(model), dict(state)
    for row in rows:
        name, axis = row.tensor, row.axis  # type: ignore[attr-defined]
        fours = state[name].movedim(axis, -1)
        fours = fours.reshape(*fours.shape[:-1], -1, 4)
        kept = torch.zeros_like(fours).scatter(-1, fours.abs().topk(2, dim=-1).indices, 1.0)
        state[name] = (fours * kept).flatten(-2).movedim(-1, axis)
    result.load_state_dict(state)
    return result


def sparsity_table() -> str:
    rows = list(sparsity_rows())
    return table(
        ["network", "kept", "re-ordered", "most", "dense", "pruned", "re-ordered, pruned", "difference"], rows
    )


def sparsity_rows() -> Iterator[list[object]]:
    for name, data in (
        *(
            (n, p.cifar())
            for n in ("cifar_resnet20", "cifar_resnet_neo_v1_5e4_20", "cifar_plainnet_neo_v1_5e4_20")
        ),
        *((n, p.mnist()) for n in ("mnist_cnn_a", "mnist_cnn_b")),
    ):
        model = p.load(name)
        plan = pg.plan(pg.infer(pg.trace(model, p.example(name))))
        state = model.state_dict()
        found = pg.reorder(plan, state)
        total = found.total
        before = correct(pruned(model, found.rows, state), data)
        after = correct(pruned(model, found.rows, pg.apply(plan, found.perms, state)), data)
        shares = [value / total.all for value in (total.before, total.after, total.most)]
        dense = float(correct(model, data).mean())
        yield [name, *shares, dense, float(before.mean()), float(after.mean()), difference(after, before)]


def wide_table() -> str:
    head = ["group", "units", "kept", "exchanges", "re-ordered", "exchanges, s", "re-ordered, s"]
    return table(head, list(wide_rows()))


def wide_rows() -> Iterator[list[object]]:
    """The last convolution of a bottleneck of ResNet-50, and the feed-forward block of a BERT a third as wide as bert-base."""
    torch.manual_seed(0)
    resnet = ResNetForImageClassification(ResNetConfig(depths=[1, 1, 1, 1])).eval()
    bert = BertModel(
        BertConfig(hidden_size=256, intermediate_size=1024, num_attention_heads=4, num_hidden_layers=1)
    ).eval()
    for label, model, inputs, role, units in (
        ("bottleneck of ResNet-50", resnet, {"pixel_values": torch.randn(1, 3, 64, 64)}, "cnn", 512),
        ("feed-forward block of a BERT", bert, {"input_ids": torch.arange(4)[None]}, "ffn", 1024),
    ):
        spec, state = pg.infer(pg.trace(model, inputs)), model.state_dict()
        group = [g for g in spec.groups if (g.role, g.size) == (role, units)][-1]
        (place,) = (q for q in group.places if q.side == "un-permute")
        inputs_of = state[place.tensor].movedim(place.axis, 0).flatten(1).numpy()
        began = time.process_time()
        peer = exchanged(inputs_of, 2, 4)
        between = time.process_time()
        found = pg.reorder(pg.plan(spec, group.name), state)
        ended = time.process_time()
        (row,) = (r for r in found.rows if r.tensor == place.tensor)
        yield [
            label, units, row.before / row.all, magnitude(inputs_of, peer, 2, 4), row.after / row.all,
            f"{between - began:.0f}", f"{ended - between:.0f}",
        ]  # fmt: skip


def methods_table() -> str:
    return table(["", "digits", "difference", "objects", "difference"], list(methods_rows()))


def methods_rows() -> Iterator[list[object]]:
    """Each way to merge, on both pairs."""
    columns = [dict(merges(*real_pairs.digits(), fix=False)), dict(merges(*real_pairs.objects(), fix=True))]
    for name in columns[0]:
        row: list[object] = [name]
        for column in columns:
            change = "" if name in ("A", "B", ALIGNED) else difference(column[name], column[ALIGNED])
            row += [float(column[name].mean()), change]
        yield row


def merges(pair: real_pairs.Pair, judged: Data, fix: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Whether each image is classified correctly, by every merge; with `fix`, at equal norms and with BatchNorm statistics anew."""
    state_a, state_b = dict(pair.a.state_dict()), dict(pair.b.state_dict())
    yield "A", correct(pair.a, judged)
    yield "B", correct(pair.b, judged)
    state_a = real_pairs.balanced(state_a, state_b) if fix else state_a
    perms = match(pair.plan, pair.moments())
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state_a.items()}
    orders = {"plain": state_b, "aligned": pg.apply(pair.plan, perms, state_b)}
    for (name, options), (order, of_b) in product(METHODS.items(), orders.items()):
        more = {"base": zeros} if options.get("base") else {}
        how = {**options, **more}
        if name in MATCHED:
            if order == "plain":
                continue
            by_tensor = pg.matched_weights(pair.plan, perms, HALF)
            share = share_of_b(state_a, by_tensor)
            how = {"tensor_weights": by_tensor if name == MATCHED[0] else {"*": (1 - share, share)}}
        model = copy.deepcopy(pair.a)
        model.load_state_dict(pg.merge(state_a, of_b, HALF, **how))
        if fix:
            reset(model, pair)
        yield f"{order}, {name}", correct(model, judged)


def share_of_b(state: dict[str, Tensor], by_tensor: dict[str, tuple[float, float]]) -> float:
    """The weight of B, the mean over all numbers that are averaged."""
    sizes = {key: tensor.numel() for key, tensor in state.items() if tensor.is_floating_point()}
    held = sum(size * by_tensor.get(escape(key), HALF)[1] for key, size in sizes.items())
    return held / sum(sizes.values())


def reset(model: nn.Module, pair: real_pairs.Pair) -> None:
    """BatchNorm statistics from the calibration images."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for x, _ in pair.batches:
            model(x)
    model.eval()


MATCHED = ("matched weights", "the same share of B everywhere")
METHODS: dict[str, dict[str, Any]] = {
    "average": {},
    **{name: {} for name in MATCHED},
    "slerp": {"method": "slerp"},
    "task_arithmetic": {"method": "task_arithmetic", "base": True},
    "ties": {"method": "ties", "base": True, "parameters": {"density": 0.5}},
    "dare_linear": {"method": "dare_linear", "base": True, "parameters": {"density": 0.9}},
}
ALIGNED = "aligned, average"
TABLES = {"{methods}": methods_table, "{sparsity}": sparsity_table, "{wide}": wide_table}


def main() -> None:
    if not (p.DATA / "weights").is_dir():
        sys.exit("the pretrained networks (../shared/data) are not here")
    torch.set_num_threads(1)
    text = TEXT
    for mark, make in TABLES.items():
        text = text.replace(mark, make())
    print(text, end="")


if __name__ == "__main__":
    main()
