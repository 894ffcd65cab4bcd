"""Call site: the line of the model's code that is running, or where an error came from."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from traceback import walk_stack, walk_tb
from types import FrameType

from permgraph.frontend.flatten import short

_OTHERS = ("/torch/", "/permgraph/frontend/")


def call_site() -> str:
    """ "file.py:12", the innermost line that is neither torch's nor ours; "" when there is none."""
    return _place(walk_stack(sys._getframe(1)))


def raised_at(error: BaseException) -> str:
    """The same for an exception."""
    return _place(reversed(list(walk_tb(error.__traceback__))))


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    for frame, line in frames:
        path = frame.f_code.co_filename
        if not path.startswith("<") and not any(other in path for other in _OTHERS):
            return f"{short(path)}:{line}"
    return ""
