"""Figures of a matching: correlations by depth and percent moved, heat maps before and after, correlation of every unit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from permgraph.ir.moments import FloatArray, Moments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group
from permgraph.matching.scores import flat_source
from permgraph.reporting.drawing import colours
from permgraph.reporting.explorer.results import heat_maps, moved, probe_of
from permgraph.reporting.figures.files import Fill, paths, write
from permgraph.reporting.text import clean

_MOST = 24  # groups with heat maps; the page has all
_PAIRS = 3  # in a row
STYLES = {"correlation": "-o", "identity": "--", "shuffled": ":"}
WORDS = {"correlation": "matched", "identity": "in place", "shuffled": "shuffled"}


def files(folder: Path, moments: bool) -> list[Path]:
    """What `draw` writes into a folder, with moments or without."""
    return paths(["by_depth", *(("before_after", "sorted") if moments else ("orders",))], folder)


def draw(
    plan: Plan, perms: Permutations, moments: Moments | None, folder: Path, force: bool = True
) -> Iterable[Path]:
    """Write `by_depth`, and `before_after` and `sorted` with moments, `orders` without, into `folder`. Yields their paths.
    `force` replaces files.

    Raises FileError when matplotlib is not installed or the folder cannot be written.
    """
    figures: dict[str, Fill] = {"by_depth": partial(_by_depth, plan, perms)}
    if moments is None:
        figures["orders"] = partial(_orders, plan, perms)
    else:
        figures |= {
            "before_after": partial(_before_after, plan, perms, moments),
            "sorted": partial(_sorted, plan, perms, moments),
        }
    yield from write(figures, folder, force)


def _roles(plan: Plan, perms: Permutations) -> dict[str, list[Group]]:
    roles: dict[str, list[Group]] = {}
    for group in _groups(plan, perms):
        roles.setdefault(group.role, []).append(group)
    return roles


def _groups(plan: Plan, perms: Permutations) -> list[Group]:
    """Those that were matched, in the order of every report."""
    chosen = set(plan.selected)
    return [plan.spec.by_name[name] for name in perms if name in chosen]


def _by_depth(plan: Plan, perms: Permutations, figure: Any) -> None:
    """Above: correlation of matched units, of units in place and shuffled; below: percent moved. By role."""
    inks, roles = colours.inks(plan.spec), _roles(plan, perms)
    figure.set_size_inches(1.2 + 2.2 * max(1, len(roles)), 3.8)
    axes = figure.subplots(2, max(1, len(roles)), sharex="col", sharey="row", squeeze=False)
    rows = perms.report.get("groups", {})
    for (role, groups), upper, lower in zip(roles.items(), axes[0], axes[1], strict=False):
        depth, colour = range(len(groups)), inks[groups[0].name].colour
        for key, style in STYLES.items():
            known = [(i, rows.get(g.name, {}).get(key)) for i, g in enumerate(groups)]
            known = [(i, value) for i, value in known if value is not None]
            if known:
                upper.plot(*zip(*known, strict=True), style, color=colour, markersize=3)
        lower.bar(depth, [moved(plan, group, perms) for group in groups], color=colour, alpha=0.6)
        upper.set_title(clean(role, 40))
        upper.axhline(0, color=colours.PINNED, linewidth=0.5)
        lower.set_xlabel("group, by depth")
        lower.set_ylim(0, 100)
    axes[0][0].set_ylabel("correlation")
    axes[1][0].set_ylabel("moved (%)")
    _legend(figure, STYLES)


def _legend(figure: Any, styles: dict[str, str]) -> None:
    """One for the whole figure, above it: the kinds of lines, in grey."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colours.INK, linestyle=style.rstrip("o"), marker="o" * style.endswith("o"))
        for style in styles.values()
    ]
    for line in lines:
        line.set_markersize(3)
    names = [WORDS.get(key, key) for key in styles]
    figure.legend(lines, names, loc="outside upper center", ncols=len(names), frameon=False)


