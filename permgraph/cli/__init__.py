"""The command line: parses and prints. Each verb calls the stage of its name; heavy imports stay inside verbs."""

from __future__ import annotations

import io
import os
import sys

import typer

from permgraph.cli import compiler, judge, merger  # noqa: F401  (they register their verbs)
from permgraph.cli.app import app
from permgraph.cli.shared import say, visible
from permgraph.errors import PermgraphError


def main() -> None:
    """Entry point: every mistake of a user becomes one message and an exit code, never a traceback.

    0 done · 2 something typed names nothing · 3 a file, model or plan that cannot be used · 4 the function is
    not kept · 5 interrupted. A reader that has seen enough (`| head`) is not an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ≀ still gets its table
    command = typer.main.get_command(app)
    try:
        with command.make_context("permgraph", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except PermgraphError as error:
        code = _complain("permgraph", str(error), error.exit_code)
    except ImportError as error:
        code = _complain("permgraph", f"{_causes(error)}. `permgraph doctor` says what is wrong.", 3)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain(
            "permgraph", "interrupted. With --checkpoint, the same command goes on where it stopped.", 5
        )
    except Exception as error:  # typer's own: an option or argument it cannot read
        if not hasattr(error, "format_message"):
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "permgraph")
        code = _complain(where, f"{error.format_message().rstrip('.')}. See `{where} --help`.", 2)
    sys.exit(code)


def _complain(who: str, text: str, code: int) -> int:
    """Say what is wrong, with names from a model made fit for a terminal."""
    say(f"{who}: {visible(text)}")
    return code


def _causes(error: BaseException) -> str:
    """First lines of an error and of what caused it."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    text = f"{type(error).__name__}: {first}"
    return f"{text}, because of {_causes(error.__cause__)}" if error.__cause__ else text
