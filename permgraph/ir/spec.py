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
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from permgraph.errors import SelectionError, UsageError, nearest
from permgraph.ir.check_spec import check_spec
from permgraph.ir.codec import NOT_IN_FILE
from permgraph.ir.files import Document
from permgraph.ir.joined import Joined
from permgraph.ir.names import canonical
from permgraph.ir.notebook import html_table, short
from permgraph.ir.positions import IntArray, Positions

__all__ = ["Group", "IntArray", "PermSpec", "Pin", "Place", "Positions", "Probe", "UnknownOp"]


@dataclass(frozen=True)
class Place:
    """Units of one or more groups on one axis of one tensor.

    tensor     name in the state dict (first name of a tied tensor), or "output:0" for an output of the network
    axis       which axis the units lie on
    side       "permute" where units are produced, "un-permute" where they are consumed
    layout     names of the groups, slowest first; every group's ancestors are part of it
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

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]"


@dataclass(frozen=True)
class Probe:
    """Where a group's units can be observed while the network runs.

    node       graph node whose result carries the units
    when       "leaving" (just produced), "normed" (after a norm) or "entering" (about to be consumed);
                "state": hidden states of one layer and direction of a recurrent op, at every step
    dims       dims of that result on which the units lie; all other dims are samples
    layout, positions   as in a Place, positions counted on the flattened `dims`
    module     module that consumes (entering) or produced (leaving) the activation
    beside     nodes of equal branches, whose units follow those of `node`
    pooled     dims of the result on which units of other groups lie: in two models these have no common order, so they are
               no samples. Known of what was just inferred; not in files
    """

    node: str
    when: str
    dims: tuple[int, ...]
    layout: tuple[str, ...]
    positions: Positions
    module: str = ""
    beside: tuple[str, ...] = ()
    pooled: tuple[int, ...] = field(default=(), compare=False, metadata=NOT_IN_FILE)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All that have to be observed."""
        return (self.node, *self.beside)


@dataclass(frozen=True)
class Group:
    """A symmetric group S_size acting on units, once per slot of the groups it lives within.

    name     role and running index: "cnn.0", "heads.3", "heads.3/v"
    role     "cnn", "heads", "heads/v", "heads/qk", "ffn", "residual", "embed", …
    size     number of units
    ancestors   names of the groups it lives within, outermost first: every unit of theirs holds a copy of this group.
                One may lie within another, or two may cross (a channel shuffle between grouped convolutions)
    copies   number of independent copies: product of the sizes of all ancestors
    module   path of the module that produces the units
    places   where its units lie; a place shared with an ancestor or a product appears in each
    probes   where its units can be observed
    """

    name: str
    role: str
    size: int
    ancestors: tuple[str, ...] = ()
    copies: int = 1
    module: str = ""
    places: tuple[Place, ...] = field(default=(), repr=False, metadata=NOT_IN_FILE)
    probes: tuple[Probe, ...] = field(default=(), repr=False)

    @property
    def within(self) -> str | None:
        """Name of the innermost ancestor."""
        return self.ancestors[-1] if self.ancestors else None

    @property
    def log10_order(self) -> float:
        """log10 of the number of permutations: copies · log10(size!)."""
        return log10_orders(self.size, self.copies)


def log10_orders(size: int, copies: int) -> float:
    """log10 of the number of orders of `size` units, in each of so many copies."""
    return copies * math.lgamma(size + 1) / math.log(10)


