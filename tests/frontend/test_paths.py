"""Control flow that depends on data: the path of the example is traced, and what decided it is held in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from permgraph.errors import TraceError
from permgraph.frontend.capture import capture
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


class Decides(nn.Module):
    def __init__(self, decide: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.decide = nn.Linear(4, 6), nn.Linear(6, 3), decide

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        return self.last(h if self.decide(h) else -2 * h)  # type: ignore[no-any-return]


# what is asked of the units, and the sizes of the groups that may move all the same
QUESTIONS: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "the sum": (lambda h: h.sum() > 0, [6]),
    "the fourth unit": (lambda h: h[0, 3] > 0, [5]),
    "the first three": (lambda h: (h[:, :3] > 0.3).any(), [3, 3]),
    "which is largest": (lambda h: h[0].argmax() == 2, []),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_decides_a_path_holds_units_in_order(question: str) -> None:
    decide, sizes = QUESTIONS[question]
    torch.manual_seed(0)
    net, x = Decides(decide).double().eval(), (torch.randn(2, 4).double(),)
    found = infer(capture(net, x))
    assert [g.size for g in found.groups] == sizes
    assert max(verify(net, x, found, seed=seed) for seed in range(5)) < 1e-12


def test_without_weights_the_line_of_code_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    net = Decides(lambda h: h.sum() > 0).to("meta")
    with pytest.raises(TraceError, match=r"test_paths.py:.*data-dependent"):
        capture(net, (torch.randn(2, 4, device="meta"),))
    assert capfd.readouterr().err == ""
