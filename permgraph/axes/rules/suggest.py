"""Suggest: for an op without a rule, a row to start from.

Axes of one size get one name, and every axis is ordered (`!`), which is always true and pins them all. Whoever
knows the op takes `!` off the axes whose order does not matter to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from string import ascii_lowercase

from permgraph.axes.rules.rule import flat
from permgraph.ir.trace import Node, Ref, Shape, Trace


def suggest_row(trace: Trace, node: Node) -> str:
    """A line of Python that gives the op a rule: register("lib.op", "!a !b, !b -> !a !b")."""
    op = node.op.removeprefix("aten.").rpartition(".")[0] or node.op
    given = {name: list(flat([value])) for name, value in node.operands.items()}
    present = [name for name, values in given.items() if any(values)]
    named = present != list(given)[: len(present)]  # one before them is absent: say which is meant
    refs = [ref for name in present for ref in given[name]]
    names: dict[int, str] = {}
    terms = [_term(trace.by_name[r.node].shape, names) if isinstance(r, Ref) else "?" for r in refs]
    text = f"{', '.join(terms)} -> {_term(node.shape, names)}"
    return f'register("{op}", "{text}"' + "".join(f', "{name}"' for name in present if named) + ")"


def _term(shape: Shape, names: dict[int, str]) -> str:
    used: set[str] = set()
    term = []
    for size in shape:
        name = names.get(size)
        if name is None or name in used:  # the second axis of one size is an axis of its own
            name = next(x for x in _names() if x not in used and x not in names.values())
            names.setdefault(size, name)
        used.add(name)
        term.append(f"!{name}")
    return " ".join(term)


def _names() -> Iterator[str]:
    yield from ascii_lowercase
    yield from (f"a{i}" for i in count())
