"""Probes: for each selected group, the graph nodes where its units are observed.

After the paper, III-B: heads and value channels on the features entering W_O, `ffn2` entering W2, `ffn1`
leaving W1, the front end after the norm where a convolution has one and after the convolution elsewhere, queries
and keys before their product. Units of a recurrent layer are observed as its hidden states at every step, layer by
layer and direction by direction. Other groups are observed wherever they are consumed. Of these places those count where
no units of other groups lie beside them; if they do everywhere, values are sorted along those (`Probe.pooled`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from permgraph.errors import MatchError
from permgraph.ir.moments import Layout
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Probe

# Whose probes decide the order of a parent, by role: the paper orders heads by the features entering W_O (III-C).
# The q and k channels follow inside the heads so aligned, and say nothing about the order of the heads.
DECIDING = {"heads": "heads/v"}


def choose_probes(plan: Plan) -> dict[str, Probe]:
    """Key → probe, for all selected groups; the key is unique and says what is observed where."""
    chosen: dict[str, Probe] = {}
    for group in plan.groups:
        for probe in _of_group(plan, group):
            chosen.setdefault(f"{'·'.join(probe.layout)} {probe.when} {probe.module} {probe.node}", probe)
    return chosen


def families(layouts: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Keys of probes, those that share a group together: they are matched together, others apart.

    layouts   key → the groups that the probe shows
    """
    found: list[tuple[set[str], list[str]]] = []
    for key in sorted(layouts):
        groups, keys = set(layouts[key]), [key]
        for other in [f for f in found if f[0] & groups]:
            found.remove(other)
            groups, keys = groups | other[0], other[1] + keys
        found.append((groups, keys))
    return [sorted(keys) for _, keys in found]


def layout_of(spec: PermSpec, probe: Probe) -> Layout:
    return Layout(probe.layout, tuple(spec.by_name[name].size for name in probe.layout))


def in_front_end(spec: PermSpec, probe: Probe) -> bool:
    """Whether a probe sees channels of convolutions alone."""
    return all(spec.by_name[name].role.partition("/")[0] == "cnn" for name in probe.layout)


def unobserved(spec: PermSpec) -> list[str]:
    """Groups whose units no activation holds: they cannot be matched from activations."""
    held = {name for group in spec.groups for probe in group.probes for name in probe.layout}
    return [group.name for group in spec.groups if group.name not in held]


def refuse_unobserved(plan: Plan) -> None:
    """Raises MatchError when the units of a selected group cannot be observed, and says why."""
    names = [name for name in unobserved(plan.spec) if name in plan.selected]
    if names:
        tensors = ", ".join(dict.fromkeys(p.tensor for p in plan.spec.by_name[names[0]].places))
        raise MatchError(
            f"the units of {', '.join(names)} cannot be matched from activations: no activation of the network holds "
            f"them ({tensors}: they are summed over between weights, or inside an op that does not return them, or lie "
            f"in several branches or slices that see inputs of their own). Leave them in order (-x {','.join(names)}), or match the networks by "
            "their weights (--matcher weights)."
        )


def refuse_unvisited(plan: Plan, seen: Collection[str], wanted: Collection[str] | None = None) -> None:
    """Raises MatchError when no probe of a selected group was reached by both models.

    seen     keys of probes that were
    wanted   keys of probes that were to be; all when not given
    """
    chosen = choose_probes(plan)
    reached = {name for key in seen for name in chosen[key].layout}
    looked_for = {name for key in (chosen if wanted is None else wanted) for name in chosen[key].layout}
    for group in plan.groups:
        if group.name in looked_for - reached:
            nodes = ", ".join(p.node for p in chosen.values() if group.name in p.layout)
            raise MatchError(
                f"group {group.name!r} was never observed: {nodes} ran in no batch in both models (a branch that is "
                f"not taken, a loop without a turn). Calibrate on other inputs, or leave it in order: -x {group.name}."
            )


def _of_group(plan: Plan, group: Group) -> list[Probe]:
    carrying = [p for g in plan.spec.groups for p in g.probes if group.name in p.layout]
    own = [p for p in carrying if p.layout[-1] == group.name] or deciding_probes(plan.spec, group, carrying)
    wanted = plan.taps.get(group.name)
    if wanted is None and group.role.partition("/")[0] == "cnn":
        return _after_convolution(own)
    for when in (wanted, "state", "entering", "leaving", "normed"):
        found = [p for p in own if p.when == when]
        if found:
            return found
    return []


def deciding_probes(spec: PermSpec, group: Group, probes: list[Probe]) -> list[Probe]:
    """Of the probes that carry a parent group, those that decide its order; all where none is singled out."""
    return [p for p in probes if decides(spec, group, p.layout, DECIDING)] or probes


def decides(spec: PermSpec, group: Group, layout: Iterable[str], deciding: Mapping[str, str]) -> bool:
    """Whether a probe with this layout decides the order of a group: it reaches into a group of the deciding role."""
    return any(spec.by_name[name].role == deciding.get(group.role) for name in layout)


def _after_convolution(probes: list[Probe]) -> list[Probe]:
    """After the norm that belongs to the convolution (same block), else after the convolution itself."""
    leaving = [p for p in probes if p.when == "leaving"]
    blocks = {_block(p.module) for p in leaving}
    normed = [p for p in probes if p.when == "normed" and _block(p.module) in blocks]
    return normed[:1] or leaving or probes[:1]


def _block(module: str) -> str:
    return module.rpartition(".")[0]
