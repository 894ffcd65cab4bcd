"""How the tools of pre-training start and end: what permgraph refuses is one line, with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from permgraph.errors import PermgraphError


def run_tool(name: str, main: Callable[[], int]) -> None:
    """Run the main function of a tool, and exit with what it returns."""
    try:
        sys.exit(main())
    except PermgraphError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
