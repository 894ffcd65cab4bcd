"""What of a batch is input: said by its type or by the caller, never guessed."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from permgraph.errors import MatchError
from permgraph.frontend.batches import Pair, call_for, sides

X, Y = torch.ones(2, 3), torch.zeros(2, 3)


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, labels: Any = None) -> Tensor:
        return x


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@pytest.mark.parametrize(
    "model, batch, args",
    [
        (One(), X, (X,)),
        (One(), [X, Y], (X,)),  # a DataLoader's input and target
        (One(), (X, Y), (X,)),
        (One(), [X, Y, Y], (X,)),
        (Two(), [X, Y], (X, Y)),
        (Two(), [X, Y, X], (X, Y)),
        (Masked(), (X, Y), (X, Y)),
        (Masked(), [X], (X,)),
    ],
)
def test_positional_inputs(model: nn.Module, batch: Any, args: tuple[Tensor, ...]) -> None:
    found, kwargs = call_for(model, batch)
    assert kwargs == {} and len(found) == len(args)
    assert all(one is other for one, other in zip(found, args, strict=True))


@pytest.mark.parametrize("batch", [[X, Y], (), [X, Y, Y, Y][:0]])
def test_what_cannot_be_told_is_refused(batch: Any) -> None:
    with pytest.raises(
        MatchError, match=r"Masked\.forward takes 1 to 2 arguments.*inputs=0.*permgraph\.Pair"
    ):
        call_for(Masked(), batch)


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_keywords_without_labels_and_without_what_the_forward_does_not_take(kind: Any) -> None:
    batch = kind({"x": X, "mask": Y, "labels": Y, "length": 3})
    args, kwargs = call_for(Masked(), batch)
    assert args == () and set(kwargs) == {"x", "mask"}
    with pytest.raises(MatchError, match=r"keys image, label holds no argument of One\.forward \(x\)"):
        call_for(One(), kind({"image": X, "label": Y}))


def test_a_pair_is_a_type_and_inputs_pick() -> None:
    assert sides(Pair(X, Y)) == (X, Y)
    one, other = sides((X, Y))
    assert one is other
    assert sides([X, Y], 1) == (Y, Y)
    assert sides({"image": X}, "image") == (X, X)
    assert sides(Pair([X], [Y]), lambda b: b[0]) == (X, Y)
    with pytest.raises(MatchError, match="inputs='sound': no such part of a batch that is a dict"):
        sides({"image": X}, "sound")
