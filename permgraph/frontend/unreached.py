"""Unreached: weights that a run did not read because the data decided its path, as those of experts without tokens.

Another input may reach them. They are no part of the trace, so no plan moves them, and what they would share with
others must stay in order. Most take the place of weights that were read, as experts.3.up.weight that of
experts.2.up.weight: those are pinned. Where there are none, all that the nearest module around them read is pinned.
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
    held = dict.fromkeys(at[name] for tensor in missing for name in _beside(tensor, at, state))
    node = node_of("unreached", "permgraph.unreached.default", (tuple(map(Ref, held)),), results=_ANSWER)
    names = [t.name for t in missing]
    notes.append(
        f"the example does not reach {', '.join(names[:5])}{', …' if len(names) > 5 else ''}: what they would share"
        " with other weights is in order; an example that reaches them sets it free"
    )
    return [*nodes[:-1], node, nodes[-1]], tuple(notes)


_ANSWER = (TensorMeta((), "bool"),)


def _beside(tensor: StateTensor, at: dict[str, str], state: dict[str, StateTensor]) -> list[str]:
    """Names of weights that were read and that a tensor could take the place of, or stand beside."""
    for pattern in _patterns(tensor.name):
        alike = [n for n in at if state[n].shape == tensor.shape and re.fullmatch(pattern, n)]
        if alike:
            return alike
    module = tensor.name
    while module:
        module = module.rpartition(".")[0]
        around = [n for n in at if n.startswith(f"{module}." if module else "")]
        if around:
            return around
    return []


def _patterns(name: str) -> Iterator[str]:
    """The names that differ from this one in one number, the innermost first."""
    parts = name.split(".")
    for i in reversed(range(len(parts))):
        if parts[i].isdigit():
            yield r"\.".join([*map(re.escape, parts[:i]), r"\d+", *map(re.escape, parts[i + 1 :])])
