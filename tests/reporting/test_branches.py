"""Equal branches in the picture: what a joined tensor says stands at each of its members, on the right side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import permgraph as pg
from permgraph.reporting.drawing.facts import of_box
from permgraph.reporting.drawing.graph import build


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(3, 8), nn.Linear(8, 4), nn.Linear(8, 2)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 8)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        weight = self.gate(h).softmax(-1)
        return self.last(sum(weight[..., i : i + 1] * e(h) for i, e in enumerate(self.experts)))  # type: ignore[no-any-return]


def test_units_enter_and_leave_each_member_where_they_are_consumed_and_produced() -> None:
    trace = pg.trace(Experts().eval(), (torch.ones(2, 3),))
    spec = pg.infer(trace)
    outer = next(g.name for g in spec.groups if g.size == 4)
    inner = next(g.name for g in spec.groups if g.within == outer)
    consumed = next(p.layout for p in spec.places if p.tensor == "gate.weight" and p.axis == 1)
    graph = build(trace, spec)
    boxes = [graph.nodes[name]["box"] for name in graph]
    for number in range(4):
        into = next(b for b in boxes if b.weight == f"experts.{number}.0.weight")
        back = next(b for b in boxes if b.weight == f"experts.{number}.2.weight")
        assert into.takes == {consumed} and into.gives == {(outer,), (outer, inner)}
        assert back.takes == {(outer, inner)} and (outer,) in back.gives
        assert f"experts.{number}.0.weight[0]" in of_box(into) and "[-1]" not in of_box(into)
