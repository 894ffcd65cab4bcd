"""Units that the graph does not show as it stands: recurrent layers, loops, branches; and those nothing shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import RECURRENT
from networks.recurrent import SEQUENCE, Layers, Recurrent
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import permgraph as pg
from permgraph.errors import MatchError
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match
from permgraph.matching.observation import Runner
from permgraph.matching.probes import choose_probes, unobserved
from permgraph.reporting.notes import notes

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


class Packed(nn.Module):
    """Sequences of unequal length: captured by running, since the code reads lengths."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(5, 6, 2, batch_first=True, bidirectional=True, **options)
        self.out = nn.Linear(2 * (options.get("proj_size") or 6), 3)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, [9, 4], batch_first=True)
        return self.out(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class ReadsValues(Recurrent):
    """Captured by running, since the code reads a value."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) < 1e6 else -x)


class Factored(nn.Module):
    """A weight that is the product of two; x @ (u @ v)ᵀ. The four units between u and v are no activation."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(7, 4)), nn.Parameter(torch.randn(4, 5))
        self.out = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(x @ (self.u @ self.v).T))


class Nested(Layers):
    """A branch inside a loop: the second and the fourth turn take the first arm."""

    def forward(self, x: Tensor) -> Tensor:
        def other(h: Tensor) -> Tensor:
            return 2 * h

        def turn(i: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, torch.cond(i % 2 > 0, self.turn, other, (h,))

        _, h = while_loop(lambda i, h: i < 4, turn, (torch.tensor(0), self.first(x).tanh()))
        return self.last(h)


class Gate(Layers):
    """The hidden layer of 7 units runs only where `open` is positive."""

    def __init__(self, opened: float = 1.0) -> None:
        super().__init__()
        self.opened = nn.Buffer(torch.tensor(opened))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        return self.last(torch.cond(self.opened > 0, self.turn, lambda h: 2 * h, (h,)))


HARD: dict[str, Callable[[], nn.Module]] = {
    "packed rnn": lambda: Packed(nn.RNN),
    "packed gru": lambda: Packed(nn.GRU),
    "packed lstm with projections": lambda: Packed(nn.LSTM, proj_size=4),
    "captured by running": lambda: ReadsValues(nn.LSTM, 3, bidirectional=True),
}


def plan_of(net: nn.Module) -> pg.Plan:
    return pg.plan(pg.infer(pg.trace(net, (torch.randn(SEQUENCE),))))


@pytest.mark.parametrize("kind", HARD)
def test_a_planted_permutation_is_recovered(kind: str) -> None:
    torch.manual_seed(0)
    net, other = HARD[kind]().eval(), HARD[kind]().eval()
    plan = plan_of(net)
    secret = pg.random_permutations(plan, 1)
    other.load_state_dict(pg.apply(plan, secret, net.state_dict()))
    moments = calibrate(plan, net, other, [torch.randn(SEQUENCE) for _ in range(8)])
    found, answer = match(plan, moments), secret.inverse(plan.spec)
    assert len(plan.groups) == {"captured by running": 6, "packed lstm with projections": 8}.get(kind, 4)
    for group in answer:
        assert np.array_equal(found[group], answer[group]), group


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_every_layer_and_direction_is_matched_by_its_own_hidden_states(kind: type[nn.RNNBase]) -> None:
    net = Recurrent(kind, 2, bidirectional=True, batch_first=True).eval()
    plan = plan_of(net)
    nodes = [probe.node.partition(":")[2] for probe in choose_probes(plan).values()]
    assert nodes == ["l0", "l0_reverse", "l1", "l1_reverse"]
    x = torch.randn(SEQUENCE)
    runner = Runner(net, (x,))
    names = [probe.node for probe in choose_probes(plan).values()]
    seen = runner((x,), names)
    first = kind(5, 6, 1, bidirectional=True, batch_first=True)
    own = {k: v for k, v in net.rnn.state_dict().items() if "_l0" in k}
    first.load_state_dict(own)
    with torch.no_grad():
        want = torch.cat([first(x)[0], net.rnn(x)[0]], -1)
    got = torch.cat([seen[name][0] for name in names], -1)
    torch.testing.assert_close(got, want)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["scan", "while_loop", "branch", "map"])
def test_nodes_of_loops_and_branches_are_seen_as_often_as_they_run(name: str) -> None:
    """What is seen in the last turn gives the result that the network computes."""
    net, (x,) = RECURRENT[name]()
    runner = Runner(net, (x,))
    ops = [n for n in runner.trace.nodes if n.op.startswith("aten.")]
    seen = runner((x,), [n.name for n in ops])
    turns = {"scan": 9, "while_loop": 3, "map": 2}.get(name, 1)
    hidden = [n.name for n in ops if "." in n.name and n.shape[-1:] == (7,)]
    assert hidden and all(len(seen[n]) == turns for n in hidden)
    with torch.no_grad():
        torch.testing.assert_close(seen[ops[-1].name][0], net(x))
        first = next(n for n in ops if n.shape[-1:] == (7,))
        tanh = next(n for n in ops if n.shape[-1:] == (7,) and n.op == "aten.tanh.default")
        for before, after in zip(seen[first.name], seen[tanh.name], strict=True):
            torch.testing.assert_close(before.tanh(), after)


def test_an_arm_inside_a_loop_is_seen_in_the_turns_that_take_it() -> None:
    torch.manual_seed(0)
    net = Nested().eval()
    x = torch.randn(SEQUENCE)
    runner = Runner(net, (x,))
    hidden = [n.name for n in runner.trace.nodes if n.op == "aten.tanh.default" and n.shape[-1] == 7]
    carried = next(n.name for n in runner.trace.nodes if n.name.endswith(".carry1"))
    seen = runner((x,), [*hidden, carried])
    taken = seen[carried][1:4:2]
    assert len(seen[carried]) == 5 and len(hidden) == 1
    for h, inner in zip(taken, seen[hidden[0]], strict=True):
        torch.testing.assert_close(inner, net.one(h).tanh())


def test_units_that_no_activation_holds_are_named_and_refused() -> None:
    net = Factored()
    plan = plan_of(net)
    (name,) = unobserved(plan.spec)
    assert f"no activation holds the units of {name}: they cannot be matched from activations." in notes(
        plan.spec
    )
    with pytest.raises(MatchError, match=rf"units of {name} cannot be matched .* \(v, u: .*-x {name}"):
        calibrate(plan, net, net, [torch.randn(SEQUENCE)])
    rest = pg.plan(plan.spec, exclude=name)
    assert match(rest, calibrate(rest, net, net, [torch.randn(SEQUENCE)])).report["groups"].keys() == {
        "ffn.0"
    }


def test_a_branch_that_one_model_never_takes_is_said() -> None:
    torch.manual_seed(0)
    one, other = Gate(1.0).eval(), Gate(-1.0).eval()
    plan = plan_of(one)
    batches = [torch.randn(SEQUENCE)]
    with pytest.raises(
        MatchError, match=r"group 'ffn.1' was never observed: cond\.\w+ ran in no batch in both"
    ):
        calibrate(plan, one, other, batches)
    rest = pg.plan(plan.spec, exclude="ffn.1")
    calibrate(rest, one, other, batches)
