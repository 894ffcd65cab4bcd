"""Call site: the line of the model's code that is running, or where an error came from."""

from __future__ import annotations

import sys
from types import TracebackType

from permgraph.frontend.flatten import short

_OTHERS = ("/torch/", "/permgraph/frontend/")


def call_site() -> str:
    """ "file.py:12", the innermost line that is neither torch's nor ours; "" when there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not any(other in path for other in _OTHERS) and not path.startswith("<"):
            return f"{short(path)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def raised_at(error: BaseException) -> str:
    """The same for an exception."""
    found, tail = "", error.__traceback__
    while tail is not None:
        assert isinstance(tail, TracebackType)
        path = tail.tb_frame.f_code.co_filename
        if not any(other in path for other in _OTHERS) and not path.startswith("<"):
            found = f"{short(path)}:{tail.tb_lineno}"
        tail = tail.tb_next
    return found
