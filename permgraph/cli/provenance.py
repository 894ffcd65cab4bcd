"""The verb that makes a merge again: replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.early import refuse_file
from permgraph.cli.options import Force, Json
from permgraph.cli.shared import print_json, say
from permgraph.errors import FileError, UsageError


@app.command()
def replay(
    merged: Annotated[Path, typer.Argument(metavar="MERGED", help="A model that merge wrote.")],
    a: Annotated[Path | None, typer.Option("--a", help="The reference model of that merge.")] = None,
    b: Annotated[
        list[Path], typer.Option("--b", help="The model that was merged in; repeat for each of several.")
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The model made again.")] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="The base network of a merge by differences (ties, say).")
    ] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Its plan, where it does not lie in MERGED.")
    ] = None,
    perms_files: Annotated[
        list[Path],
        typer.Option("--perms", help="Its permutations, where they do not lie in MERGED; one for each --b."),
    ] = [],  # noqa: B006
    statement: Annotated[
        Path | None, typer.Option(help="Write what can be signed of MERGED to this file (in-toto, JSON).")
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Merge again, as a merged model's record says."""
    from permgraph.ir.files import write_bytes
    from permgraph.provenance import replay_merge, statement_text

    named = {"--a": a, "--b": b, "-o": out}
    if statement is None or base or any(named.values()):
        lacking = [option for option, path in named.items() if not path]
        if lacking:
            raise UsageError(
                f"replay {merged}: {lacking[0]} is missing. Give --a, --b and -o to merge again, or --statement FILE alone."
            )
    files = [path for path in (merged, a, *b, base, plan_file, *perms_files) if path]
    if statement is not None:
        refuse_file(statement, force, *files)
    written: list[Path] = []
    if a and b and out:
        for path in (a, *b, *([base] if base else [])):
            if not path.exists():
                raise FileError(f"{path}: no such file or folder.")
        written.append(replay_merge(merged, a, b, out, plan_file, perms_files, force, base))
        say(f"Merged again, to the same weights as {merged}: written to {out}.")
    if statement is not None:
        write_bytes(statement_text(merged), statement, force)
        written.append(statement)
        say(f"Statement written to {statement}. To sign it: cosign sign-blob --bundle BUNDLE {statement}")
    if json_:
        print_json({"written": list(map(str, written))})
