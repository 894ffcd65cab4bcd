"""Hand-made specs and planted statistics for the tests of matching: no network, no trace."""

from __future__ import annotations

import math

import numpy as np

from permgraph.ir.moments import Layout, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec
from permgraph.ir.sums import Sums
from permgraph.matching.scores import flat_source


def spec_of(*rows: tuple[str, str, int, str | None]) -> PermSpec:
    """A spec from (name, role, size, parent)."""
    sizes = {name: size for name, _, size, _ in rows}
    within: dict[str, tuple[str, ...]] = {}
    for name, _, _, parent in rows:
        within[name] = (*within[parent], parent) if parent else ()
    groups = tuple(
        Group(n, role, size, within[n], math.prod(sizes[w] for w in within[n])) for n, role, size, _ in rows
    )
    return PermSpec("hand-made", "f" * 32, groups, ())


def transformer(heads: int = 4, v: int = 5, qk: int = 6, ffn: int = 9) -> PermSpec:
    """One layer as HuBERT has it: S_heads ≀ (S_qk × S_v), S_ffn, and a cnn."""
    return spec_of(
        ("cnn.0", "cnn", 7, None),
        ("heads.0", "heads", heads, None),
        ("heads.0/qk", "heads/qk", qk, "heads.0"),
        ("heads.0/v", "heads/v", v, "heads.0"),
        ("ffn.0", "ffn", ffn, None),
    )


TRANSFORMER_PROBES = {
    "cnn.0": ("cnn.0",),
    "heads.0/v": ("heads.0", "heads.0/v"),
    "heads.0/qk": ("heads.0", "heads.0/qk"),
    "ffn.0": ("ffn.0",),
}


def grouped_query(kv: int = 3, rep: int = 2, qk: int = 4, v: int = 5) -> PermSpec:
    """S_kv ≀ (S_rep × S_qk × S_v): Llama with grouped-query attention."""
    return spec_of(
        ("heads.0", "heads", kv, None),
        ("heads.0/rep", "heads/rep", rep, "heads.0"),
        ("heads.0/qk", "heads/qk", qk, "heads.0"),
        ("heads.0/v", "heads/v", v, "heads.0"),
    )


GROUPED_QUERY_PROBES = {
    "q": ("heads.0", "heads.0/rep", "heads.0/qk"),
    "k": ("heads.0", "heads.0/qk"),
    "v": ("heads.0", "heads.0/rep", "heads.0/v"),
}


def plan_of(spec: PermSpec, *selected: str) -> Plan:
    return Plan(spec, selected or tuple(g.name for g in spec.groups))


def planted(
    plan: Plan,
    probes: dict[str, tuple[str, ...]],
    perms: Permutations,
    noise: float = 0.3,
    samples: int = 2000,
    seed: int = 0,
    strength: dict[str, float] | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Activations (samples, units) of A, and of a B whose units undo `perms` on A's, plus noise."""
    rng = np.random.default_rng(seed)
    found = {}
    for key, layout in probes.items():
        source = flat_source(plan.spec, layout, perms)
        a = rng.standard_normal((samples, len(source)))
        b = np.empty_like(a)
        b[:, source] = (strength or {}).get(key, 1.0) * a + noise * rng.standard_normal(a.shape)
        found[key] = (a, b)
    return found


def moments_of(
    plan: Plan, probes: dict[str, tuple[str, ...]], data: dict[str, tuple[np.ndarray, np.ndarray]]
) -> Moments:
    """Exact moments, straight from the definition."""
    found = {}
    for key, layout in probes.items():
        a, b = (x.astype(np.float64) for x in data[key])
        sizes = tuple(plan.spec.by_name[g].size for g in layout)
        product = (a - a.mean(0)).T @ (b - b.mean(0))
        found[key] = ProbeMoments(Layout(layout, sizes), by_slot(a), by_slot(b), product[None])
    return Moments(found, plan.origin)


def by_slot(x: np.ndarray) -> Sums:
    """Sums with one column per unit, arrays (1, U)."""
    sums = Sums.of(x)
    return Sums(sums.n, sums.shift[None], sums.sum[None], sums.square[None])
