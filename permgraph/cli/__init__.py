"""The command line: parses and prints. Each verb calls the stage of its name; heavy imports stay inside verbs."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from permgraph.cli import (  # noqa: F401  (they register their verbs)
    calibrator,
    comparison,
    compiler,
    installation,
    judge,
    matcher,
    menu,
    merger,
    multiplier,
    pictures,
    provenance,
    reporter,
)
from permgraph.cli.app import app
from permgraph.cli.shared import say
from permgraph.errors import PermgraphError


def main() -> None:
    """Entry point: every mistake of a user becomes one message and an exit code, never a traceback.

    0 done · 1 a fault of permgraph itself · 2 something typed names nothing · 3 a file, model or plan that cannot be
    used · 4 the function is not kept · 5 interrupted. A reader that has seen enough (`| head`) is not an error.
    `--debug` shows where an error comes from.
    """
    debug = "--debug" in sys.argv[1:]
    words = [word for word in sys.argv[1:] if word != "--debug"]
    _open_streams()
    command = typer.main.get_command(app)
    if "_PERMGRAPH_COMPLETE" in os.environ:  # a shell asks what could be typed next
        command.main(prog_name="permgraph")
    try:
        with _terminated_as_interrupted(), command.make_context("permgraph", words or ["--help"]) as context:
            command.invoke(context)
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    except BrokenPipeError:
        code = 0
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        code = _failed(error)
        if debug:
            traceback.print_exception(error)
    sys.exit(_flushed(code))


def _open_streams() -> None:
    """Streams that take what is printed: one that is closed becomes the null device; no character is an error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ≀ still gets its table


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: what it was writing is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _flushed(code: int) -> int:
    """The exit code, once the result is with its reader. What remains goes nowhere, or Python would complain at the end."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        found = code
    except OSError as error:
        found = code or _complain("permgraph", f"standard output: {error.strerror or error}.", 3)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return found


def _failed(error: BaseException) -> int:
    """Say what went wrong and what was kept; the exit code."""
    code = _told(error)
    for note in getattr(error, "__notes__", ()):
        say(note)
    return code


def _told(error: BaseException) -> int:
    if isinstance(error, PermgraphError):
        text, *details = error.lines
        return _complain("permgraph", text, error.exit_code, *details)
    if isinstance(error, ImportError):
        return _complain("permgraph", f"{_causes(error)}. `permgraph doctor --try` says what is wrong.", 3)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        text = "interrupted. With --checkpoint, the same command goes on where it stopped."
        return _complain("permgraph", text, 5)
    if isinstance(error, SystemExit):
        return _complain("permgraph", f"the model's own code ended the run: sys.exit({error.code!r}).", 3)
    if isinstance(error, OSError):
        named = "" if error.filename is None else f"{error.filename}: "
        return _complain("permgraph", f"{named}{error.strerror or error}.", 3)
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return _complain("permgraph", "out of memory. Give fewer groups at a time, or a smaller --batch.", 3)
    if hasattr(error, "format_message"):  # typer's own: an option or argument it cannot read
        where = getattr(getattr(error, "ctx", None), "command_path", "permgraph")
        text = error.format_message().rstrip(".")
        text += "" if text.endswith("?") else "."
        return _complain(where, f"{text} See `{where} --help`.", 2)
    text = f"this is a fault of permgraph: {_causes(error)}{_place(error)}."
    return _complain("permgraph", f"{text} Please report it, with what --debug prints.", 1)


def _complain(who: str, text: str, code: int, *details: str) -> int:
    """Say what is wrong, and details below it."""
    say(f"{who}: {text}", *details)
    return code


def _causes(error: BaseException) -> str:
    """First lines of an error and of what caused it."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    text = f"{type(error).__name__}: {first}"
    return f"{text}, because of {_causes(error.__cause__)}" if error.__cause__ else text


def _place(error: BaseException) -> str:
    """The innermost line of code."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
