"""What a user hands in: one tensor, mappings, dataclasses, caches, wrappers; each is one and the same network."""

from __future__ import annotations

import dataclasses
from collections import UserDict, namedtuple
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import permgraph as pg
from permgraph.frontend.capture import capture
from permgraph.ir.trace import Trace
from permgraph.matching.observation import Runner
from permgraph.symmetry.infer import infer


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def inputs(trace: Trace) -> list[tuple[int, ...]]:
    return [n.shape for n in trace.nodes if n.op == "input"]


X = torch.randn(1, 4)


def test_a_single_tensor_is_one_argument() -> None:
    trace = pg.trace(net(), X)
    assert inputs(trace) == [(1, 4)]
    assert trace.fingerprint == pg.trace(net(), (X,)).fingerprint == pg.trace(net(), {"input": X}).fingerprint
    assert pg.verify(net(), X, pg.infer(trace)) < 1e-9


WRAPPED = {
    "compiled": (partial(torch.compile, backend="eager"), "_orig_mod."),
    "parallel": (nn.DataParallel, "module."),
    "both": (lambda m: torch.compile(nn.DataParallel(m), backend="eager"), "_orig_mod.module."),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapper_has_the_groups_of_what_is_inside_under_its_own_names(kind: str) -> None:
    wrap, prefix = WRAPPED[kind]
    bare, wrapped = net(), wrap(net())
    trace = capture(wrapped, (X,))
    assert list(trace.state) == list(wrapped.state_dict()) == [prefix + n for n in bare.state_dict()]
    one, two = infer(capture(bare, (X,))), infer(trace)
    assert [(p.axis, p.positions) for p in one.places] == [(p.axis, p.positions) for p in two.places]
    plan = pg.plan(two)
    moved = pg.apply(plan, pg.random_permutations(plan), wrapped.state_dict())
    bare.load_state_dict({n.removeprefix(prefix): t for n, t in moved.items()})
    assert torch.allclose(bare(X), net()(X), atol=1e-6)


def test_an_exported_program_is_its_module() -> None:
    program = torch.export.export(net(), (X,))
    assert (
        capture(program).fingerprint
        == capture(program.module(), (X,)).fingerprint
        == capture(net(), (X,)).fingerprint
    )


def test_frozen_weights_change_nothing() -> None:
    """torch picks other kernels for attention and for bags of embeddings when no gradient is wanted."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.out = nn.EmbeddingBag(20, 8), nn.Linear(8, 3)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.layer(self.bag(x)[None]))  # type: ignore[no-any-return]

    bag, ids = Bag().eval(), torch.randint(0, 20, (3, 4))
    trained = capture(bag, (ids,))
    bag.requires_grad_(False)
    assert capture(bag, (ids,)).fingerprint == trained.fingerprint
    assert not any(p.requires_grad for p in bag.parameters())
    assert torch.backends.mha.get_fastpath_enabled()
    assert not infer(trained).unknown_ops


@dataclasses.dataclass
class Batch:
    x: Tensor
    mode: str = "sum"


class Own:
    """A class that torch knows nothing of, with slots."""

    __slots__ = ("note", "x")

    def __init__(self, x: Tensor) -> None:
        self.x, self.note = x, "a note"


Pair = namedtuple("Pair", "x y")


class Takes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, batch: Any, *rest: Any, **more: Any) -> Any:
        x = batch if isinstance(batch, Tensor) else batch["x"] if isinstance(batch, UserDict) else batch.x
        y = self.two(self.one(x).tanh())
        return Batch(y) if isinstance(batch, (Batch, Own)) else y


VALUES: dict[str, Any] = {
    "dataclass": (Batch(X),),
    "class": (Own(X),),
    "named tuple": (Pair(X, None),),
    "device": (X, torch.device("cpu"), torch.float32, "text", None, 3, torch.strided),
    "nested": (X, {"a": [None, Batch(torch.ones(2))]}),
    "mapping": (X, UserDict(a=torch.ones(2))),
}


@pytest.mark.parametrize("kind", VALUES)
def test_an_argument_of_any_class_is_taken(kind: str) -> None:
    torch.manual_seed(0)
    module, args = Takes().eval(), VALUES[kind]
    trace = capture(module, args)
    assert (1, 4) in inputs(trace)
    assert [g.size for g in infer(trace).groups] == [6]
    assert len(trace.nodes[-1].operands["outputs"]) == 1
    assert "forward" not in vars(module)
    runner = Runner(module, args)
    probe = next(n.name for n in runner.trace.nodes if n.shape == (1, 6))
    assert torch.allclose(runner(args, {probe})[probe][0], module.one(X))


def test_a_cache_is_left_out_of_the_outputs_and_said() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    model, ids = transformers.LlamaForCausalLM(config).eval(), torch.arange(7)[None]
    trace, without = capture(model, (ids,)), capture(model, (ids,), {"use_cache": False})
    assert trace.notes == ("left out of the outputs: DynamicCache, a cache that the next call reads",)
    assert without.notes == () and len(trace.nodes[-1].operands["outputs"]) == len(
        without.nodes[-1].operands["outputs"]
    )
    assert [(g.name, g.size) for g in infer(trace).groups] == [
        (g.name, g.size) for g in infer(without).groups
    ]
    past = model(ids).past_key_values
    with_past = capture(model, (ids,), {"past_key_values": past})
    assert inputs(with_past) == [(1, 7), (1, 2, 7, 8), (1, 2, 7, 8)]
    encoding = transformers.BatchEncoding({"input_ids": ids})
    assert capture(model, encoding).fingerprint == trace.fingerprint


def test_a_sparse_weight_does_not_move() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("edges", torch.eye(6).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.sparse.mm(self.edges, self.one(x).T).T)  # type: ignore[no-any-return]

    spec = infer(capture(Graph().eval(), (torch.randn(6, 4),)))
    assert not any(p.tensor == "edges" for p in spec.places)
    assert not spec.groups  # the order of the units is that of the table


def test_the_key_that_torch_export_itself_uses_is_free() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._export_root, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self._export_root(x).relu())  # type: ignore[no-any-return]

    trace = capture(Root(), (X,))
    assert trace.unused == () and "_export_root.weight" in trace.state
    assert [g.size for g in infer(trace).groups] == [6]
