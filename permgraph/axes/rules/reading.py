"""What Python code read of tensors, and what the example did not reach, in a network captured by running it."""

from __future__ import annotations

from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op
from permgraph.axes.workspace import READ


@op("permgraph.read")
def read(call: Call) -> Results:
    """Code that computes with these numbers sees no permutation: every axis is in order."""
    return call.pin_all(READ)


@op("permgraph.unreached")
def unreached(call: Call) -> Results:
    """These weights stand beside equal ones that this example did not reach: what the others share is in order."""
    return call.pin_all("not reached by the example input")
