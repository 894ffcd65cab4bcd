"""What the groups are worth to other tools: the numbers of docs/clients.md.

    python tools/clients.py > docs/clients.md

Reads the pretrained networks of ../shared/data; some minutes on one core. The same run gives the same numbers every time.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator

import numpy as np
import torch
from networks import pretrained as p
from real_pairs import table
from torch import Tensor, nn

import permgraph as pg

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


TABLES = {"{sparsity}": sparsity_table}


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
