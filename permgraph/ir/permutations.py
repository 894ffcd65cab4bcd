"""Permutations: by what a plan re-orders each group. Checked, inverted, saved and loaded here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from permgraph.errors import FileError, PlanError, nearest
from permgraph.ir.files import write_bytes
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, IntArray, PermSpec


@dataclass(frozen=True)
class Permutations:
    """One index array per group: `perm[i]` is B's unit that goes to A's slot `i`.

    A group within others has one permutation per slot of its ancestors: `heads.3/v` has shape (12, 64), and
    row k is the order of the channels inside the head that lands in slot k.
    A group that is absent stays in order.
    """

    arrays: dict[str, IntArray]
    report: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, group: str) -> IntArray:
        return self.arrays[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def inverse(self, spec: PermSpec) -> Permutations:
        """The permutations that undo these.

        For a nested group, slot (k, i) receives unit (p[k], s[k, i]); undone, slot (p[k], s[k, i]) receives
        (k, i): the inner row of slot j is the inverse of row p⁻¹[j].
        """
        undone = {}
        for name, array in self.arrays.items():
            chain = [g.name for g in ancestors(spec, spec.by_name[name])]
            inverse = np.argsort(array, axis=-1)
            undone[name] = inverse[source_slots(spec, chain, self, inverted=True)] if chain else inverse
        return Permutations(undone)

    def only(self, groups: Iterable[str]) -> Permutations:
        """These, for some of the groups."""
        chosen = set(groups)
        return Permutations({k: v for k, v in self.arrays.items() if k in chosen}, self.report)

    def to_bytes(self) -> bytes:
        """A safetensors file with one int64 tensor per group; equal permutations give equal bytes."""
        from safetensors.numpy import save

        # safetensors writes several metadata keys in random order, so everything goes under one
        text = json.dumps({"permgraph": "permutations", "report": self.report}, sort_keys=True)
        arrays = {k: np.ascontiguousarray(v, dtype=np.int64) for k, v in sorted(self.arrays.items())}
        return bytes(save(arrays, metadata={"permgraph": text}))

    def save(self, path: str | Path) -> None:
        """Write `to_bytes` to a file, whole or not at all. Raises FileError."""
        write_bytes(self.to_bytes(), path)

    @classmethod
    def load(cls, path: str | Path) -> Permutations:
        """Read what `save` wrote. Raises FileError."""
        from safetensors import safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                text = json.loads((file.metadata() or {}).get("permgraph", "{}"))
                return cls({key: file.get_tensor(key) for key in file.keys()}, text.get("report", {}))  # noqa: SIM118
        except FileNotFoundError as error:
            raise FileError(f"{path}: no such file.") from error
        except Exception as error:
            raise FileError(f"{path}: not a permutation file (safetensors): {error}.") from error


def ancestors(spec: PermSpec, group: Group) -> list[Group]:
    """The groups `group` lives within, outermost first."""
    if group.under:
        return [spec.by_name[name] for name in group.under]
    chain: list[Group] = []
    while group.within is not None:
        group = spec.by_name[group.within]
        chain.insert(0, group)
    return chain


def shape_of(spec: PermSpec, group: Group) -> tuple[int, ...]:
    """Shape of the group's permutation array: sizes of its ancestors, then its own."""
    return (*(g.size for g in ancestors(spec, group)), group.size)


def source_slots(
    spec: PermSpec, layout: list[str], perms: Permutations, inverted: bool = False
) -> tuple[IntArray, ...]:
    """For every slot of a layout, the unit that comes to it: one coordinate array per group of the layout.

    Each array has the shape of the layout's sizes. With `inverted`, the slot that each unit goes to.
    """
    groups = [spec.by_name[name] for name in layout]
    grid = np.indices(tuple(g.size for g in groups), dtype=np.int64)
    slots = list(grid)
    # Ancestors first, wherever they stand in the layout: undoing a nested group needs theirs undone.
    for axis, group in sorted(enumerate(groups), key=lambda pair: len(ancestors(spec, pair[1]))):
        if group.name not in perms.arrays:
            continue
        array = perms.arrays[group.name]
        chain = [layout.index(g.name) for g in ancestors(spec, group)]
        array = np.argsort(array, axis=-1) if inverted else array
        at = tuple(slots[a] if inverted else grid[a] for a in chain)
        slots[axis] = array[at + (grid[axis],)]  # noqa: RUF005
    return tuple(slots)


def check(spec: PermSpec, perms: Permutations) -> None:
    """Refuse anything that is not one bijection per group and slot. Raises PlanError."""
    for name, array in perms.arrays.items():
        if name not in spec.by_name:
            raise PlanError(f"permutation for group {name!r}: no such group.{nearest(name, spec.by_name)}")
        want = shape_of(spec, spec.by_name[name])
        if tuple(array.shape) != want:
            raise PlanError(
                f"permutation for group {name!r}: shape {tuple(array.shape)}, the group needs {want}."
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise PlanError(f"permutation for group {name!r}: dtype {array.dtype}, indices must be integers.")
        rows = np.sort(array.reshape(-1, want[-1]), axis=1)
        bad = np.flatnonzero((rows != np.arange(want[-1])).any(axis=1))
        if bad.size:
            where = f" (slot {int(bad[0])})" if len(want) > 1 else ""
            raise PlanError(
                f"permutation for group {name!r}{where} is not a permutation of 0…{want[-1] - 1}: "
                "every index must appear exactly once."
            )


def random_permutations(plan: Plan, seed: int = 0) -> Permutations:
    """A uniformly random element of the selected groups, nested ones included; the same for the same seed."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for group in plan.groups:
        shape = shape_of(plan.spec, group)
        arrays[group.name] = rng.permuted(np.broadcast_to(np.arange(group.size), shape), axis=-1)
    return Permutations(arrays)
