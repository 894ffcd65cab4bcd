"""Values that may be equal by arithmetic: a selection among them takes the first one, so that their order is no symmetry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles.law import law
from torch import Tensor, nn

import permgraph as pg

UNITS = 4
Form = Callable[[Tensor], Tensor]

# One number for many: zeros, rounded numbers, the larger of each and a constant.
TIED: dict[str, Form] = {
    "a quotient rounded down": lambda h: torch.div(h, 1.0, rounding_mode="floor"),
    "a quotient rounded to zero": lambda h: torch.div(h, 1.0, rounding_mode="trunc"),
    "a leaky ReLU that leaks nothing": lambda h: F.leaky_relu(h, 0.0),
    "an ELU of height 0": lambda h: F.elu(h, alpha=0.0),
    "eight bits": lambda h: h.to(torch.float8_e4m3fn).to(h.dtype),
    "sorted with a constant": lambda h: torch.stack([h, h * 0], -1).sort(-1)[0][..., 0],
    "pooled with a constant": lambda h: F.max_pool1d(torch.stack([-h, h * 0], -1), 2)[..., 0].neg(),
    "a sign, in a sum": lambda h: -(torch.sign(h) * h + h),
    "a root of a square, in a sum": lambda h: -((h * h).sqrt() + h),
    "less what is above 1": lambda h: (h + 1) - F.relu(h),
    "the end of a lerp by a mask": lambda h: torch.lerp(h, torch.zeros_like(h), (h > 0).to(h.dtype)),
    "a number by its amount": lambda h: h / h.abs(),
    "a number by the root of its square": lambda h: h * (h * h).rsqrt(),
    "a logarithm of a square": lambda h: -((h * h).log() / 2).exp() - h,
    "how many are not zero": lambda h: torch.linalg.vector_norm(torch.stack([h, h], -1), 0, dim=-1),
    "to the power of 0": lambda h: h**0,
    "a variance of one": lambda h: h[..., None].var(-1, correction=0),
}
# Zeros become other numbers in a layer with a bias, and stay equal in one without.
ZERO: dict[str, Form] = {
    "with its amount": lambda h: h + h.abs(),
    "less what is below 0": lambda h: h - h.clamp(max=0),
    "a mask of its own": lambda h: torch.lerp(h, torch.zeros_like(h), (h < 2).to(h.dtype)),
    "both, added up": lambda h: torch.stack([h, h.abs()], -1).sum(-1),
    "pooled": lambda h: F.max_pool1d(torch.stack([h, -h * 0], -1), 2)[..., 0],
    "added nothing of": lambda h: torch.add(F.relu(h), h, alpha=0),
}
DISTINCT: dict[str, Form] = {
    "as they are": lambda h: h,
    "GELU": lambda h: 0.5 * h * (1 + torch.tanh(h + 0.04 * h**3)),
    "SiLU": lambda h: h * h.sigmoid() + h,
    "a root mean square norm": lambda h: h * (h.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt(),
    "a leaky ReLU": lambda h: F.leaky_relu(h, 0.1),
    "an ELU": lambda h: F.elu(h),
    "divided": lambda h: h / (1 + h.exp()),
}


class Selects(nn.Module):
    def __init__(self, form: Form, without_bias: bool = False) -> None:
        super().__init__()
        self.form = form
        self.up, self.down = nn.Linear(3, UNITS), nn.Linear(5, 2)
        self.rows = nn.Parameter(torch.randn(UNITS, 5))
        self.between = nn.Linear(UNITS, UNITS, bias=False) if without_bias else nn.Identity()
        self.register_buffer("kept", torch.tensor([0.0, 1.0, 0.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.between(self.form(self.up(x))).argmax(-1)
        return self.down(self.rows[chosen])  # type: ignore[no-any-return]


def spec_and_change(net: nn.Module, reordered: tuple[str, ...]) -> tuple[pg.PermSpec, float]:
    """What is inferred, and how much the output changes when the first axes of these tensors are reversed."""
    x = torch.randn(400, 3)
    net = net.double().eval()
    with torch.no_grad():
        y = net(x.double())
        state = {k: v.flip(0) if k in reordered else v for k, v in net.state_dict().items()}
        change = (torch.func.functional_call(net, state, (x.double(),)) - y).abs().max()
    return pg.infer(pg.trace(net.float(), (x,))), change.item()


def free(spec: pg.PermSpec, key: str) -> bool:
    """Whether the first axis of a tensor moves."""
    return any(place.tensor == key and place.axis == 0 for place in spec.places)


@pytest.mark.parametrize("form", TIED)
def test_units_that_may_be_equal_stay_where_they_are(form: str) -> None:
    torch.manual_seed(0)
    spec, change = spec_and_change(Selects(TIED[form]), ("up.weight", "up.bias", "rows"))
    assert change > 0.1
    assert not free(spec, "rows")


@pytest.mark.parametrize("form", ZERO)
def test_zeros_stay_equal_in_a_layer_without_bias(form: str) -> None:
    torch.manual_seed(0)
    spec, change = spec_and_change(Selects(ZERO[form], without_bias=True), ("between.weight", "rows"))
    assert change > 0.1
    assert not free(spec, "rows") and free(spec, "up.weight")


@pytest.mark.parametrize("form", DISTINCT)
@pytest.mark.parametrize("without_bias", [False, True])
def test_units_that_are_never_equal_are_free(form: str, without_bias: bool) -> None:
    torch.manual_seed(0)
    net = Selects(DISTINCT[form], without_bias)
    spec, _ = spec_and_change(net, ())
    assert free(spec, "rows") and free(spec, "up.weight")
    change, back = law(net, (torch.randn(400, 3),), spec)
    assert change < 1e-9 < back


class Masked(Selects):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.rows[(self.up(x) * self.kept).argmax(-1)])  # type: ignore[no-any-return]


def test_a_buffer_may_be_a_mask() -> None:
    torch.manual_seed(0)
    spec, change = spec_and_change(Masked(lambda h: h), ("up.weight", "up.bias", "rows", "kept"))
    assert change > 0.1
    assert not free(spec, "rows")
