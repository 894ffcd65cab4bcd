"""Small networks with their groups written by hand: state dict, function, PermSpec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place, Positions

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Net:
    state: State
    function: Callable[[State], torch.Tensor]
    spec: PermSpec

    @property
    def plan(self) -> Plan:
        return Plan(self.spec, tuple(g.name for g in self.spec.groups))


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in shapes.items()}


def place(tensor: str, axis: int, layout: str, *sizes: int, side: str = "permute") -> Place:
    """A place whose units fill the axis in layout order."""
    positions = np.arange(int(np.prod(sizes))).reshape(*sizes, 1)
    return Place(tensor, axis, side, tuple(layout.split()), Positions.of(positions))


def row_place(tensor: str, layout: str, blocks: int, size: int, rows: int) -> Place:
    """Axis 1 of a grouped convolution: `size` channels per block of `rows` coordinates on axis 0."""
    positions = np.broadcast_to(np.arange(size)[:, None], (blocks, size, 1))
    at = np.arange(blocks * rows).reshape(blocks, 1, rows)
    at = np.broadcast_to(at, (blocks, size, rows))
    return Place(tensor, 1, "un-permute", tuple(layout.split()), Positions.of(positions), Positions.of(at), 0)


def spec_of(name: str, groups: list[Group], places: list[Place], state: State) -> PermSpec:
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    return PermSpec(name, f"{name}-fingerprint", tuple(groups), tuple(places), tensors=shapes).completed()


def mlp(seed: int = 0) -> Net:
    """Two linears; 24 hidden units, read as three levels: S2 ≀ S3 ≀ S4, a subgroup of S24."""
    state = random_state(
        {"fc1.weight": (24, 5), "fc1.bias": (24,), "fc2.weight": (3, 24), "fc2.bias": (3,)}, seed
    )
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def function(s: State) -> torch.Tensor:
        hidden = F.gelu(F.linear(x.to(s["fc1.weight"]), s["fc1.weight"], s["fc1.bias"]))
        return F.linear(hidden, s["fc2.weight"], s["fc2.bias"])

    groups = [
        Group("ffn.0", "ffn", 2),
        Group("ffn.0/b", "ffn/b", 3, ("ffn.0",), 2),
        Group("ffn.0/b/c", "ffn/b/c", 4, ("ffn.0", "ffn.0/b"), 6),
    ]
    layout = "ffn.0 ffn.0/b ffn.0/b/c"
    places = [
        place("fc1.weight", 0, layout, 2, 3, 4),
        place("fc1.bias", 0, layout, 2, 3, 4),
        place("fc2.weight", 1, layout, 2, 3, 4, side="un-permute"),
    ]
    return Net(state, function, spec_of("mlp", groups, places, state))


def attention(rep: int = 1, seed: int = 0) -> Net:
    """Attention of 2 heads (times `rep` queries each, grouped-query): S2 ≀ (S_rep × S4 × S3)."""
    h, d, e, model = 2, 4, 3, 5
    state = random_state(
        {
            "q.weight": (h * rep * d, model),
            "q.bias": (h * rep * d,),
            "k.weight": (h * d, model),
            "v.weight": (h * e, model),
            "v.bias": (h * e,),
            "o.weight": (model, h * rep * e),
        },
        seed,
    )
    x = torch.randn(6, model, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def function(s: State) -> torch.Tensor:
        y = x.to(s["q.weight"])
        q = F.linear(y, s["q.weight"], s["q.bias"]).view(6, h, rep, d)
        k = F.linear(y, s["k.weight"]).view(6, h, d)
        v = F.linear(y, s["v.weight"], s["v.bias"]).view(6, h, e)
        weights = torch.einsum("thrd,shd->hrts", q, k).softmax(-1)
        return F.linear(torch.einsum("hrts,she->thre", weights, v).reshape(6, -1), s["o.weight"])

    groups = [
        Group("heads.0", "heads", h),
        Group("heads.0/rep", "heads/rep", rep, ("heads.0",), h),
        Group("heads.0/qk", "heads/qk", d, ("heads.0",), h),
        Group("heads.0/v", "heads/v", e, ("heads.0",), h),
    ]
    places = [
        place("q.weight", 0, "heads.0 heads.0/rep heads.0/qk", h, rep, d),
        place("q.bias", 0, "heads.0 heads.0/rep heads.0/qk", h, rep, d),
        place("k.weight", 0, "heads.0 heads.0/qk", h, d),
        place("v.weight", 0, "heads.0 heads.0/v", h, e),
        place("v.bias", 0, "heads.0 heads.0/v", h, e),
        place("o.weight", 1, "heads.0 heads.0/rep heads.0/v", h, rep, e, side="un-permute"),
    ]
    return Net(state, function, spec_of("attention", groups, places, state))


def grouped_conv(transposed: bool = False, seed: int = 0) -> Net:
    """1×1 conv, grouped conv of 3 blocks (2 channels in, 4 out), 1×1 conv: S3 ≀ (S2 × S4)."""
    g, i, o = 3, 2, 4
    middle = (g * i, o, 3) if transposed else (g * o, i, 3)
    state = random_state(
        {
            "conv1.weight": (g * i, 2, 1),
            "conv2.weight": middle,
            "conv2.bias": (g * o,),
            "conv3.weight": (2, g * o, 1),
        },
        seed,
    )
    x = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def function(s: State) -> torch.Tensor:
        y = F.conv1d(x.to(s["conv1.weight"]), s["conv1.weight"]).relu()
        conv = F.conv_transpose1d if transposed else F.conv1d
        y = conv(y, s["conv2.weight"], s["conv2.bias"], groups=g).relu()
        return F.conv1d(y, s["conv3.weight"])

    groups = [
        Group("cnn.0", "cnn", g),
        Group("cnn.0/in", "cnn/in", i, ("cnn.0",), g),
        Group("cnn.0/out", "cnn/out", o, ("cnn.0",), g),
    ]
    ins, outs = ("cnn.0 cnn.0/in", i), ("cnn.0 cnn.0/out", o)
    rows, inner = (ins, outs) if transposed else (outs, ins)
    places = [
        place("conv1.weight", 0, ins[0], g, i),
        place("conv2.weight", 0, rows[0], g, rows[1]),
        row_place("conv2.weight", inner[0], g, inner[1], rows[1]),
        place("conv2.bias", 0, outs[0], g, o),
        place("conv3.weight", 1, outs[0], g, o, side="un-permute"),
    ]
    return Net(state, function, spec_of("grouped_conv", groups, places, state))


NETS: dict[str, Callable[[], Net]] = {
    "mlp": mlp,
    "attention": attention,
    "grouped_query": lambda: attention(rep=3),
    "grouped_conv": grouped_conv,
    "transposed_conv": lambda: grouped_conv(transposed=True),
}


def shifted(spec: PermSpec) -> Permutations:
    """Every group moved by one: no unit stays, whatever the sizes (above 1)."""
    arrays = {}
    for group in spec.groups:
        shape = spec.shape_of(group)
        arrays[group.name] = np.broadcast_to(np.roll(np.arange(group.size), -1), shape).copy()
    return Permutations(arrays)
