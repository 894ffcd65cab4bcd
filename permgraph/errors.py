"""One class per kind of mistake. A message says what was typed, where it is wrong, and how to correct it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 6000  # characters of a message


class PermgraphError(Exception):
    """Base of every error a user can cause. `exit_code` is what the command line returns.

    A message that repeats what a file holds is cut: that may be megabytes.

    details  lines that stand below the message. The message itself is one line: a line break in it comes from a name, and
             the command line shows it as an escape, as it does for each of these.
    """

    exit_code = 3

    def __init__(self, text: str = "", details: Iterable[str] = ()) -> None:
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 1000]} … {text[-990:]}")
        self.details = tuple(details)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The message and its details, each to be shown as one line."""
        return [super().__str__(), *(f"  {line}" for line in self.details)]


class UsageError(PermgraphError):
    """Something typed on the command line, or passed to the API, names nothing that exists."""

    exit_code = 2


class SelectionError(UsageError):
    """A group selection (`--groups`) that matches nothing or cannot be moved."""


class TraceError(PermgraphError):
    """A model that cannot be built or captured."""


class RuleError(PermgraphError):
    """An op rule that is mistaken: it failed, or its results are not those of the op."""


class PlanError(PermgraphError):
    """A plan or a permutation that is incomplete, inconsistent, or made for something else."""


class MatchError(PermgraphError):
    """Statistics or scores that cannot be matched: not finite, of another shape, or missing."""


class FileError(PermgraphError):
    """A file that is missing, damaged, unsafe, or not what its name says."""


class VerificationError(PermgraphError):
    """A plan that was measured to change the function."""

    exit_code = 4


class CheckError(PermgraphError):
    """A function check that cannot be made: the outputs are all NaN, or a tensor cannot be brought to float64."""


def nearest(word: str, choices: Iterable[str], count: int = 3) -> str:
    """' Did you mean a, b?' for the choices closest to `word`; an empty string when none is close."""
    close = difflib.get_close_matches(word, list(dict.fromkeys(choices)), n=count, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else ""


def reason(error: BaseException) -> str:
    """Why something cannot be read, in words: without its path, an error number or a codec's positions; no full stop."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text (UTF-8)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
