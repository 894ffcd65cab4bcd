"""Exchange: equal branches as points, so that an order of branches is one more thing that a permutation may change.

Every branch gets a point. What its nodes make hangs on it; what they pin is in its place *within the branch*: it is
linked to a point that says so, and that has a counterpart in every other branch. Runs of points, and links, that
corresponding nodes make are of one kind. An automorphism of this graph then takes whole branches to whole branches, and
every relation that an op recorded to the one that its counterpart did; so each value is that of its counterpart, with
its coordinates re-ordered, and what ends the branches does not know their order.

Branches that are one wide branch (`axes/wide.py`) get no points: their units look alike, all else in them is one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from permgraph.axes.points import Labels, Origin, Points, Step
from permgraph.axes.side_by_side import Owner, Sides

Key = tuple[Hashable, ...]


class Unequal(Exception):
    """What corresponding nodes recorded differs: these sets of branches are not equal to the rules."""

    def __init__(self, sets: frozenset[int]) -> None:
        super().__init__()
        self.sets = sets


@dataclass
class Exchange:
    """Points with the branches among them.

    members   root of corresponding state nodes → all of them
    which     root → a point for each member: that it is this one, and not another
    """

    points: Points
    members: dict[str, list[str]] = field(default_factory=dict)
    which: dict[str, Labels] = field(default_factory=dict)


def with_exchanges(points: Points, sides: Sides) -> Exchange:
    """The points of a network with equal branches. Raises Unequal."""
    book = _Book(points, sides)
    book.refuse_unequal()
    book.branches()
    book.runs()
    book.links()
    book.ties()
    book.pins()
    book.cuts()
    return book.finish()


def equal_exchanges(points: Points, sides: Sides) -> tuple[Exchange | None, Sides]:
    """The same of those sets that are equal to the rules, and these sets; None where there are none."""
    while sides.sets:
        try:
            return with_exchanges(points, sides), sides
        except Unequal as found:
            sides = sides.without(found.sets)
    return None, sides


class _Book:
    """What was recorded where, brought into correspondence."""

    def __init__(self, points: Points, sides: Sides) -> None:
        self.old, self.sides = points, sides
        self.new = points.copy()
        self.new.linked, self.new.pinned, self.new.tied = [], [], []
        self.branch: dict[
            Owner, Labels
        ] = {}  # a point for every branch, and for several that share something
        self.joined: dict[Key, list[tuple[Labels, Labels, Step]]] = {}  # links that are of one kind
        self.tied: dict[Key, list[tuple[Labels, Labels, Step]]] = {}  # ties
        self.counts: dict[Key, int] = {}
        self.held = np.zeros(points.count, dtype=bool)
        self.held[points.pins()[0]] = True

    # -- where a record belongs ---------------------------------------------------------------------------

    def owners(self, at: Step) -> list[Owner]:
        """The branches in which it was made, but for wide ones."""
        mine = self.sides.owner(at.node, at.part)
        return sorted(o for o in mine if self.sides.sets[o[0]].wide is None)

    def is_wide(self, at: Step) -> bool:
        mine = self.sides.owner(at.node, at.part)
        return bool(mine) and not self.owners(at)

    def key(self, what: str, at: Step) -> Key:
        """Equal for records that correspond: the n-th of its sort at corresponding nodes."""
        count = (what, at.node, at.part)
        number = self.counts[count] = self.counts.get(count, -1) + 1
        return (what, *self.sides.place(at.node, at.part), number)

    def link(self, key: Key, a: Labels, b: Labels, at: Step) -> None:
        a, b = np.broadcast_arrays(a, b)
        self.joined.setdefault(key, []).append((a.ravel(), b.ravel(), at))

    def hang(self, key: Key, labels: Labels, at: Step) -> None:
        """These points belong to the branches in which they were made."""
        for owner in self.owners(at):
            self.link((*key, self.sides.likeness(owner[0])), labels, self.branch[owner], at)

    # -- what is recorded alike ----------------------------------------------------------------------------

    def refuse_unequal(self) -> None:
        records: dict[tuple[str, int], list[tuple[Hashable, ...]]] = {}

        def add(at: Step, *said: Hashable) -> None:
            if self.sides.owner(at.node, at.part):
                records.setdefault((at.node, at.part), []).append(said)

        for o in self.old.origins:
            add(Step(o.node, "", o.part), "run", o.stop - o.start, o.axis, o.rows, o.view, bool(o.tensor))
        for a, b, at in self.old.linked:
            add(at, "link", a.size, b.size)
        for labels, reason in self.old.pinned:
            add(reason.step, "pin", labels.size, reason.text)
        cut = {at.node for _, at in self.old.cuts}
        for name in self.sides.cuts - cut:  # a number that the rule of `eq` did not see as a part
            if self.sides.trace.by_name[name].short_op == "eq":
                add(Step(name, ""), "number", name)
        places: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for where in {(n, -1) for n in self.sides.owners} | set(self.sides.parts):
            places.setdefault(self.sides.place(*where), []).append(where)
        wrong = frozenset(
            number
            for wheres in places.values()
            if len({tuple(records.get(w, ())) for w in wheres}) > 1
            for w in wheres
            for number, _ in self.sides.owner(*w)
        )
        if wrong:
            raise Unequal(wrong)

    def ties(self) -> None:
        """Where ties relate coordinates of one axis, they are read as links: those that correspond are of one kind."""
        sizes: dict[tuple[str, int], list[int]] = {}
        for a, _, at in self.old.tied:
            sizes.setdefault((at.node, at.part), []).append(a.size)
        of_place: dict[tuple[str, int], set[tuple[int, ...]]] = {}
        for (node, part), found in sizes.items():
            of_place.setdefault(self.sides.place(node, part), set()).add(tuple(found))
        for number, (a, b, at) in enumerate(self.old.tied):
            owned = self.sides.owner(at.node, at.part)
            equal = len(of_place[self.sides.place(at.node, at.part)]) == 1
            key = self.key("tie", at) if owned and equal else ("other", number)
            self.tied.setdefault(key, []).append((a, b, at))

    def branches(self) -> None:
        """A point for every branch, on the branches in which it lies itself."""
        self.new.at = at = Step("", "equal branches")
        first: dict[Hashable, int] = {}
        owned = (*self.sides.owners.values(), *self.sides.parts.values())
        shared = sorted({o for mine in owned for o in mine if len(o[1]) > 1})
        for number in (n for n, s in enumerate(self.sides.sets) if s.wide is None):
            like = self.sides.likeness(number)
            points = self._fresh(first, like, self.sides.sets[number].size)
            self.branch |= {(number, (i,)): points[i : i + 1] for i in range(points.size)}
            for owner in (o for o in shared if o[0] == number):
                self.branch[owner] = self._fresh(first, (like, len(owner[1])), 1)
                for i in owner[1]:
                    self.link(("share", like, len(owner[1])), points[i : i + 1], self.branch[owner], at)
        for number, outer in self._nested():
            key = ("within", self.sides.likeness(number), self.sides.likeness(outer[0]), len(outer[1]))
            for i in range(self.sides.sets[number].size):
                self.link(key, self.branch[number, (i,)], self.branch[outer], at)
        for owner in sorted(self.sides.held & self.branch.keys()):
            self.new.pin(self.branch[owner], "read outside its branch")
        for mine in sorted({tuple(sorted(o)) for o in self.sides.owners.values()}):
            ours = [o for o in mine if o in self.branch]
            for one, other in pairwise(ours):
                self.new.tie(self.branch[one], self.branch[other])

    def _nested(self) -> Iterator[tuple[int, Owner]]:
        """Sets of branches, with the branches further out in which they end."""
        for number, branches in enumerate(self.sides.sets):
            if branches.wide is None:
                for outer in sorted(self.sides.owners.get(branches.merge, ())):
                    if outer in self.branch:
                        yield number, outer

    def _fresh(self, first: dict[Hashable, int], like: Hashable, size: int) -> Labels:
        """New points that look like those made before under the same key."""
        points = self.new.fresh((size,))
        run = len(self.new.origins) - 1
        self.new.origins[run] = self.new.origins[run]._replace(kin=first.setdefault(like, run))
        return points

    def runs(self) -> None:
        first: dict[Key, int] = {}
        for index, origin in enumerate(self.old.origins):
            at = Step(origin.node, "", origin.part)
            if not self.sides.owner(at.node, at.part):
                continue
            key = self.key("run", at)
            model = first.setdefault(key, index)
            labels = np.arange(origin.start, origin.stop)
            longer = self.is_wide(at) and self.of_units(origin)
            self.new.origins[index] = origin._replace(kin=model, longer=longer)
            if not self.is_wide(at):
                self.hang(key, labels, at)
            elif not longer:
                start = self.old.origins[model].start
                self.new.tie(labels, np.arange(start, start + labels.size))

    def of_units(self, origin: Origin) -> bool:
        """Whether these are units of a wide branch; all other axes in it are one for all branches."""
        if origin.tensor:
            return any(s.wide and s.wide.get(origin.node) == origin.axis for s in self.sides.sets)
        return not self.held[origin.start : origin.stop].any()

    def links(self) -> None:
        for number, (a, b, at) in enumerate(self.old.linked):
            owned = bool(self.sides.owner(at.node, at.part))
            self.link(self.key("link", at) if owned else ("other", number), a, b, at)

    def pins(self) -> None:
        """A pin in a branch is a place within it; any other is what it was."""
        inside: dict[Key, list[tuple[Labels, Step]]] = {}
        for labels, reason in self.old.pinned:
            at = reason.step
            if self.owners(at):
                inside.setdefault(self.key("pin", at), []).append((labels, at))
                continue
            self.new.pinned.append((labels, reason))
            if self.is_wide(at):
                inside.setdefault(self.key("pin", at), []).append((labels, at))
        for key, copies in inside.items():
            if not self.owners(copies[0][1]):
                for labels, _ in copies[1:]:
                    self.new.tie(labels, copies[0][0])
                continue
            places = np.stack([self.new.fresh((len(copies),)) for _ in range(copies[0][0].size)])
            for i, (labels, at) in enumerate(copies):
                self.link(key, labels, places[:, i], at)
                self.hang((*key, "place"), places[:, i], at)

    def cuts(self) -> None:
        """A part that is cut out of a tensor for a branch is that branch's part."""
        for labels, at in self.old.cuts:
            cut = at.node in self.sides.cuts or (at.node, at.part) in self.sides.parts
            if cut and at.node not in self.sides.merges and self.owners(at):
                self.hang(self.key("cut", at), labels, at)

    def finish(self) -> Exchange:
        found = Exchange(self.new)
        for root, members in self.sides.copies.items():
            if self.sides.trace.by_name[root].op != "state":
                continue
            found.members[root] = members
            if any(self.owners(Step(m, "")) for m in members):
                which = found.which[root] = self.new.fresh((len(members),))
                for i, member in enumerate(members):
                    for owner in self.owners(Step(member, "")):
                        self.new.tie(which[i : i + 1], self.branch[owner])
        self.new.linked = [_one(parts) for parts in self.joined.values()]
        self.new.tied = [_one(parts) for parts in self.tied.values()] + self.new.tied
        calls = [*self.joined, *self.tied]
        self.new.alike = frozenset(i for i, key in enumerate(calls) if key[0] != "other")
        return found


def _one(parts: Iterable[tuple[Labels, Labels, Step]]) -> tuple[Labels, Labels, Step]:
    """Links of one kind."""
    a, b, at = zip(*parts, strict=True)
    return np.concatenate(a), np.concatenate(b), at[0]
