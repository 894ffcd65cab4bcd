"""Which integer and boolean state tensors a spec follows the values of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from permgraph.ir.spec import Place
from permgraph.ir.trace import Node, Trace
from permgraph.ir.values import values_digest

_WHOLE = ("int", "uint", "bool")


def followed_values(trace: Trace, places: Iterable[Place]) -> dict[str, str]:
    """Tensor → digest of its values, for every one whose values decided what is free.

    Not those of unknown values: what they index is pinned. Not those that move with their channels, and not those that
    only meet activations element by element (masks, counts): there any values do. A tensor with one value throughout
    counts: its channels are free because of that.
    """
    moved = {place.tensor for place in places}
    users: dict[str, list[Node]] = {}
    for node in trace.nodes:
        for name in dict.fromkeys(node.refs()):
            users.setdefault(name, []).append(node)
    return {
        node.options["tensor"]: values_digest(node.value)
        for node in trace.nodes
        if node.op == "state"
        and node.value is not None
        and _whole(node)
        and node.options["tensor"] not in moved
        if _uniform(node) or not _element_by_element(node, users)
    }


def _whole(node: Node) -> bool:
    return bool(node.results) and node.results[0] is not None and node.results[0].dtype.startswith(_WHOLE)


def _uniform(node: Node) -> bool:
    values = np.asarray(node.value)
    return bool(values.size and (values == values.flat[0]).all())


def _element_by_element(node: Node, users: dict[str, list[Node]]) -> bool:
    """Whether the values end in activations, by ops that work on one element at a time."""
    return all(
        user.pointwise and (not _whole(user) or _element_by_element(user, users))
        for user in users.get(node.name, ())
    )
