"""What a rule leaves unused is pinned, what it refuses is reported, and its mistakes surface."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules import RULES, Rule
from permgraph.axes.rules.rule import FunctionRule
from permgraph.axes.rules.table import equation
from permgraph.errors import RuleError
from permgraph.frontend.capture import capture
from permgraph.ir.trace import Trace
from permgraph.reporting.tables import spec_text
from permgraph.rules import UnsupportedForm, movement
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


class Spectrum(nn.Module):
    """The window of a transform is a buffer, as everywhere in audio."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        window = torch.rand(32)
        if learned:
            self.window = nn.Parameter(window)
        else:
            self.register_buffer("window", window)
        self.layers = nn.Sequential(nn.Linear(17, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 32, 8, window=self.window, center=False, return_complex=True)
        return self.layers(spectrum.abs().transpose(1, 2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("learned", [True, False])
def test_the_window_of_a_transform_is_pinned(learned: bool) -> None:
    torch.manual_seed(0)
    net, x = Spectrum(learned).double().eval(), (torch.randn(2, 400).double(),)
    found = infer(capture(net, x))
    assert [g.size for g in found.groups] == [12]
    assert not [p for p in found.places if p.tensor == "window"]
    assert [p.reason for p in found.pinned if p.tensor == "window"] == [
        "not used by the rule of aten.stft.default"
    ]
    assert verify(net, x, found) < 1e-12


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.centres, self.down = nn.Linear(5, 8), nn.Parameter(torch.randn(6, 8)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.cdist(self.up(x), self.centres).exp())  # type: ignore[no-any-return]


def distances() -> Trace:
    torch.manual_seed(0)
    return capture(Distances(), (torch.randn(4, 5),))


def test_an_operand_that_a_rule_did_not_use_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "cdist", equation("n i -> n !o", "x1"))
    reasons = {p.tensor: p.reason for p in infer(distances()).pinned}
    assert reasons["centres"] == "not used by the rule of aten.cdist.default"


def test_the_same_tensor_read_twice_is_pinned_where_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.up(x)
            return self.down(torch.cdist(h, h))  # type: ignore[no-any-return]

    monkeypatch.setitem(RULES, "cdist", equation("n i -> n !o", "x1"))
    found = infer(capture(Twice(), (torch.randn(4, 5),)))
    assert "not used by the rule of aten.cdist.default" in {
        p.reason for p in found.pinned if p.tensor == "up.weight"
    }


def refusing(x1: LabelledTensor, x2: LabelledTensor) -> str:
    raise UnsupportedForm("distances of an odd kind")


def test_a_refusal_is_pinned_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "cdist", FunctionRule.of(refusing))
    found = infer(distances())
    (unknown,) = found.unknown_ops
    assert (unknown.op, unknown.reason, unknown.row) == ("aten.cdist.default", "distances of an odd kind", "")
    assert not found.groups
    said = "its rule does not cover this form (distances of an odd kind): aten.cdist.default at cdist"
    assert said in spec_text(found, width=1000)


def keyless(x1: LabelledTensor, x2: LabelledTensor) -> Any:
    return dict[str, Any]()["x"]


def of_another_op(x1: LabelledTensor, dim: int) -> str:
    return "n i -> n !o"


def misshapen(x1: LabelledTensor, x2: LabelledTensor) -> LabelledTensor:
    return movement.swap(x1, 0, 1)


def miscounted(x1: LabelledTensor, x2: LabelledTensor) -> str:
    return "n i -> n !o"


def mistyped(x1: LabelledTensor, x2: LabelledTensor) -> str:
    return "n i, o i -> n oo"


MISTAKES = {
    keyless: "KeyError: 'x'",
    of_another_op: "TypeError: the rule asks for an argument `dim`, which the op does not have",
    misshapen: "it gives results of shapes [(8, 4)], and the op gives [(4, 6)]",
    miscounted: "ValueError: 2 operands for the 1 terms of 'n i -> n !o'",
    mistyped: "`oo` is in no operand",
}


@pytest.mark.parametrize("wrong", MISTAKES, ids=lambda f: f.__name__)
def test_a_mistake_in_a_rule_names_the_op_and_the_node(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "cdist", FunctionRule.of(wrong))
    with pytest.raises(RuleError) as error:
        infer(distances())
    assert str(error.value).startswith("the rule of aten.cdist.default failed at cdist (test_forms.py:")
    assert MISTAKES[wrong] in str(error.value)


FITS_NOT: dict[str, Rule] = {
    "operand 1 (4×8) does not have the axes": equation("n -> n !o", "x1"),
    "operand 3 of": equation("n i, o i, k -> n o"),
    "the result (4×6) does not have the axes": equation("n i, o i -> n"),
}


@pytest.mark.parametrize("why", FITS_NOT)
def test_an_equation_that_does_not_fit_the_shapes_is_a_form_not_covered(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "cdist", FITS_NOT[why])
    (unknown,) = infer(distances()).unknown_ops
    assert why in unknown.reason


class Spread(nn.Module):
    def __init__(self, spread: Any) -> None:
        super().__init__()
        self.up, self.spread = nn.Linear(5, 6), spread

    def forward(self, x: Tensor) -> Tensor:
        return self.spread(self.up(x))  # type: ignore[no-any-return]


SPREADS = {
    "var": lambda h: torch.var(h, False),
    "std": lambda h: torch.std(h, unbiased=False),
    "var_mean": lambda h: torch.var_mean(h, False)[0],
    "rank 9": lambda h: h.reshape(2, 1, 1, 2, 1, 1, 1, 1, 6).softmax(-1).square().sum(-1),
}


@pytest.mark.parametrize("name", SPREADS)
def test_arguments_are_not_taken_for_others(name: str) -> None:
    torch.manual_seed(0)
    net, x = Spread(SPREADS[name]).double().eval(), (torch.randn(4, 5).double(),)
    found = infer(capture(net, x))
    assert [g.size for g in found.groups] == [6] and not found.unknown_ops
    assert verify(net, x, found) < 1e-12


class Complex(nn.Module):
    """Real and imaginary parts side by side, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.up(x).unflatten(-1, (6, 2)))
        return self.down(torch.view_as_real(pairs * pairs).flatten(1))  # type: ignore[no-any-return]


def test_real_and_imaginary_parts_stay_apart() -> None:
    torch.manual_seed(0)
    net, x = Complex().double().eval(), (torch.randn(4, 5).double(),)
    found = infer(capture(net, x))
    assert [g.size for g in found.groups] == [6] and not found.unknown_ops
    assert verify(net, x, found) < 1e-12


class Quotient(nn.Module):
    """A quotient of two numbers by `torch.div`, as Longformer counts its chunks: an op without any tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        count = torch.div(x.shape[0], 2, rounding_mode="trunc")  # type: ignore[call-overload]
        return self.layers(x) * count  # type: ignore[no-any-return]


def test_an_op_of_numbers_alone_holds_nothing() -> None:
    net, x = Quotient().eval(), torch.randn(8, 4)
    traced = capture(net, (x,))
    assert any(node.short_op == "div" and not list(node.refs()) for node in traced.nodes)
    spec = infer(traced)
    assert [group.size for group in spec.groups] == [6]
    assert verify(net, (x,), spec) < 1e-9
