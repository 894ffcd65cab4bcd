"""The command line: parses and prints. Each verb calls the stage of its name; heavy imports stay inside verbs."""

from __future__ import annotations

import io
import os
import sys
import traceback

import typer

from permgraph.cli import compiler, judge, matcher, merger, moments, pictures  # noqa: F401  (they register their verbs)
from permgraph.cli.app import app
from permgraph.cli.shared import say, visible
from permgraph.errors import PermgraphError


def main() -> None:
    """Entry point: every mistake of a user becomes one message and an exit code, never a traceback.

    0 done · 1 a fault of permgraph itself, with its traceback · 2 something typed names nothing · 3 a file, model or
    plan that cannot be used · 4 the function is not kept · 5 interrupted. A reader that has seen enough (`| head`)
    is not an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ≀ still gets its table
    command = typer.main.get_command(app)
    if "_PERMGRAPH_COMPLETE" in os.environ:  # a shell asks what could be typed next
        command.main(prog_name="permgraph")
    try:
        with command.make_context("permgraph", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        code = 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        code = _failed(error)
    sys.exit(code)


def _failed(error: BaseException) -> int:
    """Say what went wrong and what was kept; the exit code."""
    code = _told(error)
    for note in getattr(error, "__notes__", ()):
        say(visible(note))
    return code


def _told(error: BaseException) -> int:
    if isinstance(error, PermgraphError):
        return _complain("permgraph", str(error), error.exit_code)
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
    if isinstance(error, MemoryError):
        return _complain("permgraph", "out of memory. Give fewer groups at a time, or a smaller --batch.", 3)
    if hasattr(error, "format_message"):  # typer's own: an option or argument it cannot read
        where = getattr(getattr(error, "ctx", None), "command_path", "permgraph")
        return _complain(where, f"{error.format_message().rstrip('.')}. See `{where} --help`.", 2)
    traceback.print_exception(error)
    return _complain("permgraph", "this is a fault of permgraph. Please report it, with the lines above.", 1)


def _complain(who: str, text: str, code: int) -> int:
    """Say what is wrong, with names from a model made fit for a terminal."""
    say(f"{who}: {visible(text)}")
    return code


def _causes(error: BaseException) -> str:
    """First lines of an error and of what caused it."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    text = f"{type(error).__name__}: {first}"
    return f"{text}, because of {_causes(error.__cause__)}" if error.__cause__ else text
