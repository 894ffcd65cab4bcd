"""Networks whose code reads values of tensors are run under a recorder; what it read is in order, and the law holds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from permgraph.axes.rules import RULES, Call, Results
from permgraph.axes.rules.rule import FunctionRule
from permgraph.errors import TraceError
from permgraph.frontend.capture import capture, captured
from permgraph.frontend.modules import for_capture
from permgraph.frontend.recorder import Recorder
from permgraph.frontend.running import record
from permgraph.frontend.state import state_names
from permgraph.ir.codec import decode, encode
from permgraph.ir.trace import Trace
from permgraph.matching.observation import Runner
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.one(x).tanh()
        return h, self.two(h).tanh()


class Numpy(Layers):
    """A result comes back from numpy: what numpy saw is pinned, the rest is free."""

    def forward(self, x: Tensor) -> Tensor:
        h, g = self.hidden(x)
        weight = torch.from_numpy(np.cumsum(h.numpy(force=True), -1)[..., 3:4])
        return self.three(g * weight)  # type: ignore[no-any-return]


class Lists(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.hidden(x)
        return self.three(g * max(h.tolist()[0][:2]))  # type: ignore[no-any-return]


class Writes(Layers):
    """Values are written into a view, and the sum decides."""

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.hidden(x)
        h[0] += 1
        h.relu_()
        return self.three(self.two(h if h.sum() > 0 else -h).tanh())  # type: ignore[no-any-return]


class Keeps(Layers):
    """It keeps tensors in its attributes, and changes one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(6)
        self.last: Tensor = torch.zeros(())
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[assignment]
        self.last = self.one(x).tanh() * self.scale
        self.scale[0] = 1
        if self.last.sum() > 100:
            return self.last
        return self.three(self.two(self.last).tanh())  # type: ignore[no-any-return]


# sizes of the groups


def _forgets(call: Call) -> Results:
    call.only_shapes()
    return call.pinned("")


FORGETS = FunctionRule.of(_forgets)
NETS: dict[type[nn.Module], list[int]] = {Numpy: [5], Lists: [5], Writes: [5, 6], Keeps: [5, 6]}


def double(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return net.double().eval()


def sizes(trace: Trace) -> list[int]:
    return sorted(g.size for g in infer(trace).groups)


def run(net: nn.Module, args: tuple[Any, ...]) -> Trace:
    """The trace of a run, also where torch.export would do."""
    from permgraph.frontend import capture as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "program_of", fails)
        return module.capture(net, args)


def fails(*_: Any) -> None:
    raise RuntimeError("not exported")


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_what_python_reads_is_in_order_and_the_rest_is_free(kind: type[nn.Module]) -> None:
    net, x = double(kind()), (torch.randn(2, 4).double(),)
    trace = capture(net, x)
    assert not infer(trace).unknown_ops
    assert sizes(trace) == NETS[kind]
    assert max(verify(net, x, infer(trace), seed=seed) for seed in range(4)) < 1e-12


