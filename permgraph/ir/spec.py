"""PermSpec: every permutation group of a network, and every place on its tensors that a group moves.

A *group* is a symmetric group: `size` units that may be re-ordered. A group may live *within* another: each
head has its own 64 value channels, so `heads.3/v` (size 64, within `heads.3`, size 12) stands for 12
independent permutations, held as an array of shape (12, 64).

A *place* says where units sit on one axis of one tensor. Its layout names the groups, slowest first, and its
positions give the coordinate of every unit: `q_proj.weight[0]` has the layout (heads.3, heads.3/qk) and the
positions arange(768).reshape(12, 64, 1). The last axis of positions lists what one unit owns there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.ir.files import read_json, write_json

FORMAT = 1
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Positions:
    """An integer array, kept as `offset + Σ strides·index` when it is affine, as a flat list otherwise."""

    shape: tuple[int, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None
    flat: tuple[int, ...] | None = None

    @classmethod
    def of(cls, array: NDArray[Any]) -> Positions:
        """The shortest form of `array`."""
        shape = tuple(int(n) for n in array.shape)
        offset = int(array.flat[0])
        steps = []
        for axis, n in enumerate(shape):
            second = tuple(int(axis == other) for other in range(len(shape)))
            steps.append(int(array[second]) - offset if n > 1 else 0)
        affine = cls(shape, offset, tuple(steps))
        if np.array_equal(affine.array(), array):
            return affine
        return cls(shape, flat=tuple(int(v) for v in array.ravel()))

    def array(self) -> IntArray:
        """The positions, shape `shape`."""
        if self.flat is not None:
            return np.asarray(self.flat, dtype=np.int64).reshape(self.shape)
        assert self.strides is not None
        total = np.full(self.shape, self.offset, dtype=np.int64)
        for axis, (n, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            total += (np.arange(n) * stride).reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return total

    def to_json(self) -> dict[str, Any]:
        if self.flat is not None:
            return {"shape": list(self.shape), "flat": list(self.flat)}
        return {"shape": list(self.shape), "offset": self.offset, "strides": list(self.strides or ())}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Positions:
        flat, strides = data.get("flat"), data.get("strides")
        return cls(
            tuple(data["shape"]),
            data.get("offset", 0),
            None if strides is None else tuple(strides),
            None if flat is None else tuple(flat),
        )


@dataclass(frozen=True)
class Place:
    """Units of one or more groups on one axis of one tensor.

    tensor     name in the state dict (first name of a tied tensor), or "output:0" for an output of the network
    axis       which axis the units lie on
    side       "permute" where units are produced, "un-permute" where they are consumed
    layout     names of the groups, slowest first; every group's `within` chain is part of it
    positions  coordinate on `axis` of every unit, shape (*sizes of layout, m)
    rows       only for a grouped convolution, whose input channels are ordered per block of another axis:
               coordinates on axis `rows_axis` at which these positions hold, shape (*sizes of layout, r)
    node       name of the graph node that uses the tensor there
    """

    tensor: str
    axis: int
    side: str
    layout: tuple[str, ...]
    positions: Positions
    rows: Positions | None = None
    rows_axis: int | None = None
    node: str = ""

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "tensor": self.tensor,
            "axis": self.axis,
            "side": self.side,
            "layout": list(self.layout),
            "positions": self.positions.to_json(),
            "node": self.node,
        }
        if self.rows is not None:
            row |= {"rows": self.rows.to_json(), "rows_axis": self.rows_axis}
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Place:
        rows = Positions.from_json(row["rows"]) if "rows" in row else None
        positions = Positions.from_json(row["positions"])
        layout = tuple(row["layout"])
        return cls(
            row["tensor"],
            row["axis"],
            row["side"],
            layout,
            positions,
            rows,
            row.get("rows_axis"),
            row["node"],
        )


@dataclass(frozen=True)
class Probe:
    """Where a group's units can be observed while the network runs.

    node       graph node whose result carries the units
    when       "leaving" (just produced), "normed" (after a norm) or "entering" (about to be consumed)
    dims       dims of that result on which the units lie; all other dims are samples
    layout, positions   as in a Place, positions counted on the flattened `dims`
    module     module that consumes (entering) or produced (leaving) the activation
    """

    node: str
    when: str
    dims: tuple[int, ...]
    layout: tuple[str, ...]
    positions: Positions
    module: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "when": self.when,
            "dims": list(self.dims),
            "layout": list(self.layout),
            "positions": self.positions.to_json(),
            "module": self.module,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Probe:
        positions = Positions.from_json(row["positions"])
        return cls(
            row["node"], row["when"], tuple(row["dims"]), tuple(row["layout"]), positions, row["module"]
        )


@dataclass(frozen=True)
class Group:
    """A symmetric group S_size acting on units, once per slot of the groups it lives within.

    name     role and running index: "cnn.0", "heads.3", "heads.3/v"
    role     "cnn", "heads", "heads/v", "heads/qk", "ffn", "residual", "embed", …
    size     number of units
    within   name of the (innermost) group whose every unit holds a copy of this one, or None
    copies   number of independent copies: product of the sizes of all ancestors
    module   path of the module that produces the units
    places   where its units lie; a place shared with an ancestor or a product appears in each
    probes   where its units can be observed
    under    all groups it lives within, outermost first, where `within` alone does not tell: units that lie
             at the crossing of two groups (a channel shuffle between grouped convolutions)
    """

    name: str
    role: str
    size: int
    within: str | None = None
    copies: int = 1
    module: str = ""
    places: tuple[Place, ...] = field(default=(), repr=False)
    probes: tuple[Probe, ...] = field(default=(), repr=False)
    under: tuple[str, ...] = field(default=(), repr=False)

    @property
    def log10_order(self) -> float:
        """log10 of the number of permutations: copies · log10(size!)."""
        return self.copies * math.lgamma(self.size + 1) / math.log(10)


@dataclass(frozen=True)
class Pin:
    """Coordinates that may not move: how many on which axis of which tensor, and why."""

    tensor: str
    axis: int
    count: int
    reason: str  # "output", "ordered axis", "input", "op without a rule: aten.sort.default", …
    node: str = ""


@dataclass(frozen=True)
class UnknownOp:
    """An op without a rule, or called in a form that its rule does not cover. Everything it touched is pinned.

    row      a rule to start from, as a line of Python
    reason   what the rule does not cover; "" where there is no rule
    """

    op: str
    node: str
    module: str = ""
    source: str = ""
    row: str = ""
    reason: str = ""


@dataclass(frozen=True)
class PermSpec:
    """All groups of a network.

    model, fingerprint   of the trace it was inferred from
    groups               in graph order, every group after the one it lives within
    places               in graph order
    pinned               what may not move, and why
    unknown_ops          ops without a rule
    unused               state tensors that the network never reads
    tensors              name → shape of every state tensor
    aliases              first name → further names, of tied tensors
    frozen               points whose freedom could not be read as nested symmetric groups (held in place)
    """

    model: str
    fingerprint: str
    groups: tuple[Group, ...]
    places: tuple[Place, ...]
    pinned: tuple[Pin, ...] = ()
    unknown_ops: tuple[UnknownOp, ...] = ()
    unused: tuple[str, ...] = ()
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    frozen: int = 0
    free_output: bool = False

    @property
    def log10_order(self) -> float:
        """log10 of the order of the whole group: the sum over the elementary groups."""
        return sum(group.log10_order for group in self.groups)

    @cached_property
    def by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    def to_json(self) -> dict[str, Any]:
        place_index = {place: i for i, place in enumerate(self.places)}
        groups = [_group_to_json(g, place_index) for g in self.groups]
        return {
            "permgraph": "spec",
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "free_output": self.free_output,
            "log10_order": round(self.log10_order, 6),
            "groups": groups,
            "places": [p.to_json() for p in self.places],
            "pinned": [vars(p) for p in self.pinned],
            "unknown_ops": [vars(u) for u in self.unknown_ops],
            "unused": list(self.unused),
            "tensors": {k: list(v) for k, v in self.tensors.items()},
            "aliases": {k: list(v) for k, v in self.aliases.items()},
            "frozen": self.frozen,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PermSpec:
        places = tuple(Place.from_json(p) for p in data["places"])
        return cls(
            model=data["model"],
            fingerprint=data["fingerprint"],
            groups=tuple(_group_from_json(g, places) for g in data["groups"]),
            places=places,
            pinned=tuple(Pin(**p) for p in data["pinned"]),
            unknown_ops=tuple(UnknownOp(**u) for u in data["unknown_ops"]),
            unused=tuple(data["unused"]),
            tensors={k: tuple(v) for k, v in data["tensors"].items()},
            aliases={k: tuple(v) for k, v in data["aliases"].items()},
            frozen=data["frozen"],
            free_output=data["free_output"],
        )

    def save(self, path: str | Path) -> None:
        write_json(self.to_json(), path)

    @classmethod
    def load(cls, path: str | Path) -> PermSpec:
        return cls.from_json(read_json(path, "spec", FORMAT))


def _group_to_json(group: Group, place_index: dict[Place, int]) -> dict[str, Any]:
    return {
        "name": group.name,
        "role": group.role,
        "size": group.size,
        "within": group.within,
        "under": list(group.under),
        "copies": group.copies,
        "module": group.module,
        "places": [place_index[p] for p in group.places],
        "probes": [p.to_json() for p in group.probes],
    }


def _group_from_json(row: dict[str, Any], places: tuple[Place, ...]) -> Group:
    group = Group(row["name"], row["role"], row["size"], row["within"], row["copies"], row["module"])
    probes = tuple(Probe.from_json(p) for p in row["probes"])
    mine = tuple(places[i] for i in row["places"])
    return replace(group, places=mine, probes=probes, under=tuple(row["under"]))