def _orders(plan: Plan, perms: Permutations, figure: Any) -> None:
    """For each group, the first _MOST of them: which unit of B comes to which slot."""
    groups = _groups(plan, perms)[:_MOST]
    rows = max(1, -(-len(groups) // (2 * _PAIRS)))
    figure.set_size_inches(1.5 * 2 * _PAIRS, 0.4 + 1.7 * rows)
    axes = figure.subplots(rows, 2 * _PAIRS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, group in zip(axes.flat, groups, strict=False):
        ((_, array),) = heat_maps(plan, group, perms)
        _map(axis, array, 1.0, group.name)
    figure.supxlabel("B's units, in B's order", fontsize=8)
    figure.supylabel("slots, in A's order", fontsize=8)


def _map(axis: Any, array: FloatArray, high: float, title: str) -> Any:
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_title(clean(title, 40), fontsize=7)
    return axis.imshow(array, cmap="viridis", vmin=0, vmax=high or 1, interpolation="nearest")


def _before_after(plan: Plan, perms: Permutations, moments: Moments, figure: Any) -> None:
    """Fig. 1(a) of the paper, for the first _MOST groups that have units of their own to correlate: one scale in a pair."""
    groups = [g for g in _groups(plan, perms) if probe_of(g, moments) is not None][:_MOST]
    across = max(1, min(_PAIRS, len(groups)))
    rows = max(1, -(-len(groups) // across))
    figure.set_size_inches(0.3 + 3.6 * across, 0.5 + 1.9 * rows)
    parts = figure.subfigures(rows, across, squeeze=False)
    for part, group in zip(parts.flat, groups, strict=False):
        maps = [array for _, array in heat_maps(plan, group, perms, moments)]
        axes, high = part.subplots(1, 2), max(float(array.max()) for array in maps)
        for axis, array, when in zip(axes, maps, ("before", "after"), strict=True):
            image = _map(axis, array, high, f"{group.name}, {when}")
        bar = part.colorbar(image, ax=axes, shrink=0.7, aspect=12, pad=0.02)
        bar.ax.tick_params(labelsize=6)
        bar.outline.set_visible(False)
    figure.suptitle("Correlation: A's units down, B's across, before and after the permutation", fontsize=8)


def _sorted(plan: Plan, perms: Permutations, moments: Moments, figure: Any) -> None:
    """By role, the correlation of every unit with its partner, the largest first: all groups pooled, each group thin."""
    inks = colours.inks(plan.spec)
    found = {
        role: [c for g in groups if (c := _correlations(plan, g, perms, moments))]
        for role, groups in _roles(plan, perms).items()
    }
    found = {role: curves for role, curves in found.items() if curves}
    figure.set_size_inches(1.2 + 2.2 * max(1, len(found)), 2.6)
    axes = figure.subplots(1, max(1, len(found)), sharey=True, squeeze=False)[0]
    first = {group.role: inks[group.name].colour for group in reversed(plan.groups)}
    for (role, curves), axis in zip(found.items(), axes, strict=False):
        for one in curves if len(curves) > 1 else ():
            _descending(axis, one["correlation"], color=first[role], linewidth=0.4, alpha=0.5)
        for key, style in STYLES.items():
            pooled = np.concatenate([one[key] for one in curves])
            _descending(axis, pooled, style.rstrip("o"), color=first[role])
        axis.axhline(0, color=colours.PINNED, linewidth=0.5)
        axis.set_title(clean(role, 40))
        axis.set_xlabel("units, sorted (%)")
        axis.set_xlim(0, 100)
    axes[0].set_ylabel("correlation")
    _legend(figure, {key: style.rstrip("o") for key, style in STYLES.items()})


def _descending(axis: Any, values: FloatArray, style: str = "-", **options: Any) -> None:
    axis.plot(np.linspace(0, 100, len(values)), np.sort(values)[::-1], style, **options)


def _correlations(plan: Plan, group: Group, perms: Permutations, moments: Moments) -> dict[str, FloatArray]:
    """Of every unit of a group with its partner, with the unit in its place, and with one of a random order; {} where
    no activation holds the group alone with those that it lives within."""
    probe = probe_of(group, moments)
    if probe is None:
        return {}
    correlation, units = probe.correlation(), np.arange(len(probe.correlation()))
    chain = (*group.ancestors, group.name)
    partners = {"correlation": perms, "identity": Permutations({}), "shuffled": random_permutations(plan)}
    return {key: correlation[units, flat_source(plan.spec, chain, p)] for key, p in partners.items()}
