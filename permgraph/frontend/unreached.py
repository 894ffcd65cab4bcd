"""Unreached: weights that a run did not read because the data decided its path, as those of experts without tokens.

Another input may reach them. They are no part of the trace, so no plan moves them. Most take the place of weights that
were read, as experts.3.up.weight that of experts.2.up.weight, in one forward even: what those share with others is
pinned. A branch of its own (`self.a(x) if mask.any() else self.b(x)`) is another path through the code: a trace is one
path, and the report says which weights lie on the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from permgraph.frontend.recorder import READ, SCALAR
from permgraph.frontend.schema import node_of
from permgraph.ir.trace import Node, Ref, StateTensor, TensorMeta

_RAN = (
    "captured by running it on the example inputs, since torch.export could not: sizes and branches that its code"
    " takes from tensors are those of the example, and what it reads there is in order"
)


def with_unreached(nodes: list[Node], state: dict[str, StateTensor]) -> tuple[list[Node], tuple[str, ...]]:
    """The nodes of a run, with what it did not reach held in order, and notes for the report."""
    reads = [n for n in nodes if n.op in (READ, SCALAR)]
    places = ", ".join(dict.fromkeys(n.source for n in reads if n.source))
    notes = [f"{_RAN} ({places})" if places else _RAN]
    used = {ref for node in nodes for ref in node.refs()}
    at = {n.options["tensor"]: n.name for n in nodes if n.op == "state" and n.name in used}
    missing = [
        t for t in state.values() if t.name not in at and t.dtype.startswith(("float", "bfloat", "complex"))
    ]
    if not reads or not missing:
        return nodes, tuple(notes)
    alike = {tensor.name: _alike(tensor, at, state) for tensor in missing}
    held = dict.fromkeys(at[name] for names in alike.values() for name in names)
    notes += _told(
        [n for n, found in alike.items() if found],
        "what they would share with other weights is in order, until an example reaches them",
    )
    notes += _told(
        [n for n, found in alike.items() if not found], "a plan keeps the function where they stay unread"
    )
    if not held:
        return nodes, tuple(notes)
    node = node_of("unreached", "permgraph.unreached.default", (tuple(map(Ref, held)),), results=_ANSWER)
    return [*nodes[:-1], node, nodes[-1]], tuple(notes)


def _told(names: list[str], what: str) -> list[str]:
    listed = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    return [f"the example does not reach {listed}: {what}"] if names else []


_ANSWER = (TensorMeta((), "bool"),)


def _alike(tensor: StateTensor, at: dict[str, str], state: dict[str, StateTensor]) -> list[str]:
    """Names of weights that were read and that a tensor could take the place of."""
    for pattern in _patterns(tensor.name):
        alike = [n for n in at if state[n].shape == tensor.shape and re.fullmatch(pattern, n)]
        if alike:
            return alike
    return []


def _patterns(name: str) -> Iterator[str]:
    """The names that differ from this one in one number, the innermost first."""
    parts = name.split(".")
    for i in reversed(range(len(parts))):
        if parts[i].isdigit():
            yield r"\.".join([*map(re.escape, parts[:i]), r"\d+", *map(re.escape, parts[i + 1 :])])
