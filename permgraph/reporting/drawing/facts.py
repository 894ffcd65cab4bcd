"""What is shown on hovering: a box's module, its tensors, its steps, why it is pinned; the groups on a wire."""

from __future__ import annotations

from collections.abc import Iterable

from permgraph.ir.spec import PermSpec
from permgraph.reporting.drawing.graph import WHOLE, Box, Layout, Wire
from permgraph.reporting.text import clean, fold_names


def of_box(box: Box) -> str:
    return "\n".join(clean(line, 300) for line in _lines(box))


def _lines(box: Box) -> Iterable[str]:
    yield f"{box.module or box.name}: {box.op}"
    for step in box.steps[:8]:
        axis = "" if step.axis == WHOLE else f"[{step.axis}]"
        yield f"{step.side} {step.tensor}{axis}: {', '.join(step.layout)}"
    touched = {step.tensor for step in box.steps}
    yield from [t for t in box.tensors if t not in touched][:4]
    for pin in box.pins[:6]:
        yield f"{pin.tensor}[{pin.axis}]: {pin.count} pinned by {pin.reason}"


def of_wire(wire: Wire, spec: PermSpec) -> str:
    if wire.layouts:
        return clean(carried(wire.layouts, spec), 300)
    return clean(f"pinned by {', '.join(wire.reasons[:3])}" if wire.reasons else "no group lives here", 300)


def carried(layouts: Iterable[Layout], spec: PermSpec) -> str:
    """Names and sizes of the groups on a wire: "heads.0-11/v  12 × 64"."""
    ordered = sorted(layouts)
    innermost = [n for layout in ordered for n in layout if not _holds(n, layout, spec)]
    names = ", ".join(fold_names(innermost))
    sizes = (tuple(spec.by_name[n].size for n in layout) for layout in ordered)
    return f"{names}  {', '.join(' × '.join(map(str, size)) for size in dict.fromkeys(sizes))}"


def _holds(name: str, layout: Layout, spec: PermSpec) -> bool:
    return any(spec.by_name[other].within == name for other in layout)
