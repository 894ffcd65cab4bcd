"""An op without a rule is reported with a row to start from, which works as it stands and is never wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from permgraph.axes.rules import RULES
from permgraph.frontend.capture import capture
from permgraph.reporting.tables import spec_text
from permgraph.rules import equation, register
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.centres, self.down = nn.Linear(5, 8), nn.Parameter(torch.randn(6, 8)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.cdist(self.up(x), self.centres).exp())  # type: ignore[no-any-return]


class Weighted(nn.Module):
    """An absent tensor before one that is there."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.bias = nn.Linear(5, 8), nn.Linear(6, 3), nn.Parameter(torch.randn(6))
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.ops.aten.linear(self.up(x), self.weight, self.bias)
        return self.down(torch.nn.functional.layer_norm(h, (6,), None, self.bias))


class Sorted(nn.Module):
    """Two results, and an argument between the tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        values, _ = self.up(x).sort(-1)
        return self.down(values.exp())  # type: ignore[no-any-return]


CASES: dict[str, tuple[type[nn.Module], str]] = {
    "cdist": (Distances, 'register("cdist", "!a !b, !c !b -> !a !c")'),
    "layer_norm": (Weighted, 'register("layer_norm", "!a !b, !b -> !a !b", "input", "bias")'),
    "sort": (Sorted, 'register("sort", "!a !b -> !a !b")'),
}


PINNED = {"cdist": "centres[0]", "layer_norm": "bias[0]", "sort": "up.weight[0]"}


@pytest.mark.parametrize("op", CASES)
def test_a_suggested_row_is_true(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kind, row = CASES[op]
    net, x = kind().double().eval(), (torch.randn(4, 5).double(),)
    monkeypatch.delitem(RULES, op)
    trace = capture(net, x)
    without = infer(trace)
    (unknown,) = without.unknown_ops
    assert unknown.row == row
    assert f"it pins {PINNED[op]}" in spec_text(without, width=1000)
    assert row in spec_text(without, width=1000)
    monkeypatch.setitem(RULES, op, equation(" -> "))  # put back as it was afterwards
    exec(row, {"register": register})
    found = infer(trace)
    assert not found.unknown_ops
    assert found.log10_order == without.log10_order  # ordered axes: as safe as no rule
    assert verify(net, x, found) < 1e-12
