"""Which integer and boolean state tensors a spec follows the values of."""

from __future__ import annotations

from permgraph.axes.state_labels import elementwise_integers, is_integer
from permgraph.ir.trace import Trace
from permgraph.ir.values import values_digest


def followed_values(trace: Trace) -> dict[str, str]:
    """Tensor → digest of its values, for every one whose values decided what is free.

    Not those of unknown values: what they index is pinned. Not those that only meet activations element by element
    (masks, counts): they move with their channels, and any values do.
    """
    elementwise = elementwise_integers(trace)
    return {
        node.options["tensor"]: values_digest(node.value)
        for node in trace.nodes
        if node.op == "state" and node.value is not None and is_integer(node) and node.name not in elementwise
    }
