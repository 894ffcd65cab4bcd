"""The law: a shared export, two threads or a stride change what a calibration costs, and not what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.errors import MatchError
from permgraph.ir.moments import Moments
from permgraph.matching import observers
from permgraph.matching.built_alike import alike
from permgraph.matching.observation import Runner
from permgraph.matching.observers import Observers
from permgraph.weights.encoder import open_encoder


class Network(nn.Module):
    def __init__(self, width: int = 12, slope: float = 0.1) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, width, 5, stride=2)
        self.slope = slope
        self.up, self.down = nn.Linear(width, 80), nn.Linear(80, 3)
        self.register_buffer("order", torch.arange(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.front(x).transpose(1, 2) * self.scale
        return self.down(nn.functional.leaky_relu(self.up(hidden), self.slope))


def network(seed: int, **settings: float) -> Network:
    torch.manual_seed(seed)
    return Network(**settings).eval()  # type: ignore[arg-type]


def moments(a: nn.Module, b: nn.Module, batches: int = 3, **options: int) -> Moments:
    torch.manual_seed(9)
    data = [torch.randn(2, 1, 65) for _ in range(batches)]
    plan = pg.plan(pg.infer(pg.trace(a, data[0][:1])))
    return pg.calibrate(plan, a, b, data, **options)  # type: ignore[arg-type]


def with_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads() -> Iterator[None]:
    yield from with_threads(2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    yield from with_threads(1)


def test_one_export_serves_both_and_gives_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = network(0), network(1)
    b.scale.mul_(2)  # a buffer of B's own
    exported: list[nn.Module] = []
    whole = Runner.__init__

    def counted(self: Runner, model: nn.Module, *rest: object) -> None:
        exported.append(model)
        whole(self, model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "__init__", counted)
    shared = moments(a, b)
    assert exported == [a]
    monkeypatch.setattr(observers, "alike", lambda a, b: False)
    assert moments(a, b) == shared and exported == [a, a, b]


def settings(change: Callable[[Network], object]) -> Network:
    model = network(1)
    change(model)
    return model


DIFFERENT: dict[str, Callable[[Network], object]] = {
    "a setting": lambda m: setattr(m, "slope", 0.2),
    "a setting of a layer": lambda m: setattr(m.front, "stride", (1,)),
    "a class": lambda m: setattr(m, "down", nn.Sequential(m.down)),
    "an order in integers": lambda m: m.order.copy_(m.order.flip(0)),
    "a tensor that is no buffer": lambda m: setattr(m, "slope", torch.tensor(0.1)),
    "a hook": lambda m: m.up.register_forward_hook(lambda module, args, out: out * 2),
    "code of its own": lambda m: setattr(m, "forward", lambda x: Network.forward(m, x)),
    "a tie": lambda m: setattr(m.up, "bias", nn.Parameter(m.up.bias.detach().half())),
    "a width": lambda m: setattr(m, "up", nn.Linear(12, 81)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_could_compute_something_else_gets_an_export_of_its_own(what: str) -> None:
    assert alike(network(0), network(1))
    assert not alike(network(0), settings(DIFFERENT[what]))


def same(module: nn.Module, args: object, out: Tensor) -> Tensor:
    return out


def twice(module: nn.Module, args: object, out: Tensor) -> Tensor:
    return 2 * out


def test_hooks_are_compared_as_they_come_and_not_by_their_numbers() -> None:
    a, b, other = network(0), network(1), network(2)
    for model, hooks in ((a, (same, twice)), (b, (same, twice)), (other, (twice, same))):
        for hook in hooks:
            model.up.register_forward_hook(hook)
    assert alike(a, b) and not alike(a, other)
    b.up.register_forward_hook(same, prepend=True)
    a.up.register_forward_hook(same)
    assert not alike(a, b)


def test_the_encoders_of_the_demo_share_an_export() -> None:
    a, b = (open_encoder(folder).module() for folder in demo_models())
    assert alike(a, b)


def test_a_model_with_another_setting_is_observed_as_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = network(0), network(1, slope=-1.0)
    seen = moments(a, b)
    monkeypatch.setattr(observers, "alike", lambda a, b: True)
    wrong = moments(a, b)  # B by A's slope
    assert any(not np.allclose(seen[key].product, wrong[key].product) for key in seen.probes)


def test_configurations_are_compared_by_value() -> None:
    from transformers import HubertConfig, HubertModel

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    small |= {"conv_dim": (8,), "conv_stride": (5,), "conv_kernel": (10,), "num_conv_pos_embeddings": 4}
    small |= {"num_conv_pos_embedding_groups": 2}
    a, b, other = (
        HubertModel(HubertConfig(**small, hidden_act=act)).eval() for act in ("gelu", "gelu", "relu")
    )
    assert alike(a, b) and not alike(a, other)


def observed(count: Callable[[str, Tensor, Tensor], object]) -> None:
    a, b = network(0), network(1)
    plan = pg.plan(pg.infer(pg.trace(a, (torch.randn(1, 1, 65),))))
    observers.Observers(plan, a, b).observe(torch.randn(2, 1, 65), count)


@pytest.mark.usefixtures("one_thread")
def test_b_is_counted_while_it_runs_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []
    whole = Runner.__call__

    def noted(self: Runner, *rest: object) -> object:
        seen = whole(self, *rest)  # type: ignore[arg-type]
        happened.append([len(turns) for turns in seen.values()])
        return seen

    monkeypatch.setattr(Runner, "__call__", noted)
    observed(lambda key, a, b: happened.append(key.split(".")[0]))
    assert happened == [[1, 1], "cnn", "ffn", [0, 0]]


@pytest.mark.usefixtures("one_thread")
def test_an_error_of_a_count_has_no_words_of_the_interpreter() -> None:
    def refused(*_: object) -> None:
        raise MatchError("not these")

    with pytest.raises(MatchError) as error:
        observed(refused)
    assert str(error.value) == "not these"


@pytest.mark.usefixtures("threads")
def test_side_by_side_they_see_what_they_see_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = network(0), network(1)
    both = moments(a, b)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    alone = moments(a, b)
    for key in alone.probes:
        np.testing.assert_allclose(both[key].product, alone[key].product, rtol=1e-4, atol=1e-4)
        assert both[key].n == alone[key].n


@pytest.mark.usefixtures("threads")
def test_a_fault_of_one_of_them_ends_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(observers, "results_of", fails)
    with pytest.raises(RuntimeError, match="out of order"):
        moments(network(0), network(1))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("samples", [65, 2 * observers.LONG + 3])
def test_long_clips_of_a_convolution_are_counted_one_by_one_and_not_copied(samples: int) -> None:
    a, b = network(0), network(1)
    torch.manual_seed(9)
    batch = torch.randn(3, 1, samples)
    plan = pg.plan(pg.infer(pg.trace(a, batch[:1])))
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    Observers(plan, a, b).observe(batch, lambda key, *sides: seen.setdefault(key, []).append(sides))
    front, behind = (seen[next(k for k in seen if k.startswith(word))] for word in ("cnn", "ffn"))
    long = samples > observers.LONG
    assert (len(front), len(behind)) == (3 if long else 1, 1)
    with torch.no_grad():
        wanted = [m.front(batch).transpose(1, 2).flatten(0, 1) for m in (a, b)]
    for side, frames in enumerate(wanted):
        assert all(
            pair[side].is_contiguous() != long for pair in front
        )  # units first, as the convolution left them
        torch.testing.assert_close(torch.cat([pair[side] for pair in front]), frames)


def test_a_stride_leaves_out_frames_of_the_front_end_only() -> None:
    a, b = network(0), network(1)
    every, some = moments(a, b), moments(a, b, stride=4)
    for key in every.probes:
        front = key.startswith("cnn")
        assert some[key].n == (every[key].n // 31 * 8 if front else every[key].n)
    assert some.meta["stride"] == "4" and "stride" not in every.meta
    torch.manual_seed(9)
    data = [torch.randn(2, 1, 65) for _ in range(3)]
    with torch.no_grad():
        frames = [torch.cat([m.front(x).transpose(1, 2)[:, ::4].flatten(0, 1) for x in data]) for m in (a, b)]
    want = np.corrcoef(frames[0].double().numpy(), frames[1].double().numpy(), rowvar=False)[:12, 12:]
    key = next(key for key in some.probes if key.startswith("cnn"))
    assert np.abs(some[key].correlation() - want).max() < 1e-6
