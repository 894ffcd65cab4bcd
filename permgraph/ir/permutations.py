"""Permutations: by what a plan re-orders each group. Inverted, saved and loaded here."""

from __future__ import annotations

import hashlib
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Sequence, ValuesView
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from permgraph.errors import FileError
from permgraph.ir.check_report import check_report
from permgraph.ir.codec import Mismatch
from permgraph.ir.files import load_arrays, save_arrays, write_bytes
from permgraph.ir.names import in_order
from permgraph.ir.notebook import html_table
from permgraph.ir.plan import UNKNOWN, Origin, Plan
from permgraph.ir.spec import IntArray, PermSpec

FORMAT = 3
_BY_GROUP = ("groups", "probes")  # rows of a report


@dataclass(frozen=True, repr=False, eq=False)
class Permutations:
    """One index array per group: `perm[i]` is B's unit that goes to A's slot `i`.

    A group within others has one permutation per slot of its ancestors: `heads.3/v` has shape (12, 64), and
    row k is the order of the channels inside the head that lands in slot k.
    A group that is absent stays in order.

    report   what the matching is worth (`permgraph.match` says which numbers)
    origin   the plan and the weights they were matched for; an empty one for permutations written by hand: then only
             groups and shapes are checked
    """

    arrays: dict[str, IntArray]
    report: dict[str, Any] = field(default_factory=dict)
    origin: Origin = UNKNOWN

    def __post_init__(self) -> None:
        """Groups in one order, whether they were matched now or read from a file."""
        report = {
            k: in_order(v) if k in _BY_GROUP and isinstance(v, dict) else v for k, v in self.report.items()
        }
        object.__setattr__(self, "arrays", in_order(self.arrays))
        object.__setattr__(self, "report", report)

    def __getitem__(self, group: str) -> IntArray:
        return self.arrays[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __contains__(self, group: object) -> bool:
        return group in self.arrays

    def keys(self) -> KeysView[str]:
        return self.arrays.keys()

    def values(self) -> ValuesView[IntArray]:
        return self.arrays.values()

    def items(self) -> ItemsView[str, IntArray]:
        return self.arrays.items()

    def __eq__(self, other: object) -> bool:
        """The same orders of the same groups, of the same plan and weights; whatever their reports say."""
        if not isinstance(other, Permutations):
            return NotImplemented
        return self.origin == other.origin and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.origin, self.digest))

    def __repr__(self) -> str:
        moved, units = self._moved(), sum(array.size for array in self.arrays.values())
        return f"Permutations({len(self)} groups, {moved:,} of {units:,} units move)"

    def _moved(self, name: str | None = None) -> int:
        arrays = self.arrays.values() if name is None else [self.arrays[name]]
        return sum(int((a != np.arange(a.shape[-1])).sum()) for a in arrays if a.ndim)

    def _repr_html_(self) -> str:
        matched = self.report.get("groups", {})
        rows = (
            (name, " × ".join(map(str, a.shape)), self._moved(name), *_matched(matched.get(name, {})))
            for name, a in self.arrays.items()
        )
        head = ("group", "shape", "units that move", "matched", "in place", "shuffled")
        return html_table(repr(self), head, rows, len(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the index arrays, 32 hex digits."""
        digest = hashlib.sha256()
        for name in sorted(self):
            array = np.ascontiguousarray(self[name], dtype="<i8")
            digest.update(f"{name}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()[:32]

    def inverse(self, spec: PermSpec) -> Permutations:
        """The permutations that undo these, of the same plan.

        For a nested group, slot (k, i) receives unit (p[k], s[k, i]); undone, slot (p[k], s[k, i]) receives
        (k, i): the inner row of slot j is the inverse of row p⁻¹[j].
        """
        undone = {}
        for name, array in self.arrays.items():
            chain = list(spec.by_name[name].ancestors)
            inverse = np.argsort(array, axis=-1)
            undone[name] = inverse[source_slots(spec, chain, self, inverted=True)] if chain else inverse
        return Permutations(undone, origin=Origin(self.origin.plan, self.origin.architecture))

    def then(self, following: Permutations, spec: PermSpec) -> Permutations:
        """The permutations that do what these do, and then what `following` do, of the same plan.

        Slot (k, i) receives from `following` what is in slot (p[k], s[k, i]), and that came from where these say.
        """
        done = dict(self.arrays)
        for name in following:
            chain = [*spec.by_name[name].ancestors, name]
            held = self.arrays.get(name)
            slots = source_slots(spec, chain, following)
            done[name] = slots[-1] if held is None else held[slots]
        for name in self.arrays.keys() - following.arrays.keys():
            chain = list(spec.by_name[name].ancestors)
            if chain:  # what is in a slot moves with the slot
                done[name] = self.arrays[name][source_slots(spec, chain, following)]
        return Permutations(done, origin=Origin(self.origin.plan, self.origin.architecture))

    def only(self, groups: Iterable[str]) -> Permutations:
        """These, for some of the groups. A part belongs to no plan: give it to any that selects those groups."""
        chosen = set(groups)
        arrays = {name: array for name, array in self.arrays.items() if name in chosen}
        return self if len(arrays) == len(self) else Permutations(arrays, self.report)

    def to_bytes(self) -> bytes:
        """A safetensors file with one int64 array per group; equal permutations give equal bytes."""
        arrays = {n: a.astype(np.int64) if a.dtype.kind in "iu" else a for n, a in self.arrays.items()}
        return save_arrays("permutations", FORMAT, Header(self.report, self.origin), arrays)

    def save(self, path: str | Path, force: bool = True) -> None:
        """Write `to_bytes` to a file, whole or not at all; `force` replaces what is there. Raises FileError."""
        write_bytes(self.to_bytes(), path, force)

    @classmethod
    def load(cls, path: str | Path) -> Permutations:
        """Read what `save` wrote. Raises FileError."""
        header, arrays = load_arrays(path, "permutations", FORMAT, Header, "match")
        for name, array in arrays.items():
            if array.dtype != np.int64:
                raise FileError(
                    f"{path}: {name!r} is not an array of integers of 64 bits, but of {array.dtype}."
                )
        try:
            check_report(header.report)
        except Mismatch as error:
            raise FileError(f"{path}: {error}. Match again.") from error
        return cls(arrays, header.report, header.origin)


def _matched(row: dict[str, Any]) -> list[str]:
    """Correlations of a report, "" where they were not measured."""
    known = [row.get(key) for key in ("correlation", "identity", "shuffled")]
    return [f"{value:.3f}" if isinstance(value, (int, float)) else "" for value in known]


@dataclass(frozen=True)
class Header:
    """What a file of permutations says beside its arrays."""

    report: dict[str, Any]
    origin: Origin


def source_slots(
    spec: PermSpec, layout: Sequence[str], perms: Permutations, inverted: bool = False
) -> tuple[IntArray, ...]:
    """For every slot of a layout, the unit that comes to it: one coordinate array per group of the layout.

    Each array has the shape of the layout's sizes. With `inverted`, the slot that each unit goes to.
    """
    groups = [spec.by_name[name] for name in layout]
    grid = np.indices(tuple(g.size for g in groups), dtype=np.int64)
    slots = list(grid)
    # Ancestors first, wherever they stand in the layout: undoing a nested group needs theirs undone.
    for axis, group in sorted(enumerate(groups), key=lambda pair: len(pair[1].ancestors)):
        if group.name not in perms.arrays:
            continue
        array = perms.arrays[group.name]
        chain = [layout.index(name) for name in group.ancestors]
        array = np.argsort(array, axis=-1) if inverted else array
        at = tuple(slots[a] if inverted else grid[a] for a in chain)
        slots[axis] = array[at + (grid[axis],)]  # noqa: RUF005
    return tuple(slots)


def random_permutations(plan: Plan, seed: int = 0) -> Permutations:
    """A uniformly random element of the selected groups, nested ones included; the same for the same seed."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for group in plan.groups:
        shape = plan.spec.shape_of(group)
        arrays[group.name] = rng.permuted(np.broadcast_to(np.arange(group.size), shape), axis=-1)
    return Permutations(arrays, origin=plan.origin)
