"""Assignment of nested groups: heads, and channels inside heads (the paper, III-C).

Giving B's head j to A's head k is worth what the best assignment of j's channels to k's channels is worth.
So: score every pair of heads, assign the heads, then assign the channels inside each pair. The same recursion
serves any nesting. Groups side by side whose units are pairs (repeats and channels of a grouped query)
have no exact fast solution; they are solved in turn until none of them gains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from permgraph.errors import MatchError, nearest
from permgraph.ir.moments import BoolArray, FloatArray
from permgraph.ir.spec import Group, IntArray, PermSpec
from permgraph.matching.assignment import assign

Arrays = dict[str, IntArray]
SWEEPS = 10


@dataclass(frozen=True, eq=False)
class Evidence:
    """A score between all units of A and of B that one probe gives.

    key      name of the probe
    layout   the groups its units belong to, parents first; sizes in the same order
    score    (*sizes, *sizes): units of A, then units of B
    dead_*   (*sizes): units that never vary
    """

    key: str
    layout: tuple[str, ...]
    score: FloatArray
    dead_a: BoolArray
    dead_b: BoolArray

    def at(self, group: str, k: int, j: int) -> Evidence:
        """Only unit k of `group` in A against its unit j in B."""
        axis, depth = self.layout.index(group), len(self.layout)
        score = self.score.take(j, axis=axis + depth).take(k, axis=axis)
        layout = tuple(g for g in self.layout if g != group)
        dead_a, dead_b = np.asarray(self.dead_a.take(k, axis)), np.asarray(self.dead_b.take(j, axis))
        return Evidence(self.key, layout, score, dead_a, dead_b)

    def along(self, arrays: Mapping[str, IntArray], spec: PermSpec) -> Evidence:
        """Summed over the groups of `arrays`, their units paired as the permutations there say.

        A group in it comes with all the groups of the layout that live within it.
        """
        fixed = [axis for axis, group in enumerate(self.layout) if group in arrays]
        if not fixed:
            return self
        names = [self.layout[axis] for axis in fixed]
        own = tuple(np.indices([self.dead_a.shape[axis] for axis in fixed]).reshape(len(fixed), -1))
        theirs: list[IntArray] = []
        for i, name in enumerate(names):
            chain = [names.index(g.name) for g in spec.ancestors(spec.by_name[name]) if g.name in names]
            theirs.append(arrays[name][tuple(own[c] for c in [*chain, i])])
        depth, front = len(self.layout), range(len(fixed))
        score = np.moveaxis(self.score, fixed, front)
        score = np.moveaxis(score, [depth + axis for axis in fixed], [depth + i for i in front])
        pick: Any = (*own, *[slice(None)] * (depth - len(fixed)), *theirs)
        return Evidence(
            self.key,
            tuple(g for g in self.layout if g not in arrays),
            np.asarray(score[pick].sum(axis=0)),
            np.asarray(self.dead_a.all(axis=tuple(fixed))),
            np.asarray(self.dead_b.all(axis=tuple(fixed))),
        )


def evidence(
    spec: PermSpec, key: str, layout: Sequence[str], score: FloatArray, dead_a: BoolArray, dead_b: BoolArray
) -> Evidence:
    """Evidence from flat arrays: score (U, U), dead_* (U,), units row-major over `layout`, in any order.

    Raises MatchError when the groups or the sizes do not fit the spec.
    """
    for name in layout:
        if name not in spec.by_name:
            raise MatchError(f"probe {key!r}: no such group {name!r}.{nearest(name, spec.by_name)}")
    sizes = [spec.by_name[name].size for name in layout]
    units = int(np.prod(sizes, dtype=np.int64))
    if score.shape != (units, units):
        raise MatchError(
            f"probe {key!r}: a score of shape {score.shape} for {' × '.join(map(str, sizes))} = {units} "
            "units. Do both models have the same widths?"
        )
    order = list(spec.by_name)
    axes = sorted(range(len(layout)), key=lambda axis: order.index(layout[axis]))
    names = tuple(layout[axis] for axis in axes)
    for name in names:
        missing = [g.name for g in spec.ancestors(spec.by_name[name]) if g.name not in names]
        if missing:
            raise MatchError(
                f"probe {key!r}: its layout has {name!r} but not {missing[0]!r}, which holds it."
            )
    both = [*axes, *(axis + len(axes) for axis in axes)]
    return Evidence(
        key,
        names,
        score.reshape(*sizes, *sizes).transpose(both),
        dead_a.reshape(sizes).transpose(axes),
        dead_b.reshape(sizes).transpose(axes),
    )


def align(
    spec: PermSpec,
    chosen: Iterable[str],
    found: Iterable[Evidence],
    deciding: Mapping[str, Collection[str]] | None = None,
) -> Arrays:
    """The best permutation of every chosen group; groups not chosen stay in order.

    deciding   parent group → keys of the probes whose score decides its order; the other probes only decide
               inside the pairs so found. A group that is absent, or has none of them, listens to all

    Raises MatchError when a chosen group has no evidence at all.
    """
    picked = set(chosen)
    reduced = [_without_idle(spec, picked, one) for one in found]
    silent = picked - {group for one in reduced for group in one.layout}
    if silent:
        name = min(silent)
        raise MatchError(f"group {name!r} is selected, but no probe observed it. Calibrate with this plan.")
    _, arrays = _Aligner(spec, picked, deciding or {}).solve([one for one in reduced if one.layout], True)
    return {g.name: arrays[g.name].reshape(spec.shape_of(g)) for g in spec.groups if g.name in picked}


def _without_idle(spec: PermSpec, chosen: set[str], one: Evidence) -> Evidence:
    """Sum over the groups in which nothing moves: neither they nor what lives within them was chosen."""
    busy = {g for g in one.layout if g in chosen}
    busy |= {parent.name for g in busy for parent in spec.ancestors(spec.by_name[g])}
    idle = [g for g in one.layout if g not in busy]
    inner = {g: [a.name for a in spec.ancestors(spec.by_name[g]) if a.name in idle] for g in idle}
    still = {
        g: np.broadcast_to(
            np.arange(spec.by_name[g].size), (*(spec.by_name[a].size for a in inner[g]), spec.by_name[g].size)
        )
        for g in idle
    }
    return one.along(still, spec)


@dataclass(frozen=True)
class _Aligner:
    spec: PermSpec
    chosen: set[str]
    deciding: Mapping[str, Collection[str]]

    def solve(self, found: Sequence[Evidence], stable: bool) -> tuple[float, Arrays]:
        """Value and permutations of all groups in these layouts.

        `stable` is False while pairs are only scored; ties then do not matter.
        """
        value = 0.0
        arrays: Arrays = {}
        for part in _parts(found):
            roots = self.roots(part)
            gain, more = (
                self.nested(roots[0], part, stable) if len(roots) == 1 else self.product(roots, part, stable)
            )
            value += gain
            arrays |= more
        return value + sum(float(one.score) for one in found if not one.layout), arrays

    def roots(self, found: Sequence[Evidence]) -> list[str]:
        names = {group for one in found for group in one.layout}
        inside = {g for g in names if any(a.name in names for a in self.spec.ancestors(self.spec.by_name[g]))}
        return sorted(names - inside, key=lambda g: (self.spec.by_name[g].size, g))

    def nested(self, root: str, found: Sequence[Evidence], stable: bool) -> tuple[float, Arrays]:
        """III-C: score all pairs of `root`'s units by what is inside them, assign, go inside each pair."""
        n = self.spec.by_name[root].size
        perm: IntArray = np.arange(n)
        if root in self.chosen:
            decide = [one for one in found if one.key in self.deciding.get(root, ())] or found
            dead_a, dead_b = (_dead(root, decide, side) for side in ("dead_a", "dead_b"))
            perm = assign(self.scores(root, decide), dead_a, dead_b, stable)
        if all(len(one.layout) == 1 for one in found):
            return float(sum(one.score[np.arange(n), perm].sum() for one in found)), {root: perm}
        pairs = [self.solve([one.at(root, k, int(perm[k])) for one in found], stable) for k in range(n)]
        inner = {name: np.stack([arrays[name] for _, arrays in pairs]) for name in pairs[0][1]}
        return sum(value for value, _ in pairs), {root: perm} | inner

    def scores(self, root: str, found: Sequence[Evidence]) -> FloatArray:
        """(n, n): the value of giving B's unit j to A's unit k."""
        n = self.spec.by_name[root].size
        total = np.zeros((n, n))
        for one in found:
            if one.layout == (root,):
                total += one.score
        deep = [one for one in found if one.layout != (root,)]
        for k, j in np.ndindex(n, n) if deep else ():
            total[k, j] += self.solve([one.at(root, k, j) for one in deep], False)[0]
        return total

    def product(self, roots: list[str], found: Sequence[Evidence], stable: bool) -> tuple[float, Arrays]:
        """Groups side by side in one layout: the smallest first, as if the others lived within it; then each
        in turn with the others held, until none gains."""
        if any(sum(self.under(root, g) for root in roots) > 1 for one in found for g in one.layout):
            return self.crossing(roots, found, stable)
        first = roots[0]
        _, arrays = self.nested(first, [one for one in found if first in one.layout], stable)
        best = self.subtree(first, arrays)
        best |= self.solve([one.along(best, self.spec) for one in found], stable)[1]
        value = self.value(best, found)
        for _ in range(SWEEPS):
            trial = dict(best)
            for root in roots:
                held = {g: a for g, a in trial.items() if g not in self.subtree(root, trial)}
                rest = [one.along(held, self.spec) for one in found if root in one.layout]
                trial |= self.solve(rest, stable)[1]
            gained = self.value(trial, found)
            if gained <= value:
                break
            value, best = gained, trial
        return value, best

    def under(self, root: str, group: str) -> bool:
        return root in (a.name for a in self.spec.ancestors(self.spec.by_name[group]))

    def crossing(self, roots: list[str], found: Sequence[Evidence], stable: bool) -> tuple[float, Arrays]:
        """Groups that live within two others side by side, as the channels of a shuffle: each root once as the first to
        be assigned, and the best of these."""
        tried = [self.crossed(root, found, stable) for root in roots]
        return max(tried, key=lambda one: one[0])

    def crossed(self, root: str, found: Sequence[Evidence], stable: bool) -> tuple[float, Arrays]:
        """`root` assigned as if the rest lived within it; then the rest, where what does live within it is a group of
        its own in each of its units."""
        perm = self.nested(root, [one for one in found if root in one.layout], stable)[1][root]
        names = sorted({g for one in found for g in one.layout if self.under(root, g)})
        copies = {(g, k): f"{g}#{k}" for g in names for k in range(len(perm))}
        split = [one for one in found if root not in one.layout]
        for one in (one for one in found if root in one.layout):
            for k, j in enumerate(perm.tolist()):
                part = one.at(root, k, j)
                split.append(replace(part, layout=tuple(copies.get((g, k), g) for g in part.layout)))
        aligner = replace(
            self,
            spec=replace(self.spec, groups=(*self.spec.groups, *self.copied(root, copies))),
            chosen=self.chosen | {copy for (g, _), copy in copies.items() if g in self.chosen},
        )
        value, arrays = aligner.solve(split, stable)
        for g in names:
            parts = [arrays.pop(copies[g, k]) for k in range(len(perm))]
            present = [
                a.name for a in self.spec.ancestors(self.spec.by_name[g]) if a.name in (root, *arrays, *names)
            ]
            arrays[g] = np.stack(parts, axis=present.index(root))
        return value, arrays | {root: perm}

    def copied(self, root: str, copies: Mapping[tuple[str, int], str]) -> list[Group]:
        """A group for each unit of `root` instead of one within it."""
        groups = []
        for (g, k), copy in copies.items():
            group = self.spec.by_name[g]
            above = tuple(copies.get((a, k), a) for a in group.ancestors if a != root)
            groups.append(replace(group, name=copy, ancestors=above))
        return groups

    def subtree(self, root: str, arrays: Arrays) -> Arrays:
        """`root` and the groups within it."""
        inside = [g for g in arrays if root in (a.name for a in self.spec.ancestors(self.spec.by_name[g]))]
        return {g: arrays[g] for g in (root, *inside)}

    def value(self, arrays: Arrays, found: Sequence[Evidence]) -> float:
        return sum(float(one.along(arrays, self.spec).score) for one in found)


def _dead(root: str, found: Sequence[Evidence], side: str) -> BoolArray:
    """Units of `root` that are dead in every probe: all that they hold is dead."""
    result = np.ones(1, dtype=bool)
    for one in found:
        axes = tuple(axis for axis, group in enumerate(one.layout) if group != root)
        result = result & getattr(one, side).all(axis=axes)
    return result


def _parts(found: Sequence[Evidence]) -> list[list[Evidence]]:
    """Evidence that shares groups, together; parts share none and are solved apart."""
    parts: list[list[Evidence]] = []
    for one in found:
        if not one.layout:
            continue
        joined = [p for p in parts if any(set(one.layout) & set(other.layout) for other in p)]
        parts = [p for p in parts if p not in joined] + [[*(o for p in joined for o in p), one]]
    return parts
