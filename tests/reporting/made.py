"""A speech encoder like HuBERT as a hand-made Trace and PermSpec: what capture and inference hand over."""

from __future__ import annotations

import numpy as np

from permgraph.frontend.schema import node_of
from permgraph.ir.spec import Group, PermSpec, Pin, Place, Positions, Probe, UnknownOp
from permgraph.ir.trace import Node, Ref, StateTensor, TensorMeta, Trace

WIDTH, HEADS, FFN, CHANNELS = 24, 4, 48, 16


class Builder:
    """Writes nodes and state one after another."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.state: dict[str, StateTensor] = {}

    def op(
        self, name: str, op: str, args: tuple, shape: tuple[int, ...], module: str = "", kind: str = ""
    ) -> str:
        pointwise = op.split(".")[1] in ("gelu", "add", "clone", "relu") if "." in op else False
        meta = (TensorMeta(shape, "float32"),)
        args = tuple(Ref(a) if isinstance(a, str) else a for a in args) if op != "state" else args
        rest = {"module": module, "module_type": kind, "source": "model.py:1", "pointwise": pointwise}
        self.nodes.append(node_of(name, op, (args,) if op == "output" else args, results=meta, **rest))
        return name

    def tensor(self, name: str, shape: tuple[int, ...]) -> str:
        self.state[name] = StateTensor(name, shape, "float32", "parameter")
        return self.op(f"p_{name}", "state", (name,), shape)

    def linear(self, x: str, module: str, o: int, i: int) -> str:
        w, b = self.tensor(f"{module}.weight", (o, i)), self.tensor(f"{module}.bias", (o,))
        return self.op(module, "aten.linear.default", (x, w, b), (1, 9, o), module, "Linear")

    def norm(self, x: str, module: str, c: int) -> str:
        w, b = self.tensor(f"{module}.weight", (c,)), self.tensor(f"{module}.bias", (c,))
        return self.op(module, "aten.layer_norm.default", (x, (c,), w, b), (1, 9, c), module, "LayerNorm")

    def trace(self, model: str) -> Trace:
        unused = ("masked_spec_embed",)
        self.state[unused[0]] = StateTensor(unused[0], (WIDTH,), "float32", "parameter")
        return Trace(model, tuple(self.nodes), self.state, unused)


def trace(layers: int = 3, prefix: str = "encoder.layers", model: str = "made") -> Trace:
    """Two convolutions, a projection, `layers` post-norm transformer layers."""
    b = Builder()
    x = b.op("audio", "input", (), (1, 1, 99))
    for i, (c, k) in enumerate([(1, 10), (CHANNELS, 3), (CHANNELS, 3)]):
        w = b.tensor(f"conv.{i}.weight", (CHANNELS, c, k))
        x = b.op(
            f"conv.{i}", "aten.conv1d.default", (x, w, None, (2,)), (1, CHANNELS, 9), f"conv.{i}", "Conv1d"
        )
        x = b.op(f"gelu.{i}", "aten.gelu.default", (x,), (1, CHANNELS, 9), f"act.{i}", "GELU")
    x = b.op("transpose", "aten.transpose.int", (x, 1, 2), (1, 9, CHANNELS))
    x = b.linear(x, "projection", WIDTH, CHANNELS)
    for i in range(layers):
        x = _layer(b, x, f"{prefix}.{i}")
    b.op("output", "output", (x,), ())
    return b.trace(model)


def _layer(b: Builder, x: str, m: str) -> str:
    inside = WIDTH // HEADS
    views = []
    for name in "qkv":
        y = b.linear(x, f"{m}.attention.{name}_proj", WIDTH, WIDTH)
        views.append(
            b.op(f"{y}.view", "aten.view.default", (y, (1, 9, HEADS, inside)), (1, HEADS, 9, inside))
        )
    name, kind = f"{m}.attention", "Attention"
    op = "aten.scaled_dot_product_attention.default"
    y = b.op(f"{m}.sdpa", op, tuple(views), (1, HEADS, 9, inside), name, kind)
    y = b.op(f"{m}.join", "aten.view.default", (y, (1, 9, WIDTH)), (1, 9, WIDTH), name, kind)
    y = b.linear(y, f"{m}.attention.out_proj", WIDTH, WIDTH)
    x = b.norm(b.op(f"{m}.add", "aten.add.Tensor", (x, y), (1, 9, WIDTH), m, "Layer"), f"{m}.norm", WIDTH)
    y = b.linear(x, f"{m}.ffn.up", FFN, WIDTH)
    y = b.op(f"{m}.gelu", "aten.gelu.default", (y,), (1, 9, FFN), f"{m}.ffn.act", "GELU")
    y = b.linear(y, f"{m}.ffn.down", WIDTH, FFN)
    y = b.op(f"{m}.add2", "aten.add.Tensor", (x, y), (1, 9, WIDTH), m, "Layer")
    return b.norm(y, f"{m}.last_norm", WIDTH)


def spec(trace: Trace, layers: int = 3, prefix: str = "encoder.layers", unknown: bool = False) -> PermSpec:
    """The groups of `trace(layers, prefix)`; the residual stream is pinned by the output."""
    groups: list[Group] = []
    for i in range(3):
        after = (f"conv.{i + 1}.weight", 1) if i < 2 else ("projection.weight", 1)
        places = [_place(f"conv.{i}.weight", 0, "permute", (f"cnn.{i}",), (CHANNELS,), f"conv.{i}")]
        places.append(
            _place(*after, "un-permute", (f"cnn.{i}",), (CHANNELS,), after[0].removesuffix(".weight"))
        )
        groups.append(Group(f"cnn.{i}", "cnn", CHANNELS, (), 1, f"conv.{i}", tuple(places)))
    for i in range(layers):
        groups += _attention(f"{prefix}.{i}.attention", i)
        m = f"{prefix}.{i}.ffn"
        name, size = (f"ffn.{i}",), (FFN,)
        places = [_place(f"{m}.up.{t}", 0, "permute", name, size, f"{m}.up") for t in ("weight", "bias")]
        places.append(_place(f"{m}.down.weight", 1, "un-permute", name, size, f"{m}.down"))
        probe = Probe(f"{prefix}.{i}.gelu", "entering", (2,), name, places[0].positions, f"{m}.down")
        groups.append(Group(name[0], "ffn", FFN, (), 1, f"{m}.up", tuple(places), (probe,)))
    order = {n.name: i for i, n in enumerate(trace.nodes)}
    found = dict.fromkeys(p for g in groups for p in g.places)
    pins = [
        Pin(f"{prefix}.{i}.{t}", axis, WIDTH, "output", f"{prefix}.{i}.{t}".rpartition(".")[0])
        for i in range(layers)
        for t, axis in [("ffn.down.weight", 0), ("ffn.up.weight", 1), ("last_norm.weight", 0)]
    ]
    ops = (UnknownOp("aten.sort.default", "x", "head", "model.py:9"),) if unknown else ()
    return PermSpec(
        trace.model,
        trace.fingerprint,
        tuple(groups),
        tuple(sorted(found, key=lambda p: order[p.node])),
        (*pins, Pin("conv.1.weight", 2, 3, "ordered axis", "conv.1")),
        ops,
        trace.unused,
        {t.name: t.shape for t in trace.state.values()},
    )


def _attention(m: str, i: int) -> list[Group]:
    inside = WIDTH // HEADS
    heads, qk, v = f"heads.{i}", f"heads.{i}/qk", f"heads.{i}/v"
    sizes = (HEADS, inside)
    keys = [
        _place(f"{m}.{n}_proj.{t}", 0, "permute", (heads, qk), sizes, f"{m}.{n}_proj")
        for n in "qk"
        for t in ("weight", "bias")
    ]
    values = [
        _place(f"{m}.v_proj.{t}", 0, "permute", (heads, v), sizes, f"{m}.v_proj") for t in ("weight", "bias")
    ]
    values.append(_place(f"{m}.out_proj.weight", 1, "un-permute", (heads, v), sizes, f"{m}.out_proj"))
    return [
        Group(heads, "heads", HEADS, (), 1, m, (*keys, *values)),
        Group(qk, "heads/qk", inside, (heads,), HEADS, m, tuple(keys)),
        Group(v, "heads/v", inside, (heads,), HEADS, m, tuple(values)),
    ]


def _place(
    tensor: str, axis: int, side: str, layout: tuple[str, ...], sizes: tuple[int, ...], node: str
) -> Place:
    positions = np.arange(int(np.prod(sizes))).reshape(*sizes, 1)
    return Place(tensor, axis, side, layout, Positions.of(positions), node=node)