@pytest.mark.parametrize("kind", [Numpy, Lists])
def test_a_recorder_that_forgets_what_was_read_is_caught(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = double(kind()), (torch.randn(2, 4).double(),)
    trace = run(net, x)
    assert max(verify(net, x, infer(trace), seed=seed) for seed in range(4)) < 1e-12
    monkeypatch.setitem(RULES, "permgraph.read", FORGETS)
    assert max(verify(net, x, infer(trace), seed=seed) for seed in range(4)) > 1e-3


class Ends(Layers):
    """The output is a view of a tensor that was written into after all else."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.end, self.cell = end, nn.GRUCell(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self, self.hidden(x)[1])  # type: ignore[no-any-return]


ENDS: dict[str, Any] = {
    "a view": lambda net, g: net.three(g).relu_().view(2, 3, 1),
    "a part": lambda net, g: net.three(g).add_(1)[:, 1:],
    "written through a view": lambda net, g: (h := net.three(g), h[:, :1].mul_(2), h.T)[2],
    "a cell": lambda net, g: net.cell(g).view(1, 2, 3),
    "twice": lambda net, g: (h := net.three(g), v := h.view(6), v.add_(1), h.relu_(), v.view(3, 2))[4],
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("end", ENDS)
def test_an_output_that_was_written_into_is_what_the_network_computes(end: str) -> None:
    net, x = double(Ends(ENDS[end])), (torch.randn(2, 4).double(),)
    ran, exported = run(net, x), capture(net, x)
    assert ran.notes and not exported.notes
    assert "constant" not in {node.op for node in ran.nodes}
    assert sizes(ran) == sizes(exported) and {5, 6} <= set(sizes(ran)) and ran.unused == exported.unused
    assert verify(net, x, infer(ran)) < 1e-12


class Number(Layers):
    """One value is read as a number, and scales what follows."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        h, g = self.hidden(x)
        return self.three(g * self.read(h))  # type: ignore[no-any-return]


READS: dict[
    str, tuple[Any, list[int]]
] = {  # how, and the sizes of the groups: 6 where its order does not matter
    "item": (lambda h: h[0, 3].item(), [5, 5]),
    "item of a flat view": (lambda h: h.view(-1)[3].item(), [5, 5]),
    "float": (lambda h: float(h[0, 3:4]), [5, 5]),
    "a list": (lambda h: h[0].tolist()[3], [5, 5]),
    "a list of what was written": (lambda h: h.relu_().view(-1).tolist()[3], [5, 5]),
    "the place of the largest": (lambda h: int(h[0].argmax()) + 1, [5]),
    "a sum": (lambda h: h.sum().item(), [5, 6]),
    "the largest": (lambda h: h.amax().item(), [5, 6]),
    "a comparison": (lambda h: 1.0 + float((h[0, 3] > h[0, 4]).item()), [4, 5]),
}


@pytest.mark.sampled(9)
@pytest.mark.parametrize("way", [capture, run])
@pytest.mark.parametrize("read", READS)
def test_a_value_that_is_read_as_a_number_is_in_order(read: str, way: Any) -> None:
    how, wanted = READS[read]
    net, x = double(Number(how)), (torch.randn(2, 4).double(),)
    spec = infer(way(net, x))
    assert max(verify(net, x, spec, seed=seed) for seed in range(4)) < 1e-12
    got = sorted(g.size for g in spec.groups)
    assert got == wanted or (way is run and got in (wanted, [5]))  # a run holds all of a list that it sees


SIZES: dict[str, Any] = {  # what code asks of the rows that channel 3 selects
    "len": len,
    "shape": lambda rows: rows.shape[0],
    "size": lambda rows: rows.size(0),
    "numel": lambda rows: rows.numel(),
    "numel as a function": torch.numel,
    "a loop": lambda rows: sum(1 for _ in rows),
    "rows apart": lambda rows: len(rows.unbind()),
    "later": lambda rows: len((rows * 2).tanh()),
}


FEW = ("len", "shape", "a loop", "later")


@pytest.mark.parametrize("size", [s if s in FEW else pytest.param(s, marks=pytest.mark.slow) for s in SIZES])
def test_a_size_that_values_decide_holds_what_decides_it(size: str) -> None:
    class Sized(Layers):
        def forward(self, x: Tensor) -> Tensor:
            h, g = self.hidden(x)
            return self.three(g) * (1 + SIZES[size](h[h[:, 3] > 0]))  # type: ignore[no-any-return]

    net, x = double(Sized()), (torch.randn(9, 4).double(),)
    spec = infer(run(net, x))
    assert sizes(run(net, x)) in ([5, 5], [5])
    assert max(verify(net, x, spec, seed=seed) for seed in range(6)) < 1e-12


def test_sizes_that_the_recorder_forgets_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "look", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_size_that_values_decide_holds_what_decides_it("len")


def test_a_tensor_that_was_not_recorded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "record", lambda *_: None)
    with pytest.raises(TraceError, match="was not recorded"):
        run(double(Ends(ENDS["a view"])), (torch.randn(2, 4).double(),))


def test_running_leaves_the_module_as_it_was() -> None:
    net, x = Keeps().eval(), (torch.randn(2, 4),)
    capture(net, x)
    assert type(net.last) is Tensor and net.last.shape == ()
    assert net.calls == 0 and [type(b) for b in net.buffers()] == [Tensor]
    assert all(type(p) is nn.Parameter for p in net.parameters())
    net(*x)


def test_the_report_says_that_it_ran_and_where_code_read() -> None:
    trace = capture(Numpy().eval(), (torch.randn(2, 4),))
    assert trace.notes[0].startswith("captured by running it on the example inputs")
    assert "test_running.py:" in trace.notes[0]
    assert decode(Trace, encode(trace)) == trace
    assert infer(trace).notes == trace.notes


