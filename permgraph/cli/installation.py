"""The verb that checks an installation: doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.options import Json
from permgraph.cli.shared import print_json


@app.command()
def doctor(
    tried: Annotated[
        bool, typer.Option("--try", help="Import every library too: slower, and finds those that crash.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check this installation: Python, libraries, Graphviz."""
    from permgraph.doctor import examine

    findings = examine(tried)
    if json_:
        print_json({"ok": all(f.ok for f in findings), "findings": [f.to_json() for f in findings]})
    else:
        print("\n".join(f.text() for f in findings))
    if not all(f.ok for f in findings):
        raise typer.Exit(3)
