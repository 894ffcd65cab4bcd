"""The verb that shows the menus: methods."""

from __future__ import annotations

from permgraph.cli.app import app
from permgraph.cli.options import Json
from permgraph.cli.shared import print_json


@app.command()
def methods(json_: Json = False) -> None:
    """List matchers and merge methods, each with its paper."""
    from permgraph.reporting.menu import menu, menu_text

    if json_:
        print_json(menu())
    else:
        print(menu_text())
