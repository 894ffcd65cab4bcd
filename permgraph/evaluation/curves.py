"""Curves over the weight of A, of a table whose rows are named by it: merged-0.90, aligned cnn+ffn 0.7."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from permgraph.errors import UsageError
from permgraph.evaluation.scoring import is_baseline
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


def curves(table: Table, parents: Sequence[str] = ()) -> list[Curves]:
    """One for each domain, "all" where the table knows none. Raises UsageError where no rows are named by weights."""
    families: dict[str, dict[float, str]] = {}
    for name in table.encoders:
        match = _WEIGHTED.fullmatch(name)
        if match and 0 <= float(match["weight"]) <= 1:
            families.setdefault(match["family"], {})[float(match["weight"])] = name
    families = {family: rows for family, rows in families.items() if len(rows) > 1}
    if not families:
        raise UsageError(
            "--figures draws curves over the weight of A, and no two rows of the table are named by one: NAME-0.9, NAME-0.5."
        )
    names = [*parents, *(row for rows in families.values() for row in rows.values())]
    found = []
    for domain in dict.fromkeys(table.domains[task] for task in table.tasks):
        tasks = tuple(
            t
            for t in table.tasks
            if table.domains[t] == domain
            and t not in table.lower
            and all((n, t) in table.values for n in names)
        )
        if tasks:
            found.append(_of_domain(table, domain or "all", tasks, families, parents))
    return found


def _of_domain(
    table: Table,
    domain: str,
    tasks: tuple[str, ...],
    families: Mapping[str, Mapping[float, str]],
    parents: Sequence[str],
) -> Curves:
    def mean(name: str) -> float:
        return sum(table.values[name, task] for task in tasks) / len(tasks)

    ends = {1.0: parents[0], 0.0: parents[1]} if len(parents) == 2 else {}
    drawn = {
        family: tuple(sorted((weight, mean(name)) for weight, name in {**ends, **rows}.items()))
        for family, rows in families.items()
    }
    floors = [n for n in table.encoders if is_baseline(n) and all((n, t) in table.values for t in tasks)]
    baseline = max(((n, mean(n)) for n in floors), key=lambda pair: pair[1], default=None)
    return Curves(domain, tasks, drawn, baseline)
