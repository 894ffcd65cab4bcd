"""`as_strided` taken apart gives the same numbers, and the groups of the same network with `unfold`."""

from __future__ import annotations

import random

import pytest
import torch
from networks.randomise import noise, randomise
from oracles.law import law
from torch import Tensor, nn

import permgraph as pg
from permgraph.frontend.strided import as_strided_in_parts


def operand(draw: random.Random) -> Tensor:
    """Contiguous, with dims in another order, or with a dim cut."""
    shape = [draw.randint(1, 6) for _ in range(draw.randint(1, 4))]
    tensor = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    tensor = tensor.permute(draw.sample(range(len(shape)), len(shape))) if draw.random() < 0.5 else tensor
    return tensor[:: draw.choice((1, 1, 2))] if draw.random() < 0.5 else tensor


def wanted(draw: random.Random, tensor: Tensor) -> tuple[list[int], list[int]]:
    """Sizes and strides: those of the operand, some of them in windows or steps, in some order; or any."""
    found: list[tuple[int, int]] = []
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        step, window = draw.randint(1, 3), draw.randint(1, size)
        found += draw.choice(
            (
                [(size, stride)],
                [(-(-size // step), step * stride)],
                [((size - window) // step + 1, step * stride), (window, stride)],
                [(draw.randint(1, 3), draw.randint(0, 6))],
            )
        )
    draw.shuffle(found)
    return [size for size, _ in found], [stride for _, stride in found]


def test_the_parts_give_the_same_numbers() -> None:
    draw, apart = random.Random(0), 0
    for _ in range(3000):
        tensor = operand(draw)
        size, stride = wanted(draw, tensor)
        try:
            expected = torch.as_strided(tensor, size, stride)
        except RuntimeError:  # out of bounds
            continue
        found = as_strided_in_parts(tensor, size, stride)
        if found is not NotImplemented:
            apart += 1
            assert torch.equal(found, expected), (tensor.shape, tensor.stride(), size, stride)
    assert apart > 800


class Chunks(nn.Module):
    """Scores of the queries and keys of overlapping chunks, as in Longformer (https://arxiv.org/abs/2004.05150)."""

    def __init__(self, strided: bool, reads: bool = False) -> None:
        super().__init__()
        self.strided, self.reads = strided, reads
        self.q, self.k, self.last = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(3, 2)
        self.o = nn.Parameter(torch.randn(2, 3))  # of heads

    def chunks(self, x: Tensor) -> Tensor:
        x = x.view(1, 12, 2, 3).transpose(1, 2).reshape(2, 12, 3)  # (heads, positions, width)
        if not self.strided:
            return x.unfold(1, 4, 2).transpose(2, 3)
        heads, row, unit = x.stride()
        return x.as_strided((2, 5, 4, 3), (heads, 2 * row, row, unit))

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x)
        q /= 3.0
        if self.reads and q.sum() > 1e6:
            return q
        scores = torch.einsum("hcid,hcjd->hcij", self.chunks(q), self.chunks(self.k(x)))
        return self.last(torch.einsum("hcij,hd->cid", scores, self.o).tanh())  # type: ignore[no-any-return]


@pytest.mark.parametrize("reads", [False, True], ids=["exported", "run"])
def test_overlapping_chunks_have_the_groups_of_windows(reads: bool) -> None:
    inputs = (noise(1, 12, 5),)
    of = {}
    for strided in (True, False):
        module = randomise(Chunks(strided, reads))
        trace = pg.trace(module, inputs)
        assert not trace.unused and not any(node.short_op == "as_strided" for node in trace.nodes)
        spec = pg.infer(trace)
        assert not spec.unknown_ops
        change, put_back = law(module, inputs, spec)
        assert change < 1e-12 and put_back > 1e-3
        of[strided] = {(group.size, group.copies) for group in spec.groups}
    assert of[True] == of[False] == {(2, 1), (3, 2), (3, 1)}


def test_what_has_no_such_form_is_held() -> None:
    class Sums(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).as_strided((2, 2, 2), (1, 1, 1)).tanh()

    spec = pg.infer(pg.trace(Sums(3, 4), (torch.randn(4, 3),)))
    assert not spec.groups and {op.op for op in spec.unknown_ops} == {"aten.as_strided.default"}
