"""Probes: for each selected group, the graph nodes where its units are observed.

After the paper, III-B: heads and value channels on the features entering W_O, `ffn2` entering W2, `ffn1`
leaving W1, the front end after the norm where a convolution has one and after the convolution elsewhere, queries
and keys before their product. Units of a recurrent layer are observed as its hidden states at every step, layer by
layer and direction by direction. Other groups are observed wherever they are consumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def layout_of(spec: PermSpec, probe: Probe) -> Layout:
    return Layout(probe.layout, tuple(spec.by_name[name].size for name in probe.layout))


def unseen(plan: Plan) -> list[str]:
    """Selected groups that no activation carries: they stay in order."""
    return [g.name for g in plan.groups if not _of_group(plan, g)]


def _of_group(plan: Plan, group: Group) -> list[Probe]:
    carrying = [p for g in plan.spec.groups for p in g.probes if group.name in p.layout]
    own = [p for p in carrying if p.layout[-1] == group.name] or deciding_probes(plan.spec, group, carrying)
    wanted = plan.taps.get(group.name)
    if wanted is None and group.role == "cnn":
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
