"""The verb that checks an installation: doctor."""

from __future__ import annotations

import typer

from permgraph.cli.app import app
from permgraph.cli.options import Json
from permgraph.cli.shared import print_json


@app.command()
def doctor(json_: Json = False) -> None:
    """Check this installation: Python, libraries, Graphviz."""
    from permgraph.doctor import examine

    findings = examine()
    if json_:
        print_json({"ok": all(f.ok for f in findings), "findings": [f.to_json() for f in findings]})
    else:
        print("\n".join(f.text() for f in findings))
    if not all(f.ok for f in findings):
        raise typer.Exit(3)
