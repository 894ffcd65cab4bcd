"""Points: a number for every coordinate of every axis, and what relates them.

Three relations are collected while the rules walk the graph:

- a *tie*: two points that must move together;
- a *link*: a typed edge between two points that must move consistently (a block and its members, a product
  and its factors). A permutation must map every link to a link of the same type;
- a *pin*: a point that may not move, with the reason.

Everything is a flat numpy array; nothing here knows about ops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Labels = NDArray[np.int64]


class View(NamedTuple):
    """A run of a flat axis seen as a tensor: where it begins, the shape, and which of its dims are labelled."""

    offset: int
    shape: tuple[int, ...]
    dims: tuple[int, ...]


class Origin(NamedTuple):
    """Where a run of points was created: one axis of a state tensor, or inside the graph."""

    start: int
    stop: int
    tensor: str  # "" for points made by an op
    axis: int
    node: str
    rows: int = 0  # of an axis with an order in each slice: the axis along which the slices lie
    view: View | None = None
    part: int = -1  # which operand or result of the node it is about, where that is known
    kin: int = -1  # the run whose points look like these, when it is not itself
    longer: bool = False  # these are further coordinates of the axis of that run


class Step(NamedTuple):
    """Which rule at which graph node said so."""

    node: str
    rule: str
    part: int = -1  # which operand or result of the node it is about, where that is known


@dataclass(frozen=True)
class Reason:
    """Why points are pinned, and where."""

    text: str
    step: Step


def without_rule(op: str) -> str:
    """The reason of a pin that stands for want of a rule."""
    return f"op without a rule: {op}"


class Points:
    """All points of one network, and the relations among them."""

    def __init__(self) -> None:
        self.count = 0
        self.at = Step("", "")  # what is being done now; recorded with every relation
        self.origins: list[Origin] = []
        self.tied: list[tuple[Labels, Labels, Step]] = []
        self.linked: list[tuple[Labels, Labels, Step]] = []
        self.pinned: list[tuple[Labels, Reason]] = []
        self.cuts: list[tuple[Labels, Step]] = []  # what was cut out of an axis, and where
        self.alike: frozenset[int] = (
            frozenset()
        )  # links, then ties, that corresponding parts of the network recorded
        self._starts: Labels = np.zeros(0, dtype=np.int64)

    def fresh(
        self,
        shape: tuple[int, ...],
        tensor: str = "",
        axis: int = -1,
        rows: int = 0,
        view: View | None = None,
    ) -> Labels:
        """New points, in the given shape. Points of one call look alike until something distinguishes them."""
        size = int(np.prod(shape, dtype=np.int64))
        start = self.count
        self.count += size
        self.origins.append(Origin(start, self.count, tensor, axis, self.at.node, rows, view, self.at.part))
        return np.arange(start, self.count, dtype=np.int64).reshape(shape)

    def copy(self) -> Points:
        """The same points, to which other relations may be added."""
        other = Points()
        other.count, other.at, other.origins = self.count, self.at, list(self.origins)
        other.tied, other.linked = list(self.tied), list(self.linked)
        other.pinned, other.cuts, other.alike = list(self.pinned), list(self.cuts), self.alike
        return other

    def tie(self, a: Labels, b: Labels) -> None:
        """The points of `a` move together with the points of `b` (same shape, or broadcast)."""
        if a is not b:
            a, b = np.broadcast_arrays(a, b)
            self.tied.append((a.ravel(), b.ravel(), self.at))

    def link(self, a: Labels, b: Labels) -> None:
        """Typed edges a—b (broadcast); every call is a type of its own."""
        a, b = np.broadcast_arrays(a, b)
        self.linked.append((a.ravel(), b.ravel(), self.at))

    def pin(self, labels: Labels, text: str) -> None:
        """These points stay where they are."""
        if labels.size:
            self.pinned.append((labels.ravel(), Reason(text, self.at)))

    def ties(self) -> tuple[Labels, Labels]:
        return _join([a for a, _, _ in self.tied]), _join([b for _, b, _ in self.tied])

    def links(self) -> tuple[Labels, Labels, Labels]:
        """(a, b, type) of every link."""
        kinds = [np.full(a.size, i, dtype=np.int64) for i, (a, _, _) in enumerate(self.linked)]
        return _join([a for a, _, _ in self.linked]), _join([b for _, b, _ in self.linked]), _join(kinds)

    def pins(self) -> tuple[Labels, Labels]:
        """(point, index of its reason in `pinned`); a point may be pinned for several reasons."""
        which = [np.full(p.size, i, dtype=np.int64) for i, (p, _) in enumerate(self.pinned)]
        return _join([p for p, _ in self.pinned]), _join(which)

    def pinned_for(self, text: str) -> Labels:
        """The points that are pinned for this reason."""
        return _join([labels for labels, reason in self.pinned if reason.text == text])

    def are_tied(self, a: Labels, b: Labels) -> bool:
        """Whether the points of `a` move together with those of `b` (same shape), by what was tied so far."""
        if a.shape != b.shape or np.array_equal(a, b):
            return a.shape == b.shape
        _, of = components(self.count, *self.ties())
        return bool((of[a] == of[b]).all())

    def runs(self) -> Labels:
        """For every point which call made it, from 0: one axis of a tensor, or one step inside the graph."""
        sizes = [o.stop - o.start for o in self.origins if o.stop > o.start]
        return np.repeat(np.arange(len(sizes)), sizes)

    def origin_of(self, labels: Labels) -> Origin:
        """Where the first of these points was created."""
        if len(self._starts) != len(self.origins):
            self._starts = np.array([o.start for o in self.origins])
        return self.origins[int(np.searchsorted(self._starts, labels.flat[0], side="right")) - 1]


def components(size: int, a: Labels, b: Labels) -> tuple[int, Labels]:
    """Number of connected components, and the component of every vertex."""
    graph = coo_matrix((np.ones(a.size), (a, b)), shape=(size, size))  # float64, or scipy copies it
    count, of = connected_components(graph, directed=False)
    return int(count), of.astype(np.int64)


def _join(parts: list[Labels]) -> Labels:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
