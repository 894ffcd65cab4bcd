"""Random values: which groups meet values that the network draws while it runs.

A random value has no unit of its own: a mask drawn over the channels of a layer does not move along with them. Where
values are drawn independently, as by dropout and by added noise, re-ordering the channels keeps the distribution of the
outputs, and their values for equal draws; that is what a spec promises there, and it says so.
"""

from __future__ import annotations

from permgraph.axes.propagation import Propagation
from permgraph.ir.trace import Node, Trace
from permgraph.symmetry.coloured_graph import Classes
from permgraph.symmetry.layout import Addresses


def random_notes(
    trace: Trace,
    context: Propagation,
    classes: Classes,
    addresses: Addresses,
    names: dict[int, tuple[str, str, str]],
) -> tuple[str, ...]:
    """A sentence for every op that draws random values, with the groups whose units its values meet."""
    met: dict[str, dict[str, None]] = {}
    drawing = {name: trace.by_name[name].op for name in trace.random}
    for node in trace.nodes if drawing else ():
        for op in _drawn(node, drawing):
            groups = met.setdefault(op, {})
            for array in context.results[node.name].arrays if node.name in context.results else ():
                for layout, _ in addresses.layouts(classes.of[array.labels.ravel()]):
                    groups |= {names[key][0]: None for key in layout if key in names}
    return tuple(_sentence(op, list(groups)) for op, groups in met.items())


def _drawn(node: Node, drawing: dict[str, str]) -> set[str]:
    """The random ops whose values a node makes, or reads one by one."""
    if node.name in drawing:
        return {drawing[node.name]}
    return {drawing[ref] for ref in node.refs() if ref in drawing} if node.pointwise else set()


def _sentence(op: str, groups: list[str]) -> str:
    said = f"{op} draws random values"
    if not groups:
        return f"{said}, and what they meet is held in order"
    shown = ", ".join(groups[:8]) + (f" and {len(groups) - 8} more" if len(groups) > 8 else "")
    return f"{said}, which meet {shown}: there the function is kept in distribution, and for equal values"
