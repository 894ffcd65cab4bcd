"""Figures of a matching as files: curves of correlation and percent moved by depth, heat maps. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from permgraph.errors import FileError
from permgraph.ir.files import write_bytes
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.reporting.drawing import colours
from permgraph.reporting.explorer.results import heat_maps, moved
from permgraph.reporting.text import clean

FORMATS = ("svg", "pdf")
_MOST = 24  # heat maps; the page has all
# Equal figures give equal files.
_STYLE = {"svg.hashsalt": "permgraph", "axes.spines.top": False, "axes.spines.right": False, "font.size": 8}
_METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def files(folder: Path) -> list[Path]:
    """What `draw` writes into a folder."""
    return [folder / f"{name}.{form}" for name in ("by_depth", "heat_maps") for form in FORMATS]


def draw(
    plan: Plan, perms: Permutations, moments: Moments | None, folder: Path, force: bool = True
) -> Iterable[Path]:
    """Write `by_depth` and `heat_maps`, each as SVG and PDF, into `folder`. Yields their paths. `force` replaces files.

    Raises FileError when matplotlib is not installed or the folder cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise FileError("--figures needs matplotlib: pip install 'permgraph[figures]'.") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(_STYLE):
            for name, fill in (("by_depth", _by_depth), ("heat_maps", _heat_maps)):
                figure = Figure(layout="constrained")
                fill(figure, plan, perms, moments)
                for form in FORMATS:
                    path, data = folder / f"{name}.{form}", BytesIO()
                    figure.savefig(data, format=form, metadata=_METADATA[form])
                    write_bytes(data.getvalue(), path, force)
                    yield path
    except OSError as error:
        raise FileError(f"{folder}: cannot write: {error.strerror or error}.") from error


def _by_depth(figure: Any, plan: Plan, perms: Permutations, moments: Moments | None) -> None:
    """Above: correlation of matched units, of units in place and shuffled; below: percent moved. By role."""
    inks = colours.inks(plan.spec)
    roles: dict[str, list[Any]] = {}
    for group in plan.groups:
        if group.name in perms.arrays:
            roles.setdefault(group.role, []).append(group)
    figure.set_size_inches(1.2 + 2.2 * max(1, len(roles)), 3.6)
    axes = figure.subplots(2, max(1, len(roles)), sharex="col", sharey="row", squeeze=False)
    rows = perms.report.get("groups", {})
    for column, (role, groups) in enumerate(roles.items()):
        upper, lower = axes[0][column], axes[1][column]
        depth, colour = range(len(groups)), inks[groups[0].name].colour
        for key, style in (("correlation", "-o"), ("identity", "--"), ("shuffled", ":")):
            known = [
                (i, rows[g.name][key])
                for i, g in enumerate(groups)
                if rows.get(g.name, {}).get(key) is not None
            ]
            if known:
                upper.plot(*zip(*known, strict=True), style, color=colour, markersize=3, label=_WORDS[key])
        lower.bar(depth, [moved(plan, group, perms) for group in groups], color=colour, alpha=0.6)
        upper.set_title(clean(role, 40))
        lower.set_xlabel("group, by depth")
        lower.set_ylim(0, 100)
        if upper.lines:
            upper.legend(frameon=False)
    axes[0][0].set_ylabel("correlation")
    axes[1][0].set_ylabel("moved (%)")


_WORDS = {"correlation": "matched", "identity": "in place", "shuffled": "shuffled"}


def _heat_maps(figure: Any, plan: Plan, perms: Permutations, moments: Moments | None) -> None:
    """For each group, the first _MOST of them: correlations before and after, or the map of the permutation."""
    groups = [g for g in plan.groups if g.name in perms.arrays][:_MOST]
    shown = [(g, list(heat_maps(plan, g, perms, moments))) for g in groups]
    wide = max((len(maps) for _, maps in shown), default=1)
    per_row = 6 // wide
    figure.set_size_inches(1.6 * wide * per_row, 1.8 * max(1, -(-len(shown) // per_row)))
    axes = figure.subplots(max(1, -(-len(shown) // per_row)), per_row * wide, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (group, maps) in enumerate(shown):
        for k, (title, array) in enumerate(maps):
            axis = axes[i // per_row][i % per_row * wide + k]
            axis.imshow(array, cmap="viridis", vmin=0, vmax=array.max() or 1)
            axis.set_title(
                f"{clean(group.name, 30)}, {title.partition(':')[0].rpartition(' ')[2]}", fontsize=6
            )
