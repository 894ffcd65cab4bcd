"""What no group moves and no rule pins is counted, and its links can be shown."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from networks.random_networks import random_network
from torch import Tensor, nn

import permgraph as pg
from permgraph.ir.distinguished import distinguished
from permgraph.reporting.explain import why
from permgraph.reporting.notes import notes


class Products(nn.Module):
    """A sum of Kronecker products, taken out of two arrays one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.s = nn.Parameter(torch.randn(2, 2, 2)), nn.Parameter(torch.randn(2, 4, 3))
        self.first, self.last = nn.Linear(3, 6), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.kron(self.a[0], self.s[0]) + torch.kron(self.a[1], self.s[1])
        return self.last(torch.tanh(torch.tanh(self.first(x)) @ weight.T))


def test_the_report_names_what_is_in_no_group_and_in_no_pin() -> None:
    spec = pg.infer(pg.trace(Products(), (torch.randn(2, 3),)))
    assert distinguished(spec) == {("a", 0): 2, ("s", 0): 2}
    (line,) = [line for line in notes(spec) if line.startswith("held by what they are linked to")]
    assert "4 coordinates on 2 axes: a[0], s[0]" in line and "permgraph why" in line


def test_a_network_whose_axes_are_all_in_groups_or_pins_has_no_such_line() -> None:
    spec = pg.infer(
        pg.trace(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (torch.randn(2, 3),))
    )
    assert distinguished(spec) == {} and not any("linked to" in line for line in notes(spec))


def moving(spec: pg.PermSpec, own: dict[str, Tensor]) -> Counter[tuple[str, int]]:
    """Coordinates of every axis that change places in some of many random elements of the group."""
    plan = pg.plan(spec)
    places: dict[tuple[str, int], set[int]] = {}
    for draw in range(12):
        perms = pg.random_permutations(plan, draw)
        for axis in range(max(map(len, spec.tensors.values()))):
            state = {name: numbered(value, axis) for name, value in own.items()}
            for name, after in pg.apply(plan, perms, state).items():
                if name in spec.tensors and axis < after.dim():
                    moved = (after != state[name]).movedim(axis, 0).reshape(after.shape[axis], -1).any(1)
                    places.setdefault((name, axis), set()).update(torch.nonzero(moved).flatten().tolist())
    return Counter({key: len(found) for key, found in places.items()})


def numbered(value: Tensor, axis: int) -> Tensor:
    """Coordinates of an axis in place of a tensor's numbers; integers as they are, since plans follow some."""
    if axis >= value.dim() or not value.is_floating_point():
        return value
    numbers = torch.arange(float(value.shape[axis]))
    return numbers.reshape([-1 if a == axis else 1 for a in range(value.dim())]).expand(value.shape).clone()


@pytest.mark.sampled(6)
@pytest.mark.parametrize("seed", range(60))
def test_every_coordinate_moves_is_pinned_or_is_told(seed: int) -> None:
    module, inputs = random_network(seed)
    trace = pg.trace(module, inputs)
    spec = pg.infer(trace)
    told = distinguished(spec)
    pinned: Counter[tuple[str, int]] = Counter()
    for pin in spec.pinned:
        pinned[pin.tensor, pin.axis] += pin.count
    moved = moving(spec, module.state_dict()) if spec.groups else Counter()
    for tensor, shape in spec.tensors.items():
        for axis, size in enumerate(shape):
            if tensor not in spec.unused and module.state_dict()[tensor].is_floating_point():
                left = size - moved[tensor, axis] - pinned[tensor, axis]
                assert told.get((tensor, axis), 0) == (left if left > 1 else 0), (tensor, axis)
    for tensor, axis in told:
        assert why(trace, f"{tensor}[{axis}]"), (tensor, axis)
