"""What is not captured is refused with a sentence that fits its cause, and docs/limits.md lists every sentence."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from permgraph.errors import TraceError
from permgraph.frontend.capture import capture

LIMITS = Path(__file__).parents[2] / "docs" / "limits.md"
OUTSIDE = torch.zeros(6)


class Net(nn.Module):
    """A layer, something in between, a layer; the sum is read, so torch.export does not follow."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.tanh, held: Any = None) -> None:
        super().__init__()
        self.one, self.two, self.between, self.held = nn.Linear(4, 6), nn.Linear(6, 3), between, held

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        return self.two(self.between(h if h.sum() > 0 else -h))  # type: ignore[no-any-return]


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def pointer(h: Tensor) -> Tensor:
    return h * (h.data_ptr() % 7)


def branch(h: Tensor) -> Tensor:
    return torch.cond(h.sum() > 0, torch.sin, torch.cos, (h,))  # type: ignore[no-any-return]


def outside(h: Tensor) -> Tensor:
    OUTSIDE.add_(h[0])
    return h + OUTSIDE


def nested(h: Tensor) -> Tensor:
    return torch.nested.nested_tensor([h[:1], h]).tanh().to_padded_tensor(0.0)


def gradient(h: Tensor) -> Tensor:
    with torch.enable_grad():
        h = h.detach().requires_grad_()
        return torch.autograd.grad(h.tanh().sum(), h)[0]


def jacobian(h: Tensor) -> Tensor:
    """Below autograd these are zeros, and no error."""
    return torch.autograd.functional.jacobian(lambda x: x.tanh().sum(), h)  # type: ignore[no-any-return,no-untyped-call]


def other_library(h: Tensor) -> Tensor:
    raise_in_tracing = isinstance(h, nn.Parameter) or type(h) is not Tensor
    if raise_in_tracing:
        raise RuntimeError("only plain tensors")
    return h


# a fragment of the sentence → network and arguments
X = (torch.randn(2, 4),)
CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "this is TorchScript (torch.jit.script or torch.jit.trace), which torch.export does not read. Give the Python"
    " module that it was made from.": lambda: (torch.jit.trace(plain(), X), X),
    "has no shape yet, since its module is lazy. Run the network once on the example inputs, then trace it.": lambda: (
        nn.Sequential(nn.LazyLinear(6)),
        X,
    ),
    "is a class: give an instance of it": lambda: (Net, X),
    "is no torch.nn.Module. Give the module, or one whose forward calls it.": lambda: (torch.tanh, X),
    "the network itself fails on these example inputs": lambda: (plain(), (torch.randn(2, 5),)),
    "On the meta device there are no values that its code could read; give it with weights": lambda: (
        Net().to("meta"),
        (X[0].to("meta"),),
    ),
    "the code takes the memory of a tensor": lambda: (Net(pointer), X),
    "which only torch.export follows, and torch.export could not capture this network": lambda: (
        Net(branch),
        X,
    ),
    "the code writes into a tensor that its modules do not hold": lambda: (Net(outside), X),
    "its code reads values of tensors, so a copy of it has to run, and it cannot be copied": lambda: (
        Net(held=threading.Lock()),
        X,
    ),
    "have no sizes that axes could be read from. Give a wrapper whose forward uses padded tensors.": lambda: (
        Net(nested),
        X,
    ),
    "its code asks torch.autograd for gradients": lambda: (Net(gradient), X),
    "of a run under the recorder is not that of the network, as where code computes with gradients or asks whether"
    " there are any.": lambda: (Net(jacobian), X),
    "Give a wrapper whose forward does without that line.": lambda: (Net(other_library), X),
}


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*", "ignore:.*nested tensors.*", "ignore:.*Lazy.*", "ignore:Lazy"
)
@pytest.mark.parametrize("sentence", CASES)
def test_the_sentence_fits_the_cause(sentence: str) -> None:
    module, args = CASES[sentence]()
    with pytest.raises(TraceError) as caught:
        capture(module, args)
    text = str(caught.value)
    assert sentence in text
    assert text.endswith(".")
    others = [s for s in CASES if s != sentence and s in text]
    assert others == []  # one cause, one advice
    assert "Control flow" not in text and "INTERNAL ASSERT" not in text


def test_the_page_lists_these_sentences_and_no_others() -> None:
    listed = re.findall(r"^- `(.+)`$", LIMITS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(CASES)


def test_a_line_of_code_is_named() -> None:
    with pytest.raises(TraceError, match=r"data_ptr, test_refusals.py:\d+"):
        capture(Net(pointer), X)


def test_a_refusal_leaves_the_tensors_of_others_alone() -> None:
    with pytest.raises(TraceError):
        capture(Net(outside), X)
    assert type(OUTSIDE) is Tensor and not OUTSIDE.any()


def test_a_network_that_returns_no_tensor_is_refused() -> None:
    class Silent(nn.Linear):
        def forward(self, x: Tensor) -> int:  # type: ignore[override]
            return len(super().forward(x))

    with pytest.raises(TraceError, match="Silent: its forward returns no tensor"):
        capture(Silent(4, 4), (torch.randn(2, 4),))
