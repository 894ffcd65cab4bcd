"""What `permgraph trace` prints: the groups of a network, and what pins the rest.

name        role   symmetry                copies  tensors
cnn.0-6     cnn    S512                         7      2-4
heads.0-11  heads  S12 ≀ (S64 qk × S64 v)      12        7
ffn.0-11    ffn    S3072                       12        3

An *elementary* group is one symmetric group; a *composite* group is an outermost one with all that lives within it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from permgraph.ir.spec import Group, PermSpec
from permgraph.reporting.columns import paragraphs, table
from permgraph.reporting.notes import notes
from permgraph.reporting.text import clean, fold_names, listed

_HEAD = ("name", "role", "symmetry", "copies", "tensors", "units produced by")


@dataclass(frozen=True)
class Row:
    """Groups with equal structure and consecutive numbers.

    name      "ffn.0-11"
    role      of the outermost group
    symmetry  of one copy: "S12 ≀ (S64 qk × S64 v)"
    groups    outermost groups of all copies, in order
    tensors   number of tensors that one copy touches: least and most
    """

    name: str
    role: str
    symmetry: str
    groups: tuple[Group, ...]
    tensors: tuple[int, int]

    @property
    def copies(self) -> int:
        return len(self.groups)

    @property
    def modules(self) -> str:
        """Modules that produce the units, folded."""
        return listed(fold_names(g.module for g in self.groups if g.module), 2)

    def cells(self) -> tuple[str, ...]:
        least, most = self.tensors
        tensors = f"{least}" if least == most else f"{least}-{most}"
        return (clean(self.name), clean(self.role), self.symmetry, str(self.copies), tensors, self.modules)


def symmetry(spec: PermSpec, group: Group) -> str:
    """The group and what lives within it, as a wreath product: "S512", "S12 ≀ (S64 qk × S64 v)"."""
    inner = [g for g in spec.groups if g.within == group.name]
    if not inner:
        return f"S{group.size}"
    if len(inner) == 1 and not _within(spec, inner[0]):
        return f"S{group.size} ≀ {symmetry(spec, inner[0])}"
    factors = [_factor(spec, g) for g in inner]
    return f"S{group.size} ≀ ({' × '.join(factors)})"


def _factor(spec: PermSpec, group: Group) -> str:
    label = clean(group.role.rpartition("/")[2], 24)
    text = symmetry(spec, group)
    return f"({text}) {label}" if " " in text else f"{text} {label}"


def _within(spec: PermSpec, group: Group) -> list[Group]:
    return [g for g in spec.groups if g.within == group.name]


def family(spec: PermSpec, group: Group) -> tuple[Group, ...]:
    """The group and all that lives within it, at any depth."""
    found = [group]
    for parent in found:
        found.extend(_within(spec, parent))
    return tuple(found)


def rows(spec: PermSpec, unfold: bool = False) -> list[Row]:
    """The outermost groups; consecutive ones of a role with the same symmetry share a row, unless unfolded."""
    runs: dict[str, list[list[Group]]] = {}
    order: list[list[Group]] = []
    for group in (g for g in spec.groups if not g.ancestors):
        last = runs.setdefault(group.role, [])
        if last and not unfold and _follows(spec, last[-1][-1], group):
            last[-1].append(group)
        else:
            last.append([group])
            order.append(last[-1])
    return [_row(spec, tuple(run)) for run in order]


def _follows(spec: PermSpec, before: Group, group: Group) -> bool:
    numbers = before.name.rpartition(".")[2], group.name.rpartition(".")[2]
    if not all(n.isdecimal() for n in numbers) or int(numbers[1]) != int(numbers[0]) + 1:
        return False
    return symmetry(spec, before) == symmetry(spec, group)


def _row(spec: PermSpec, run: tuple[Group, ...]) -> Row:
    counts = [len({p.tensor for g in family(spec, group) for p in g.places}) for group in run]
    name = fold_names(g.name for g in run)[0]
    return Row(name, run[0].role, symmetry(spec, run[0]), run, (min(counts), max(counts)))


def spec_text(spec: PermSpec, unfold: bool = False, width: int | None = None) -> str:
    """The table of groups with the notes below. With `unfold`, a row for every composite group."""
    if not spec.groups:
        return "\n".join(paragraphs([f"{clean(spec.model)} has no permutation group.", *notes(spec)], width))
    cells = [_HEAD, *(row.cells() for row in rows(spec, unfold))]
    shown = table(cells, right=(3, 4), below=5, width=width)
    return "\n".join([*shown, "", *paragraphs([f"{counts(spec)}.", *notes(spec)], width)])


def counts(spec: PermSpec, selected: Iterable[str] | None = None) -> str:
    """How many groups, and which kind is counted: "31 composite groups of 55 elementary groups"."""
    outer = {name: (spec.by_name[name].ancestors or (name,))[0] for name in spec.by_name}
    every, outermost = len(outer), len(set(outer.values()))
    if selected is None:
        return f"{_number(outermost, 'composite group')} of {_number(every, 'elementary group')}"
    chosen = list(selected)
    return (
        f"{len(chosen)} of {_number(every, 'elementary group')} selected, "
        f"in {len({outer[name] for name in chosen})} of {_number(outermost, 'composite group')}"
    )


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def layout_text(spec: PermSpec, layout: Iterable[str]) -> str:
    """The factors of an axis, slowest first: "heads 12 × v 64"."""
    groups = [spec.by_name[name] for name in layout]
    return " × ".join(f"{clean(g.role.rpartition('/')[2], 24)} {g.size}" for g in groups)