def group_cells(group: Group) -> tuple[object, ...]:
    """A row of a notebook's table of groups."""
    within = ", ".join(group.ancestors)
    return (group.name, group.role, group.size, within, group.copies, len(group.places), group.module)


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

    row      a rule to start from, as a line of Python; "" where the op has one
    reason   what the rule does not cover; "" where there is no rule
    """

    op: str
    node: str
    module: str = ""
    source: str = ""
    row: str = ""
    reason: str = ""


@dataclass(frozen=True, repr=False)
class PermSpec(Document):
    """All groups of a network.

    model, fingerprint   of the trace it was inferred from
    groups               in graph order, every group after the one it lives within
    places               in graph order
    pinned               what may not move, and why
    unknown_ops          ops without a rule
    unused               state tensors that the network never reads
    tensors              name → shape of every state tensor
    aliases              first name → further names, of tied tensors
    values               tensor → digest of its values, of integer and boolean tensors that the groups depend on
    joined               several tensors under one name, on which there are places
    frozen               points whose freedom could not be read as nested symmetric groups (held in place)
    """

    kind: ClassVar[str] = "spec"
    format: ClassVar[int] = 3
    written_by: ClassVar[str] = "trace"

    model: str
    fingerprint: str
    groups: tuple[Group, ...]
    places: tuple[Place, ...]
    pinned: tuple[Pin, ...] = ()
    unknown_ops: tuple[UnknownOp, ...] = ()
    unused: tuple[str, ...] = ()
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    joined: dict[str, Joined] = field(default_factory=dict)
    frozen: int = 0
    free_output: bool = False
    notes: tuple[
        str, ...
    ] = ()  # how the network was captured, as in the trace; which groups random values meet

    @property
    def log10_order(self) -> float:
        """log10 of the order of the whole group: the sum over the elementary groups."""
        return sum(group.log10_order for group in self.groups)

    @cached_property
    def by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    def __getitem__(self, name: str) -> Group:
        """The group of that name. Raises SelectionError."""
        if name not in self.by_name:
            raise SelectionError(f"{name}: {self.model} has no such group.{nearest(name, self.by_name)}")
        return self.by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def groups_of(self, axis: str) -> tuple[Group, ...]:
        """The groups that move units of an axis, written "tensor[0]", or of any axis of a "tensor", outermost first.

        Empty when nothing there may move. Raises UsageError for a tensor or axis that the network does not have.
        """
        match = re.fullmatch(r"(.+)\[(-?\d+)\]", axis)
        tensor = self.first_name(match[1] if match else axis)
        places = [place for place in self.places if tensor in (place.tensor, *self.members(place.tensor))]
        if tensor not in self.tensors and not places:
            raise UsageError(f"{axis}: the network has no such tensor.{nearest(tensor, self.tensors)}")
        if match is not None:
            rank = len(self.shapes.get(tensor, ())) or 1 + max(place.axis for place in places)
            if not -rank <= int(match[2]) < rank:
                raise UsageError(f"{axis}: the tensor has {rank} axes, 0 to {rank - 1}.")
            places = self.places_on(tensor, int(match[2]) % rank)
        names = {name for place in places for name in place.layout}
        return tuple(group for group in self.groups if group.name in names)

    def __repr__(self) -> str:
        outer = sum(not group.ancestors for group in self.groups)
        return (
            f"PermSpec({short(self.model)!r}: {outer:,} composite groups of {len(self.groups):,} elementary groups, "
            f"log10 of the order {self.log10_order:,.1f})"
        )

    def _repr_html_(self) -> str:
        head = ("group", "role", "size", "within", "copies", "places", "units produced by")
        return html_table(repr(self), head, map(group_cells, self.groups), len(self.groups))

    @cached_property
    def names(self) -> dict[str, str]:
        """Every spelling of every tensor's name, aliases of tied tensors included → its first name."""
        spelt = {canonical(alias): name for name, aliases in self.aliases.items() for alias in aliases}
        return spelt | {canonical(name): name for name in self.tensors}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, of joined tensors too: of all that may have places."""
        return self.tensors | {n: j.shape(self.tensors[j.members[0]]) for n, j in self.joined.items()}

    def members(self, tensor: str) -> tuple[str, ...]:
        """The tensors that a place is on: those of a joined tensor, or the one itself."""
        return self.joined[tensor].members if tensor in self.joined else (tensor,)

    def places_on(self, tensor: str, axis: int) -> list[Place]:
        """The places on an axis of a tensor, also as a member of a joined one."""
        at = {(tensor, axis)}
        at |= {(name, j.axis_of(axis)) for name, j in self.joined.items() if tensor in j.members}
        return [place for place in self.places if (place.tensor, place.axis) in at]

    def first_name(self, name: str) -> str:
        """The name under which the spec lists a tensor, given any of its names; an unknown name as it is."""
        return self.names.get(canonical(name), name)

    def ancestors(self, group: Group) -> list[Group]:
        """The groups `group` lives within, outermost first."""
        return [self.by_name[name] for name in group.ancestors]

    def shape_of(self, group: Group) -> tuple[int, ...]:
        """Shape of the group's permutation array: sizes of its ancestors, then its own."""
        return (*(g.size for g in self.ancestors(group)), group.size)

    def completed(self) -> PermSpec:
        """With the places of each group, which a file holds once, in `places`."""
        held: dict[str, list[Place]] = {}
        for place in self.places:
            for name in dict.fromkeys(place.layout):
                held.setdefault(name, []).append(place)
        groups = tuple(replace(g, places=tuple(held.get(g.name, ()))) for g in self.groups)
        return replace(self, groups=groups)

    def check(self) -> None:
        check_spec(self)
