"""What Python code read of tensors, and what the example did not reach, in a network captured by running it."""

from __future__ import annotations

from permgraph.axes.rules.builders import Result, Rule, pin_everything
from permgraph.axes.workspace import Context

READ = "read by Python code"
UNREACHED = "not reached by the example input"


def _read(context: Context) -> Result:
    """Code that computes with these numbers sees no permutation: every axis is in order."""
    return pin_everything(context, READ)


def _unreached(context: Context) -> Result:
    """These weights stand beside equal ones that this example did not reach: what the others share is in order."""
    return pin_everything(context, UNREACHED)


RULES: dict[str, Rule] = {"permgraph.read": _read, "permgraph.unreached": _unreached}
