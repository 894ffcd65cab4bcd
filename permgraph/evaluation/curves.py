"""Curves over the weight of A, of a table whose rows are named by it: merged-0.90, aligned cnn+ffn 0.7."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from permgraph.errors import UsageError
from permgraph.evaluation.scoring import floors_of, named
from permgraph.evaluation.tables import Table

_WEIGHTED = re.compile(r"(?P<family>.*?)[ _=-]*(?P<weight>[01]\.[0-9]+)")


@dataclass(frozen=True)
class Curves:
    """Of one domain, means over its tasks.

    tasks     of the domain that all rows have, and where more is better
    families  name → (λ, mean) in order of λ; with two parents they end at B (0) and A (1)
    baseline  the strongest log-mel baseline's name and mean; None where there is none
    """

    domain: str
    tasks: tuple[str, ...]
    families: Mapping[str, tuple[tuple[float, float], ...]]
    baseline: tuple[str, float] | None


def curves(
    table: Table, parents: Sequence[str] = (), baseline: Sequence[str] = (), lower: Sequence[str] = ()
) -> list[Curves]:
    """One for each domain, "all" where the table knows none. Raises UsageError where no rows are named by weights, two rows
    are one point, or no task can be drawn."""
    parents = named(parents, table.encoders, "--parents")
    floors = floors_of(table, baseline)
    errors = {*named(lower, table.tasks, "--lower"), *table.lower}
    families = _families([name for name in table.encoders if name not in {*parents, *floors}])
    names = [*parents, *(row for rows in families.values() for row in rows.values())]
    found = []
    for domain in dict.fromkeys(table.domains[task] for task in table.tasks):
        tasks = tuple(
            t
            for t in table.tasks
            if table.domains[t] == domain and t not in errors and all((n, t) in table.values for n in names)
        )
        if tasks:
            found.append(_of_domain(table, domain or "all", tasks, families, parents, floors))
    if not found:
        raise UsageError(
            f"--figures draws tasks where more is better, and of none has the table all of {', '.join(names)}."
        )
    return found


def _families(encoders: Sequence[str]) -> dict[str, dict[float, str]]:
    """Family → weight of A → row. Of two rows for one point, one would hide the other."""
    families: dict[str, dict[float, str]] = {}
    for name in encoders:
        match = _WEIGHTED.fullmatch(name)
        if match and 0 <= (weight := float(match["weight"])) <= 1:
            other = families.setdefault(match["family"], {}).setdefault(weight, name)
            if other != name:
                raise UsageError(
                    f"--figures: {other} and {name} are both {match['family'] or 'a row'} at the weight {weight:g}. Give one of them another name."
                )
    families = {family: rows for family, rows in families.items() if len(rows) > 1}
    if not families:
        raise UsageError(
            "--figures draws curves over the weight of A, and no two rows of the table are named by one: NAME-0.9, NAME-0.5."
        )
    return families


def _ends(table: Table, family: str, parents: Sequence[str], tasks: Sequence[str]) -> dict[float, str]:
    """A and B; of a family that is marked by a prime (aligned' 0.5), those that are marked so, too: another pair."""
    mark = "'" * family.endswith("'")
    pair = [name + mark for name in parents]
    known = all((name, task) in table.values for name in pair for task in tasks)
    return {1.0: pair[0], 0.0: pair[1]} if len(pair) == 2 and known else {}


def _of_domain(
    table: Table,
    domain: str,
    tasks: tuple[str, ...],
    families: Mapping[str, Mapping[float, str]],
    parents: Sequence[str],
    floors: Sequence[str],
) -> Curves:
    def mean(name: str) -> float:
        return sum(table.values[name, task] for task in tasks) / len(tasks)

    drawn = {
        family: tuple(
            sorted(
                (weight, mean(name))
                for weight, name in {**_ends(table, family, parents, tasks), **rows}.items()
            )
        )
        for family, rows in families.items()
    }
    whole = [n for n in floors if all((n, t) in table.values for t in tasks)]
    strongest = max(((n, mean(n)) for n in whole), key=lambda pair: pair[1], default=None)
    return Curves(domain, tasks, drawn, strongest)
