"""The application the verbs are registered with."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

ORDER = (
    *("trace", "plan", "why", "tree", "draw", "view"),
    *(
        "match",
        "calibrate",
        "moments",
        "merge",
        "replay",
        "report",
        "apply",
        "unapply",
        "scramble",
        "reorder",
        "multiply",
        "verify",
    ),
    *("compare", "factors", "slices", "evaluate", "score", "export", "lint", "methods", "demo", "doctor"),
)


class _Verbs(TyperGroup):
    """In the order in which they are used, whatever file registers them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in ORDER if name in self.commands]


app = typer.Typer(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A compiler for the permutation symmetries of neural networks: trace, plan, match, merge, judge.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"permgraph {vars(sys.modules['permgraph'])['__version__']}")
        raise typer.Exit


@app.callback()
def permgraph(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[  # taken out before, so that it may stand anywhere
        bool, typer.Option("--debug", help="After an error, show where it comes from.")
    ] = False,
) -> None:
    pass
