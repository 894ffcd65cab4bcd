"""Modes that do not keep the function, for comparison with the literature: they say which ties they break.

exact       every place of a group moves: a symmetry, the function is kept
one-sided   only the consumer side moves, as in the paper's released code
untied      W_Q and W_K each get an order of their own; W_V and W_O still share theirs
untied-qkv  W_Q, W_K and W_V each get an order of their own, W_O that of the features entering it (the paper, IV-A4: "all")
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
    refuse_unknown_mode(mode)
    if mode == "exact":
        return plan
    if mode == "one-sided":
        return replace(plan, mode=mode, broken=tuple(_one_sided(plan)))
    return _untied(plan, mode)


def refuse_unknown_mode(mode: str) -> None:
    """Raises UsageError for a mode that does not exist."""
    if mode not in MODES:
        raise UsageError(f"--mode {mode}: no such mode.{nearest(mode, MODES)} Modes: {', '.join(MODES)}.")


def _one_sided(plan: Plan) -> list[str]:
    broken = []
    for group in plan.groups:
        left = [p for p in plan.steps if group.name in p.layout and p.side != "un-permute"]
        if left:
            names = ", ".join(f"{p.tensor}[{p.axis}]" for p in left)
            broken.append(f"{group.name}: {names} stay as they are while their consumers move")
    return broken


# Roles that a mode splits, and what their parts are called: first the tensors that make the units, in graph order.
_SPLIT = {"qk": ("q", "k"), "v": ("v", "o")}
_ROLES = {"untied": ("qk",), "untied-qkv": ("qk", "v")}


def _untied(plan: Plan, mode: str) -> Plan:
    """Every selected group of query and key (and value) channels is split: each projection gets its own order."""
    spec, selected, broken = plan.spec, list(plan.selected), []
    for group in plan.groups:
        kind = group.role.removeprefix("heads/")
        if kind not in _ROLES[mode]:
            continue
        parts = _parts(group)
        if len(parts) < 2:
            continue
        spec, names = _split(spec, group, parts, _SPLIT[kind])
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
        broken.append(f"{group.name}: {made or group.module} share these channels and move separately")
    return replace(plan, spec=spec, selected=tuple(selected), mode=mode, broken=tuple(broken))


def _parts(group: Group) -> list[list[Place]]:
    """Places by what they make: the same node, and the same slot of a fused projection."""
    parts: dict[tuple[str, int], list[Place]] = {}
    for place in group.places:
        at = place.positions.array()
        for slot in range(at.shape[-1]):
            one = replace(place, positions=Positions.of(at[..., slot : slot + 1]))
            parts.setdefault((place.node, slot), []).append(one)
    return list(parts.values())


def _split(
    spec: PermSpec, group: Group, parts: list[list[Place]], letters: tuple[str, ...]
) -> tuple[PermSpec, list[str]]:
    """Replace a group by one per part, in the groups, the places and the probes."""
    names = [f"{group.name}@{letter}" for letter in (*letters, *map(str, range(2, len(parts))))][: len(parts)]
    nodes = {name: {place.node for place in part} for name, part in zip(names, parts, strict=True)}
    reading = [n for n, part in zip(names, parts, strict=True) if all(p.side == "un-permute" for p in part)]

    def renamed(layout: tuple[str, ...], name: str) -> tuple[str, ...]:
        return tuple(name if g == group.name else g for g in layout)

    def seen(probe: Probe) -> Iterator[Probe]:
        """A probe shows the parts that its node makes (each in its slot, where one node makes several), or the part
        that reads it; elsewhere they cannot be distinguished."""
        if group.name not in probe.layout:
            yield probe
            return
        here = [name for name in names if probe.node in nodes[name]]
        if not here and probe.when == "entering":
            here = reading
        at = probe.positions.array()
        for slot, name in enumerate(here):
            own = at[..., slot : slot + 1] if len(here) == at.shape[-1] else at
            yield replace(probe, layout=renamed(probe.layout, name), positions=Positions.of(own))

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
