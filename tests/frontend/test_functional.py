"""A program that needs no second trace is rewritten to what that trace would make of it, names included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from zoo_models.handmade import NETS

from permgraph.frontend import capture as module
from permgraph.frontend.functional import made_functional
from permgraph.ir.trace import Trace


class Both:
    """Captures with and without the second trace, and remembers whether it was needed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.skipped = monkeypatch, False

    def __call__(self, net: nn.Module, args: Any, kwargs: Any = None) -> tuple[Trace, Trace]:
        def noted(program: ExportedProgram) -> bool:
            self.skipped = made_functional(program)
            return self.skipped

        with self.monkeypatch.context() as patch:
            patch.setattr(module, "made_functional", noted)
            once = module.capture(net, args, kwargs)
            patch.setattr(module, "made_functional", lambda program: False)
            return once, module.capture(net, args, kwargs)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    return Both(monkeypatch)


@pytest.mark.sampled(5)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:LSTM with projections")
@pytest.mark.parametrize("name", NETS)
def test_one_trace_or_two_are_the_same_network(name: str, both: Both) -> None:
    net, args, kwargs = NETS[name]()
    once, twice = both(net.eval(), args, kwargs)
    assert once.fingerprint == twice.fingerprint
    if both.skipped:
        assert once == twice


@pytest.mark.sampled(1)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_encoders_of_speech_need_one_trace(device: str, both: Both) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.HubertConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=16,
        conv_dim=[8] * 7,
        num_conv_pos_embedding_groups=4,
    )
    with torch.device(device):
        net = transformers.HubertModel(config).to(device).eval()
    once, twice = both(net, (torch.zeros(1, 4240, device=device),))
    assert both.skipped
    assert once == twice


class Steps(nn.Module):
    def __init__(self, step: Any) -> None:
        super().__init__()
        self.one, self.two, self.step = nn.Linear(4, 6), nn.Linear(6, 3), step

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.step(self.one(x)))  # type: ignore[no-any-return]


STEPS: dict[str, tuple[Any, bool]] = {
    "in place": (lambda h: h.add_(1), False),
    "in place on a view": (lambda h: h[:, :3].mul_(2).add(h[:, 3:]).repeat(1, 2), False),
    "a copy as a reshape": (lambda h: h.T.reshape(2, 6), False),
    "a copy of what is expanded": (lambda h: h.expand(3, 2, 6).reshape(6, 6), False),
    "a view as a reshape": (lambda h: h.reshape(-1, 6), True),
    "contiguous": (lambda h: h.transpose(0, 1).contiguous().transpose(0, 1), True),
    "contiguous already": (lambda h: h.contiguous(), True),
    "to its own type": (lambda h: h.to(h.device, h.dtype), False),
    "dropout": (lambda h: nn.functional.dropout(h, 0.5, False), True),
    "noise": (lambda h: nn.functional.dropout(h, 0.5, True), False),
    "a view of unknown size": (lambda h: h.transpose(0, 1).reshape(1, 6, -1)[0].transpose(0, 1), True),
    "a dead branch": (lambda h: (h.sum(0), h.tanh())[1], True),
    "compound": (lambda h: torch.hstack([h[:, 3:], h[:, :3]]), False),
    "a literal": (lambda h: h * torch.tensor(3.0), False),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_as_torch_makes_it(step: str, both: Both) -> None:
    call, simple = STEPS[step]
    once, twice = both(Steps(call).eval(), (torch.randn(2, 4),))
    assert once.fingerprint == twice.fingerprint
    assert not once.notes and not twice.notes  # exported, not run
    assert both.skipped == simple
