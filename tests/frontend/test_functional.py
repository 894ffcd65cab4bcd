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


def residual(h: Tensor) -> Tensor:
    out = h.tanh()
    out += h
    return out.relu_() + h


def late(h: Tensor) -> Tensor:
    """The operand of what is in place is read afterwards."""
    out = h.sin()
    before = out.exp()
    out.mul_(2).add_(1)
    return out * before + out.relu_()


def beside(h: Tensor) -> Tensor:
    """What is written once is seen by a view, and written again."""
    out = h.tanh()
    view = out.add_(1).view(-1, 3)
    out.mul_(2)
    return out + view.view(2, 6)


def attention(h: Tensor, masked: bool) -> Tensor:
    x = h.view(1, 2, 2, 3).transpose(1, 2)
    mask = h[:1, :4].view(1, 1, 2, 2) if masked else None  # it has a gradient
    out = nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    return out.transpose(1, 2).reshape(2, 6)


class BatchNorm(nn.Module):
    def __init__(self, training: bool = False, track: bool = True, affine: bool = True) -> None:
        super().__init__()
        self.norm, self.training_always = (
            nn.BatchNorm1d(6, track_running_stats=track, affine=affine),
            training,
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.norm.train(self.training_always)(h)  # type: ignore[no-any-return]


STEPS: dict[str, tuple[Any, bool]] = {
    "in place": (lambda h: h.add_(1), True),
    "in place, of another type": (lambda h: h.tanh().add_(h.double()), False),
    "in place on a view": (lambda h: h[:, :3].mul_(2).add(h[:, 3:]).repeat(1, 2), False),
    "in place under a view": (lambda h: (h[:, :3], h.mul_(2))[0].repeat(1, 2), False),
    "in place under dropout": (lambda h: (nn.functional.dropout(h, 0.5, False), h.mul_(2))[0], False),
    "in place on one of several": (lambda h: h * torch.sort(h, 1)[0].relu_(), False),
    "activations in place": (
        lambda h: nn.functional.hardtanh(nn.functional.silu(h, inplace=True), inplace=True),
        True,
    ),
    "in place after batch norm": (nn.Sequential(BatchNorm(), nn.ReLU(inplace=True)), True),
    "in place beside a view of it": (beside, False),
    "viewed after it was written": (lambda h: (h.tanh().add_(1).view(-1, 3) + 1).view(2, 6), False),
    "hard swish in place": (lambda h: nn.functional.hardswish(h, inplace=True), True),
    "dropout in place": (lambda h: nn.functional.dropout(h.tanh(), 0.5, False, inplace=True), True),
    "noise in place": (lambda h: nn.functional.dropout(h.tanh(), 0.5, True, inplace=True), False),
    "in place behind dropout in place": (
        lambda h: nn.functional.dropout(h.tanh().add_(1), 0.5, False, inplace=True).mul_(2),
        False,
    ),
    "residual in place": (residual, True),
    "read before and after": (late, True),
    "attention": (lambda h: attention(h, False), True),
    "attention under a mask": (lambda h: attention(h, True), False),
    "batch norm": (BatchNorm(), True),
    "batch norm without weight": (BatchNorm(affine=False), True),
    "batch norm in training": (BatchNorm(training=True), False),
    "batch norm of the batch": (BatchNorm(track=False), False),
    "flatten": (lambda h: h[:, None].flatten(1), True),
    "flatten one": (lambda h: h.flatten(1), True),
    "flatten a copy": (lambda h: h.t().flatten(0).view(2, 6), True),
    "flatten from the end": (lambda h: h.view(2, 2, 3).flatten(-2), True),
    "flatten named": (lambda h: h.view(2, 2, 3).flatten(start_dim=1), True),
    "expand as": (lambda h: h[:, :1].expand_as(h) + h, True),
    "chunk": (lambda h: torch.cat(h.chunk(2, -1)[::-1], -1), True),
    "chunk unevenly": (lambda h: torch.cat(h.chunk(4, dim=1)[::-1], -1), True),
    "chunk rows": (lambda h: torch.cat(h.chunk(2), 0), True),
    "to another type": (lambda h: h.to(torch.float64).tanh().to(torch.float32), True),
    "to its own type, by dtype": (lambda h: h.to(torch.float32), True),
    "to a type and device": (lambda h: h.to("cpu", torch.float64).to("cpu", torch.float32), True),
    "to its own type and device": (lambda h: h.to(torch.zeros(1)) + 1, True),
    "type as": (lambda h: (h > 0).type_as(h) + h.type_as(h), True),
    "where": (lambda h: torch.where(h > 0, h, 0.5) + torch.where(h > 1, 1, h), True),
    "where of integers": (lambda h: torch.where(h > 0, (h * 3).long(), 2).float(), True),
    "where of another type": (lambda h: torch.where(h > 0, (h * 3).long(), 0.5) * h, False),
    "logic": (lambda h: (((h > 0) & (h < 1)) | ((h < -1) ^ (h > 2))).float() * h, True),
    "differences": (lambda h: h + torch.diff(h, prepend=h[:, :1] - 1), True),
    "differences of rows": (lambda h: h + torch.diff(h, dim=0), True),
    "differences of differences": (
        lambda h: h[:, 2:].repeat(1, 2)[:, :6] + h.diff(n=2).repeat(1, 2)[:, :6],
        False,
    ),
    "repeat interleave": (lambda h: h[:, :3].repeat_interleave(2, dim=-1), True),
    "repeat interleave rows": (lambda h: h.repeat_interleave(3, 0), True),
    "repeat interleave flat": (lambda h: h.repeat_interleave(2).view(4, 6), False),
    "reshape as": (lambda h: h.t().reshape_as(h) + h.view_as(h), True),
    "unflatten": (lambda h: h.unflatten(1, (2, -1)).flatten(1), True),
    "a copy as a reshape": (lambda h: h.t().reshape(2, 6), True),
    "a copy of what is expanded": (lambda h: h.expand(3, 2, 6).reshape(6, -1), True),
    "a view as a reshape": (lambda h: h.reshape(-1, 6), True),
    "contiguous": (lambda h: h.transpose(0, 1).contiguous().transpose(0, 1), True),
    "contiguous already": (lambda h: h.contiguous(), True),
    "to its own type": (lambda h: h.to(h.device, h.dtype), True),
    "dropout": (lambda h: nn.functional.dropout(h, 0.5, False), True),
    "noise": (lambda h: nn.functional.dropout(h, 0.5, True), False),
    "a view of unknown size": (lambda h: h.transpose(0, 1).reshape(1, 6, -1)[0].transpose(0, 1), True),
    "a dead branch": (lambda h: (h.sum(0), h.tanh())[1], True),
    "compound": (lambda h: torch.hstack([h[:, 3:], h[:, :3]]), False),
    "a literal": (lambda h: h * torch.tensor(3.0), False),
}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_as_torch_makes_it(step: str, both: Both) -> None:
    call, simple = STEPS[step]
    once, twice = both(Steps(call).eval(), (torch.randn(2, 4),))
    assert once.fingerprint == twice.fingerprint
    assert not once.notes and not twice.notes  # exported, not run
    assert both.skipped == simple
    if simple:
        assert once == twice


class Ends(nn.Module):
    """The last ops change nothing; a buffer that no checkpoint holds comes first, and one weight has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.arange(1.0, 5.0), persistent=False)
        self.one, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.where(x > 0, self.norm(self.one(x * self.scale)), 0)
        torch.arange(3)  # dead
        return self.two(h + torch.arange(4)).contiguous().to(torch.float32), h.reshape(-1, 4)


def test_outputs_that_change_nothing_at_their_end_are_there_and_names_are_torchs(both: Both) -> None:
    once, twice = both(Ends().eval(), (torch.randn(2, 4),))
    assert both.skipped
    assert once == twice
    assert len(once.nodes[-1].operands["outputs"]) == 2