def test_a_network_of_many_ops_is_the_same_exported_and_run() -> None:
    """Same ops, same groups, same fingerprint of the groups: the two ways to capture agree."""

    class Many(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = nn.LayerNorm(6), nn.Dropout(0.1)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.conv, self.lstm = nn.Conv1d(6, 6, 3, padding=1), nn.LSTM(6, 6, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.norm(self.one(x)))
            h = h + self.attention(h, h, h)[0]
            h = self.conv(h.transpose(1, 2)).transpose(1, 2).contiguous()
            h = self.lstm(h)[0]
            return self.three(self.two(h.reshape(-1, 6)))  # type: ignore[no-any-return]

    net, x = double(Many()), (torch.randn(2, 7, 4).double(),)
    exported, ran = capture(net, x), run(net, x)
    one, two = infer(exported), infer(ran)
    assert [(g.name, g.size, g.copies, len(g.places)) for g in one.groups] == [
        (g.name, g.size, g.copies, len(g.places)) for g in two.groups
    ]
    assert one.log10_order == two.log10_order > 5
    assert {n.op for n in exported.nodes} == {n.op for n in ran.nodes}


class Packed(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], both_ways: bool, batch_first: bool) -> None:
        super().__init__()
        self.up, self.batch_first = nn.Linear(4, 6), batch_first
        self.cell = cell(6, 5, 2, batch_first=batch_first, bidirectional=both_ways)
        self.down = nn.Linear(10 if both_ways else 5, 3)

    def forward(self, x: Tensor, lengths: Any) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(self.up(x), lengths, batch_first=self.batch_first, enforce_sorted=False)
        out, last = self.cell(packed)
        padded, _ = pad_packed_sequence(out, batch_first=self.batch_first, padding_value=2.0, total_length=8)
        return self.down(padded), (last[0] if isinstance(last, tuple) else last).sum(-1)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("lengths", [[7, 3, 5], torch.tensor([7, 3, 5])], ids=["list", "tensor"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda cell: cell.__name__)
@pytest.mark.parametrize(("both_ways", "batch_first"), [(False, True), (True, False)])
def test_packed_sequences_have_the_groups_of_padded_ones(
    cell: type[nn.RNNBase], both_ways: bool, batch_first: bool, lengths: Any
) -> None:
    net = double(Packed(cell, both_ways, batch_first))
    x = torch.randn(*((3, 7) if batch_first else (7, 3)), 4).double()
    spec = infer(capture(net, (x, lengths)))
    assert not spec.unknown_ops
    assert sorted(g.size for g in spec.groups) == [5] * (4 if both_ways else 2) + [6]
    assert max(verify(net, (x, lengths), spec, seed=seed) for seed in range(2)) < 1e-12


class Experts(nn.Module):
    """Only experts that get a row run."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        chosen, out = self.gate(h).argmax(-1), torch.zeros_like(h)
        for expert in chosen.unique().tolist():
            rows = (chosen == expert).nonzero()[:, 0]
            out[rows] = out[rows] + self.experts[expert](h[rows])
        return self.down(out)  # type: ignore[no-any-return]


def test_experts_without_a_token_hold_what_they_share() -> None:
    """A plan from two rows keeps the function on a hundred rows, which reach the other experts."""
    net = double(Experts())
    few, many = (torch.randn(2, 4).double(),), (torch.randn(100, 4).double(),)
    trace = capture(net, few)
    assert any("the example does not reach experts." in note for note in trace.notes)
    assert max(verify(net, many, infer(trace), seed=seed) for seed in range(3)) < 1e-12
    whole = capture(net, many)
    assert sizes(whole) == [6, 6, 8, 8, 8]
    assert max(verify(net, many, infer(whole), seed=seed) for seed in range(3)) < 1e-12


def test_experts_without_a_token_are_missed_by_a_trace_that_forgets_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = double(Experts())
    monkeypatch.setitem(RULES, "permgraph.unreached", FORGETS)
    spec = infer(capture(net, (torch.randn(1, 4).double(),)))
    assert verify(net, (torch.randn(100, 4).double(),), spec) > 1e-3


def test_a_number_read_later_makes_no_constant() -> None:
    """A table made of what was read is equal everywhere for this input only: no units may move over it."""

    class Table(Layers):
        def forward(self, x: Tensor) -> Tensor:
            _, g = self.hidden(x)
            table = torch.tensor([float(v > 2) for v in x[0, :1].tolist() * 5])
            return self.three(g + table)  # type: ignore[no-any-return]

    net = double(Table())
    trace = capture(net, (torch.zeros(2, 4).double(),))
    spec = infer(trace)
    assert sizes(trace) == [6]
    assert verify(net, (10 * torch.rand(2, 4).double(),), spec) < 1e-12


def test_memory_that_cannot_be_seen_is_refused() -> None:
    class Pointer(Layers):
        def forward(self, x: Tensor) -> Tensor:
            h, g = self.hidden(x)
            return self.three(g * (h.data_ptr() % 7 + float(h.sum())))  # type: ignore[no-any-return]

    with pytest.raises(TraceError, match=r"takes the memory of a tensor \(data_ptr, test_running.py:\d+\)"):
        run(Pointer().eval(), (torch.randn(2, 4),))


def test_calibration_sees_the_activations_of_a_recorded_network() -> None:
    net, x = Writes().eval(), torch.randn(2, 4)
    runner = Runner(net, (x,))
    assert captured(net, (x,)).program is None
    probe = next(n.name for n in runner.trace.nodes if n.op == "aten.linear.default" and n.shape == (2, 5))
    other = torch.randn(2, 4)
    with torch.no_grad():
        h = net.one(other).tanh()
        h[0] += 1
        expected = net.two(h.relu())
    assert torch.allclose(runner((other,), {probe})[probe][0], expected)


def test_every_hand_out_is_recorded() -> None:
    """item, bool, int, float, list and numpy: each leaves a node that reads."""
    asks = {
        "item": lambda t: t.sum().item(),
        "bool": lambda t: bool(t.sum() > 0),
        "float": lambda t: float(t.sum()),
        "list": lambda t: t.tolist(),
        "numpy": lambda t: t.numpy(),
        "array": lambda t: np.asarray(t),
        "equal": lambda t: torch.equal(t, t),
        "text": lambda t: str(t),
    }
    for ask in asks.values():

        class Asks(Layers):
            def forward(self, x: Tensor, ask: Any = ask) -> Tensor:
                h, g = self.hidden(x)
                ask(h.detach())
                return self.three(g)  # type: ignore[no-any-return]

        net = Asks().eval()
        with for_capture(net), warnings.catch_warnings():
            recorder = record(net, ((torch.randn(2, 4),), {}), state_names(net))
        assert recorder.reads


def test_a_branch_not_taken_is_told_and_holds_nothing_on_the_path_that_was() -> None:
    class Branch(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            _, g = self.hidden(x)
            return self.three(g) if bool((x >= 0).all()) else self.other(g)  # type: ignore[no-any-return]

    net, x = double(Branch()), (torch.rand(2, 4).double(),)
    trace = capture(net, x)
    assert any(
        "does not reach other.weight, other.bias: a plan keeps the function where" in n for n in trace.notes
    )
    assert sizes(trace) == [5, 6]
    assert verify(net, x, infer(trace)) < 1e-12


def test_a_network_that_draws_numbers_without_torch_is_no_disagreement() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            return h * float(np.random.default_rng().uniform(1, 2)) if h.sum() > 0 else -h

    module = Noisy(4, 4)
    nn.init.constant_(module.bias, 10.0)
    assert capture(module, (torch.randn(2, 4),)).nodes


def test_an_operation_that_the_recorder_loses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reads(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            return h.tanh() if h.sum() > 0 else h.sin()

    module, inputs = Reads(4, 4), (torch.randn(2, 4),)
    assert capture(module, inputs).nodes
    run = Recorder.__torch_dispatch__

    def lossy(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        lost = func in (torch.ops.aten.tanh.default, torch.ops.aten.sin.default)
        return args[0] if lost else run(self, func, types, args, kwargs)

    monkeypatch.setattr(Recorder, "__torch_dispatch__", lossy)
    with pytest.raises(TraceError, match="output 0 of a run under the recorder is not that of the network"):
        capture(module, inputs)


class Written(Layers):
    """It writes into what a view was taken of, and the view goes into an op that is recorded whole."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        if x.sum() > 1e6:
            return h  # type: ignore[no-any-return]
        rows = h.view(1, *h.shape)
        h /= 2.0
        return self.three(self.two(torch.einsum("abc,abc->bc", rows, rows)).tanh())  # type: ignore[no-any-return]


def test_a_view_of_what_was_written_into_is_no_constant() -> None:
    trace = capture(Written().eval(), (torch.randn(2, 4),))
    assert not any(node.op == "constant" for node in trace.nodes)
    assert {tensor for tensor in trace.unused if tensor.startswith("one")} == set()


def test_what_was_computed_and_not_recorded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(self: Recorder, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, FunctionalTensor):
            return tensor
        torch._functionalize_sync(tensor.elem)
        return torch._from_functional_tensor(tensor.elem)

    monkeypatch.setattr(Recorder, "current", stale)
    with pytest.raises(TraceError, match=r"what was computed at test_running.py:\d+ was not recorded"):
        capture(Written().eval(), (torch.randn(2, 4),))
