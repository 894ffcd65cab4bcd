"""Beside: tensors that the traced network never reads, but that may lie on an axis of a group.

`masked_spec_embed` is read in training only. When the residual stream moves, it has to move with it, and the
graph cannot tell. So it is reported beside every group whose units fill an axis of just that size.
"""

from __future__ import annotations

from math import prod

from permgraph.ir.spec import PermSpec

STREAMS = ("residual", "embed", "channels")  # roles of groups that run through many modules


def beside(spec: PermSpec) -> dict[str, tuple[str, ...]]:
    """Axis of an unused tensor, "masked_spec_embed[0]" → the (outermost) groups it may belong to."""
    found: dict[str, tuple[str, ...]] = {}
    for name in spec.unused:
        for axis, size in enumerate(spec.tensors.get(name, ())):
            groups = dict.fromkeys(
                place.layout[0]
                for place in spec.places
                if spec.by_name[place.layout[0]].role in STREAMS and prod(place.positions.shape) == size > 1
            )
            if groups:
                found[f"{name}[{axis}]"] = tuple(groups)
    return found


def out_of_step(spec: PermSpec, selected: tuple[str, ...]) -> list[str]:
    """A line for every unused axis beside a group that moves."""
    lines = []
    for axis, groups in beside(spec).items():
        moving = [g for g in groups if any(s == g or s.startswith(f"{g}/") for s in selected)]
        if moving:
            lines.append(
                f"{axis} is not read by the traced network and stays as it is. If it lies on the axis of "
                f"{', '.join(moving)} (a mask embedding of training), permute it likewise or train it anew."
            )
    return lines
