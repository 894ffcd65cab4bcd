"""`why`: a chain is shown where two axes are related, and only there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import UsageError
from permgraph.reporting.explain import explain_text, why


class Halves(nn.Module):
    """Two layers side by side, read by one: each is tied to its half of the reader, and to nothing of the other."""

    def __init__(self, parts: int = 2) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(3, 4) for _ in range(parts))
        self.reader = nn.Linear(4 * parts, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(torch.cat([torch.relu(part(x)) for part in self.parts], dim=-1))


def chain(model: nn.Module, axis: str, other: str | None = None) -> list[tuple[str, str, str]]:
    trace = pg.trace(model, (torch.randn(1, 3),))
    return [(r.here, r.kind, r.there) for r in why(trace, axis, other)]


def test_two_axes_tied_to_different_halves_of_a_third_are_not_related() -> None:
    assert not chain(Halves(), "parts.0.weight[0]", "parts.1.weight[0]")
    assert not chain(Halves(), "parts.0.bias[0]", "parts.1.weight[0]")


def test_two_axes_pinned_by_one_output_are_not_related_by_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.two(x)

    assert not chain(Two(), "one.weight[0]", "two.weight[0]")
    assert chain(Two(), "one.weight[0]")[-1] == ("one.weight[0]", "pin", "pinned: output")


def test_an_axis_is_tied_to_what_reads_it() -> None:
    found = chain(Halves(), "parts.1.weight[0]", "reader.weight[1]")
    assert found[0][0] == "parts.1.weight[0]" and found[-1][2] == "reader.weight[1]"


def test_no_relation_of_many_is_dropped() -> None:
    """0.1.0 kept 64 relations of one operation."""
    found = chain(Halves(80), "parts.79.weight[0]", "reader.weight[1]")
    assert found[-1][2] == "reader.weight[1]"
    assert len(chain(Halves(80), "reader.weight[1]")) >= 80


def test_blocks_relate_the_channels_of_a_head() -> None:
    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (m(x).view(1, -1, 2, 4).transpose(1, 2) for m in (self.q, self.k, self.v))
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.o(y.transpose(1, 2).flatten(2))

    trace = pg.trace(Self(), (torch.randn(1, 5, 8),))
    assert [r.kind for r in why(trace, "q.weight[0]", "k.weight[0]")] == ["tie"]
    assert {r.kind for r in why(trace, "q.weight[0]", "v.weight[0]")} >= {"block"}
    assert why(trace, "q.weight[0]", "o.weight[0]") == []  # pinned by the output, and no part of a head


def test_lines_fit_a_terminal_and_keep_names_whole() -> None:
    trace = pg.trace(Halves(), (torch.randn(1, 3),))
    text = explain_text(trace, "parts.1.weight[0]", "reader.weight[1]")
    assert max(map(len, text.splitlines())) <= 80
    assert "by aten.linear.default at" in text and "…" not in text


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("parts.0.weigth[0]", "parts.0.weigth: the network has no such tensor. Did you mean parts.0.weight"),
        ("parts.0.weight[2]", "parts.0.weight[2]: the tensor has 2 axes, 0 to 1."),
        ("parts.0.weight", "write an axis as tensor[number]"),
    ],
)
def test_a_wrong_axis_is_named(axis: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        chain(Halves(), axis)
    assert said in str(error.value)
