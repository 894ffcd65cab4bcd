"""The fingerprint of weights: equal however they are kept, another one when a single number is."""

from __future__ import annotations

import pytest
import torch

from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.spec import PermSpec

SPEC = PermSpec(
    "net",
    "",
    (),
    (),
    unused=("mask",),
    tensors={
        "conv.weight_g": (2,),
        "fc.weight": (2, 3),
        "ids": (4,),
        "mask": (3,),
        "bn.num_batches_tracked": (),
    },
    aliases={"fc.weight": ("out.weight",)},
)


def state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    numbers = {
        "conv.weight_g": torch.randn(2, generator=generator),
        "fc.weight": torch.randn(2, 3, generator=generator),
    }
    return {k: v.half().to(dtype) for k, v in numbers.items()} | {"ids": torch.arange(4)}


def text(tensors: dict[str, torch.Tensor]) -> str:
    weights = Fingerprint(SPEC)
    for name, tensor in tensors.items():
        weights.add(name, tensor)
    return weights.text


def test_names_widths_order_and_what_is_never_read_do_not_count() -> None:
    want = text(state())
    assert len(want) == 32
    assert {text(state(dtype)) for dtype in (torch.float16, torch.float32, torch.float64)} == {want}
    assert text(dict(reversed(state().items()))) == want
    spelt = {"conv.weight_g": "conv.parametrizations.weight.original0", "fc.weight": "out.weight"}
    assert text({spelt.get(name, name): tensor for name, tensor in state().items()}) == want
    assert (
        text(
            state()
            | {"mask": torch.ones(3), "head.bias": torch.ones(1), "bn.num_batches_tracked": torch.ones(())}
        )
        == want
    )
    assert text(state() | {"out.weight": state()["fc.weight"]}) == want


@pytest.mark.parametrize("name", ["conv.weight_g", "fc.weight", "ids"])
def test_one_other_number_is_another_fingerprint(name: str) -> None:
    changed = state()
    changed[name].view(-1)[-1] += 1
    assert text(changed) != text(state())


def test_equal_numbers_in_another_shape_or_place_are_other_weights() -> None:
    turned = state() | {"fc.weight": state()["fc.weight"].reshape(3, 2)}
    assert text(turned) != text(state())
    assert text(state() | {"fc.weight": state()["fc.weight"].flip(0)}) != text(state())


def test_a_part_of_the_weights_has_none() -> None:
    assert text({name: tensor for name, tensor in state().items() if name != "ids"}) == ""
