"""Side by side: equal branches of a network, which may change places where they end.

A sum, a product, a largest value does not know the order of its terms; a concatenation or a stack knows it, and what
reads the result then says whether it matters. Where several of the operands are alike (`axes/alike.py`), they are
*branches* that may be exchanged, with all their tensors. What lies in a branch moves with it: every relation among
points that a node of one branch records is recorded by its copies too, and `axes/exchange.py` makes of them relations
of one kind, between points of one colour.

A node of a branch that anything else reads holds its branch in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from permgraph.axes.alike import Alike, Comparison, Copies
from permgraph.axes.merges import CHAINS, JOINS, merges_of
from permgraph.axes.wide import wide_axes
from permgraph.ir.trace import Node, Trace

Owner = tuple[int, tuple[int, ...]]  # number of a set of branches, and which of them, mostly one
NOBODY: frozenset[Owner] = frozenset()


@dataclass(frozen=True, eq=False)
class Branches:
    """Equal branches that end in one node.

    merge    the node that no longer knows their order, or holds them one after another
    terms    which operands of it they are: for a chain of additions, numbers in order of execution
    nodes    that make up the merge: those of a chain, which read each other only
    alike    the nodes that correspond
    wide     when the branches are one branch of more units: state node → the axis on which its units lie
    """

    merge: str
    terms: tuple[int, ...]
    nodes: frozenset[str]
    alike: Alike
    wide: Mapping[str, int] | None = None

    @property
    def size(self) -> int:
        return len(self.terms)


@dataclass(frozen=True, eq=False)
class Sides:
    """All sets of equal branches of a network.

    owners   node → the branches in which it lies, innermost ones only
    parts    (node, number) → the branches to which an operand or a result of it belongs
    root     node → the first of those that correspond to it
    held     branches that something outside reads
    """

    trace: Trace
    sets: tuple[Branches, ...] = ()
    root: dict[str, str] = field(default_factory=dict)
    owners: dict[str, frozenset[Owner]] = field(default_factory=dict)
    parts: dict[tuple[str, int], frozenset[Owner]] = field(default_factory=dict)
    held: frozenset[Owner] = NOBODY
    within: dict[int, frozenset[Owner]] = field(default_factory=dict)

    @cached_property
    def merges(self) -> frozenset[str]:
        return frozenset(s.merge for s in self.sets)

    @cached_property
    def copies(self) -> dict[str, list[str]]:
        """Root → the nodes that correspond to it, in order of execution."""
        found: dict[str, list[str]] = {}
        for node in self.trace.nodes:
            if node.name in self.root:
                found.setdefault(self.root[node.name], []).append(node.name)
        return found

    @cached_property
    def cuts(self) -> frozenset[str]:
        """Nodes that cut the part of their branch out of a tensor."""
        return frozenset(n for s in self.sets for copies in s.alike.cuts for n in copies)

    def owner(self, node: str, part: int = -1) -> frozenset[Owner]:
        """The branches to which belongs what is done at a node; with `part`, for one of its operands or results."""
        own = self.owners.get(node, NOBODY)
        return self.parts.get((node, part), own) if part >= 0 else own

    def place(self, node: str, part: int) -> tuple[str, int]:
        """Equal for what is done at corresponding nodes, and for corresponding parts."""
        root = self.root.get(node, node)
        mine = self.parts.get((node, part)) if part >= 0 else None
        if mine is None:
            return root, part
        first = {self._first(o[0]) for o in mine}
        return root, -2 - min(first)

    def _first(self, number: int) -> int:
        """Which operand of its merge the first branch is: equal for corresponding sets of branches."""
        return self.sets[number].terms[0]

    def likeness(self, number: int) -> tuple[str, int]:
        """Equal for corresponding sets of branches: those of equal branches further out."""
        one = self.sets[number]
        return self.root.get(one.merge, one.merge), one.terms[0]

    def without(self, numbers: Iterable[int]) -> Sides:
        """Without these, and those that correspond to them: equal branches further out would not be equal else."""
        left = {self.likeness(number) for number in numbers}
        return _sides(self.trace, [s for i, s in enumerate(self.sets) if self.likeness(i) not in left])


def side_by_side(trace: Trace) -> Sides:
    """The equal branches of a network."""
    merges = [merge for merge in merges_of(trace) if _promising(trace, merge[1])]
    if not merges:
        return Sides(trace)
    comparison = Comparison(trace)
    sets = [found for merge in merges for found in _branches(comparison, *merge)]
    return _sides(trace, [s for s in sets if _matters(trace, s)])


def _promising(trace: Trace, terms: list[str]) -> bool:
    """Whether two of the operands are results of one op and shape: a quick look before all are compared."""
    nodes = [trace.by_name[name] for name in dict.fromkeys(terms)]
    return len({(n.op, n.shape) for n in nodes}) < len(nodes)


def _matters(trace: Trace, branches: Branches) -> bool:
    """Whether an exchange moves anything: tensors of the state, or parts of one."""
    states = (n for copies in branches.alike.copies for n in copies if trace.by_name[n].op == "state")
    return bool(branches.alike.cuts) or any(True for _ in states)


def _branches(
    comparison: Comparison, node: Node, terms: list[str], chain: frozenset[str]
) -> Iterator[Branches]:
    """The sets of operands of one merge that are alike."""
    times = Counter(terms)
    looks: dict[bytes, list[int]] = {}
    for i, name in enumerate(terms):
        added = (
            node.short_op in CHAINS and comparison.weight[name]
        )  # a sum of weights is a matter of their values
        if times[name] == 1 and not added:
            looks.setdefault(comparison.looks(name), []).append(i)
    for numbers in looks.values():
        if len(numbers) < 2:
            continue
        if node.short_op in CHAINS:
            numbers = sorted(numbers, key=lambda i: comparison.order[terms[i]])
        ends: Copies = tuple(terms[i] for i in numbers)
        alike = comparison.alike(ends)
        if alike is not None:
            yield Branches(
                node.name,
                tuple(numbers),
                chain,
                alike,
                wide_axes(comparison.trace, node, ends, alike),
            )


def _sides(trace: Trace, sets: list[Branches]) -> Sides:
    """Who belongs to whom. Sets of branches that are one wide branch are that only where they stand alone, and where
    nothing else reads them."""
    sets = _narrowed(sets)
    root = _roots(trace, sets)
    all_owners: dict[str, set[Owner]] = {}
    for number, branches in enumerate(sets):
        for copies in branches.alike.copies:
            for name in dict.fromkeys(copies):
                users = tuple(i for i, other in enumerate(copies) if other == name)
                all_owners.setdefault(name, set()).add((number, users))
    within = {n: frozenset(all_owners.get(s.merge, ())) for n, s in enumerate(sets)}
    owners = {name: _innermost(mine, within) for name, mine in all_owners.items()}
    parts = dict(_parts(trace, sets, owners))
    held = frozenset(_held(trace, sets, all_owners, owners))
    if any(sets[number].wide is not None for number, _ in held):
        return _sides(trace, [left for n, s in enumerate(sets) if (left := _unheld(n, s, held))])
    return Sides(trace, tuple(sets), root, owners, parts, held, within)


def _narrowed(sets: list[Branches]) -> list[Branches]:
    """Without `wide` where a node of the branches lies in others too."""
    where: Counter[str] = Counter(n for s in sets for copies in s.alike.copies for n in copies)
    merges = {n for s in sets for copies in s.alike.copies for n in copies}
    return [
        s
        if s.wide is None
        or (s.merge not in merges and all(where[n] == 1 for copies in s.alike.copies for n in copies))
        else Branches(s.merge, s.terms, s.nodes, s.alike)
        for s in sets
    ]


def _unheld(number: int, branches: Branches, held: frozenset[Owner]) -> Branches | None:
    """One wide branch of those that nothing else reads; None where fewer than two are left."""
    read = {i for n, users in held if n == number for i in users}
    left = [i for i in range(branches.size) if i not in read]
    if branches.wide is None or not read:
        return branches
    copies = {c: tuple(c[i] for i in left) for c in branches.alike.copies}
    kept = {n for c in copies.values() for n in c}
    wide = {name: axis for name, axis in branches.wide.items() if name in kept}
    terms = tuple(branches.terms[i] for i in left)
    found = Branches(branches.merge, terms, branches.nodes, Alike(list(copies.values())), wide)
    return found if len(left) > 1 else None


def _roots(trace: Trace, sets: list[Branches]) -> dict[str, str]:
    """Node → the first of all that correspond to it."""
    parent: dict[str, str] = {}

    def top(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for branches in sets:
        for copies in branches.alike.copies:
            for name in copies:
                parent.setdefault(name, name)
                parent[top(name)] = top(copies[0])
    first: dict[str, str] = {}
    for node in trace.nodes:
        if node.name in parent:
            first.setdefault(top(node.name), node.name)
    return {name: first[top(name)] for name in parent}


def _innermost(mine: set[Owner], within: Mapping[int, frozenset[Owner]]) -> frozenset[Owner]:
    outer = {o for number, _ in mine for o in within[number]}
    return frozenset(o for o in mine if not any(_in(inner, o) for inner in outer))


def _in(one: Owner, other: Owner) -> bool:
    """Whether these branches are among the others."""
    return one[0] == other[0] and set(one[1]) <= set(other[1])


def _parts(
    trace: Trace, sets: list[Branches], owners: Mapping[str, frozenset[Owner]]
) -> Iterator[tuple[tuple[str, int], frozenset[Owner]]]:
    """Operands of a concatenation, and results of a split, that belong to branches."""
    for number, branches in enumerate(sets):
        if trace.by_name[branches.merge].short_op in JOINS:
            for i, term in enumerate(branches.terms):
                yield (branches.merge, term), frozenset([(number, (i,))])
    cut = {name for s in sets for copies in s.alike.cuts for name in copies}
    for getitem in trace.nodes:
        if getitem.op == "getitem" and getitem.name in cut:
            yield (getitem.operands["source"].node, getitem.options["index"]), owners[getitem.name]


def _held(
    trace: Trace,
    sets: list[Branches],
    owners: Mapping[str, set[Owner]],
    innermost: Mapping[str, frozenset[Owner]],
) -> Iterator[Owner]:
    """Branches whose nodes something reads that is neither in the same branch nor the end of it, or of another.

    What lies in branches of several sets (a weight that two towers read) ties these to each other.
    """
    ends: dict[tuple[str, str], set[int]] = {}  # (node of a merge, operand of it that is the end of a branch)
    for number, branches in enumerate(sets):
        last = branches.alike.copies[0]
        for name in last:
            for link in branches.nodes:
                ends.setdefault((link, name), set()).add(number)
    for name, mine in owners.items():
        for reader in trace.readers.get(name, ()):
            if ends.get((reader.name, name)):
                continue
            theirs = owners.get(reader.name, set())
            if not any(_in(t, o) for t in theirs for o in innermost[name]):
                yield from (o for o in mine if not any(_in(t, o) for t in theirs))
