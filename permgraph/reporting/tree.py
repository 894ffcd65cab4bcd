"""Tree: which groups live within which, repeated layers folded.

hubert: 31 composite groups of 55 elementary groups.
group                symmetry  layers  permutations in each
├─ cnn.0-6           S512           7                     1
├─ heads.0-11        S12           12                     1
│  ├─ heads.0-11/qk  S64           12                    12
│  └─ heads.0-11/v   S64           12                    12
└─ ffn.0-11          S3072         12                     1
"""

from __future__ import annotations

from collections.abc import Iterator

from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec
from permgraph.reporting.columns import paragraphs, table
from permgraph.reporting.tables import counts, rows
from permgraph.reporting.text import clean, fold_names

_HEAD = ("group", "symmetry", "layers", "permutations in each")


def tree_text(
    spec: PermSpec, plan: Plan | None = None, unfold: bool = False, width: int | None = None
) -> str:
    """One line per group, a group below the innermost one it lives within; those that a plan moves are marked *."""
    title = f"{clean(spec.model)}: {counts(spec)}."
    if plan is not None:
        title += f" The plan moves those marked *: {counts(spec, plan.selected)}."
    if not spec.groups:
        return "\n".join(paragraphs([f"{clean(spec.model)} has no permutation group."], width))
    chosen = set(plan.selected) if plan else set[str]()
    runs = [part for row in rows(spec, unfold) for part in _alike(spec, row.groups, chosen)]
    lines = [
        line for i, run in enumerate(runs) for line in _branch(spec, run, "", i == len(runs) - 1, chosen)
    ]
    return "\n".join([*paragraphs([title], width), *table([_HEAD, *lines], right=(2, 3), width=width)])


def _alike(spec: PermSpec, run: tuple[Group, ...], chosen: set[str]) -> Iterator[tuple[Group, ...]]:
    """Parts of a run whose groups are selected alike."""
    part: list[Group] = []
    for group in run:
        if part and _marks(spec, part[-1], chosen) != _marks(spec, group, chosen):
            yield tuple(part)
            part = []
        part.append(group)
    yield tuple(part)


def _marks(spec: PermSpec, group: Group, chosen: set[str]) -> list[bool]:
    return [group.name in chosen, *(m for g in _inner(spec, group) for m in _marks(spec, g, chosen))]


def _inner(spec: PermSpec, group: Group) -> list[Group]:
    return [g for g in spec.groups if g.within == group.name]


def _branch(
    spec: PermSpec, run: tuple[Group, ...], lead: str, last: bool, chosen: set[str]
) -> Iterator[tuple[str, ...]]:
    """The line of equal groups of repeated layers, and the lines of what lives within them."""
    group = run[0]
    mark = " *" if group.name in chosen else ""
    name = clean(fold_names(g.name for g in run)[0])
    yield (
        f"{lead}{'└─ ' if last else '├─ '}{name}{mark}",
        f"S{group.size}",
        str(len(run)),
        f"{group.copies:,}",
    )
    inner = list(zip(*(_inner(spec, g) for g in run), strict=True))
    for i, parts in enumerate(inner):
        yield from _branch(spec, parts, lead + ("   " if last else "│  "), i == len(inner) - 1, chosen)
