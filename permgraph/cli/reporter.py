"""Verbs that show what merging does: report, demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.options import Force, Json
from permgraph.cli.shared import print_json, print_text, say


@app.command()
def report(
    perms_files: Annotated[
        list[Path], typer.Argument(metavar="PERMS…", help="Permutation files, or folders made by merge.")
    ],
    groups: Annotated[
        bool, typer.Option("--groups", help="One row per group instead of one per section of the network.")
    ] = False,
    json_: Json = False,
) -> None:
    """Print what moved and how well units matched.

    With what a random order would leave in place, dead units and correlations (the paper's Table II).
    """
    from permgraph.many import matchings_of
    from permgraph.reporting.sections import sections_text

    loaded = {name: one.report for path in perms_files for name, one in matchings_of(path).items()}
    if json_:
        print_json(loaded)
        return
    for path, row in loaded.items():
        print_text(f"{path}: {row.get('selection', '')} ({row.get('matcher', '')})")
        print(f"{sections_text(row, not groups)}\n")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "permgraph-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the synthesised audio.")] = 0,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Align and merge two small encoders of the package."""
    from permgraph.cli.progress import progress_bar
    from permgraph.demo import run_demo

    tell: Callable[[str], None] = (lambda text: say(*text.split("\n"))) if json_ else print
    folder = run_demo(out, tell, progress_bar, seed, force)
    if json_:
        print_json({"written": sorted(str(path) for path in folder.iterdir())})
