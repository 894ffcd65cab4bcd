"""Modes that do not keep the function, for comparison with the literature: they say which ties they break.

exact      every place of a group moves: a symmetry, the function is kept
one-sided  only the consumer side moves, as in the paper's released code
untied     q, k and v each get a permutation of their own (the paper's "all")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from permgraph.errors import UsageError, nearest
from permgraph.ir.check_plan import MODES
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place, Positions, Probe


def with_mode(plan: Plan, mode: str) -> Plan:
    """The plan in another mode. Raises UsageError for a mode that does not exist."""
    if mode not in MODES:
        raise UsageError(f"--mode {mode}: no such mode.{nearest(mode, MODES)} Modes: {', '.join(MODES)}.")
    if mode == "exact":
        return plan
    if mode == "one-sided":
        return replace(plan, mode=mode, broken=tuple(_one_sided(plan)))
    return _untied(plan)


def _one_sided(plan: Plan) -> list[str]:
    broken = []
    for group in plan.groups:
        left = [p for p in plan.steps if group.name in p.layout and p.side != "un-permute"]
        if left:
            names = ", ".join(f"{p.tensor}[{p.axis}]" for p in left)
            broken.append(f"{group.name}: {names} stay as they are while their consumers move")
    return broken


def _untied(plan: Plan) -> Plan:
    """Every selected qk group is split: each tensor that makes queries or keys gets its own order."""
    spec, selected, broken = plan.spec, list(plan.selected), []
    for group in plan.groups:
        if group.role not in ("heads/qk", "qk"):
            continue
        parts = _parts(group)
        if len(parts) < 2:
            continue
        spec, names = _split(spec, group, parts)
        selected = [n for n in selected if n != group.name] + names
        made = " and ".join(
            sorted(
                {
                    p.tensor.removesuffix(".weight")
                    for part in parts
                    for p in part
                    if p.tensor.endswith("weight")
                }
            )
        )
        broken.append(
            f"{group.name}: {made or group.module} are contracted with each other and move separately"
        )
    return replace(plan, spec=spec, selected=tuple(selected), mode="untied", broken=tuple(broken))


def _parts(group: Group) -> list[list[Place]]:
    """Places by what they make: the same node, and the same slot of a fused projection."""
    parts: dict[tuple[str, int], list[Place]] = {}
    for place in group.places:
        at = place.positions.array()
        for slot in range(at.shape[-1]):
            one = replace(place, positions=Positions.of(at[..., slot : slot + 1]))
            parts.setdefault((place.node, slot), []).append(one)
    return list(parts.values())


def _split(spec: PermSpec, group: Group, parts: list[list[Place]]) -> tuple[PermSpec, list[str]]:
    """Replace a group by one per part, in the groups, the places and the probes."""
    names = [f"{group.name}@{letter}" for letter in ("q", "k", *map(str, range(2, len(parts))))][: len(parts)]
    nodes = {name: {place.node for place in part} for name, part in zip(names, parts, strict=True)}

    def renamed(layout: tuple[str, ...], name: str) -> tuple[str, ...]:
        return tuple(name if g == group.name else g for g in layout)

    def seen(probe: Probe) -> Iterator[Probe]:
        """A probe shows the parts whose places its node holds; elsewhere they cannot be told from each other."""
        if group.name not in probe.layout:
            yield probe
            return
        for name in names:
            if probe.node in nodes[name]:
                yield replace(probe, layout=renamed(probe.layout, name))

    places = [p for p in spec.places if group.name not in p.layout]
    for name, part in zip(names, parts, strict=True):
        places += [replace(p, layout=renamed(p.layout, name)) for p in part]
    order = {p.tensor: i for i, p in reversed(list(enumerate(spec.places)))}
    places.sort(key=lambda p: order[p.tensor])
    groups: list[Group] = []
    for g in spec.groups:
        probes = tuple(new for probe in g.probes for new in seen(probe))
        if g.name == group.name:
            groups += [replace(g, name=n, probes=tuple(p for p in probes if n in p.layout)) for n in names]
        else:
            groups.append(replace(g, probes=probes))
    return replace(spec, groups=tuple(groups), places=tuple(places)).completed(), names
