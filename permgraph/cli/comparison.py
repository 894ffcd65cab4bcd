"""Verbs that need one element of the group, or find one: scramble, compare, reorder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.compiler import PlanFile, Weights, permute
from permgraph.cli.early import refuse_foreign, refuse_weights
from permgraph.cli.options import Class, Force, Json, NoCheck, State
from permgraph.cli.shared import next_step, pair_of, print_json, print_text, say

Drawn = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of what is drawn at random.")]


@app.command()
def scramble(
    plan_file: PlanFile,
    source: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The scrambled checkpoint.")],
    perms_file: Annotated[
        Path, typer.Option("--perms", help="Where to write the permutations, which `unapply` takes back.")
    ] = Path("perms.safetensors"),
    seed: Drawn = 0,
    no_check: NoCheck = False,
    state: State = "",
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Re-order a checkpoint at random; its function stays."""
    from permgraph.ir.permutations import random_permutations
    from permgraph.ir.plan import Plan

    refuse_foreign(perms_file, force, plan_file, source, out)
    drawn = random_permutations(Plan.load(plan_file), seed)
    options = {"force": force}
    permute(plan_file, perms_file, source, out, no_check, state, model_class, json_, options, drawn=drawn)
    drawn.save(perms_file, force)
    say(
        f"Permutations written to {perms_file}. {next_step('unapply', plan_file, perms_file, out, '-o', 'BACK')}"
    )


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint file or folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="One of the same architecture.")],
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="A plan made before; then no model is built.")
    ] = None,
    shuffles: Annotated[
        int, typer.Option(min=0, max=10**6, help="How often B's numbers are shuffled and matched.")
    ] = 19,
    seed: Drawn = 0,
    state: State = "",
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Measure how alike two networks are, in any order of units."""
    from permgraph.ir.plan import Plan
    from permgraph.matching.similarity import compare as run
    from permgraph.matching.weights import Weights as Pair
    from permgraph.pipeline import plan_for
    from permgraph.weights.checkpoint import open_checkpoint
    from permgraph.weights.planned import numbers_stored

    if plan_file is not None:
        plan = Plan.load(plan_file)
        both = [open_checkpoint(path, "" if path.is_dir() else state) for path in (a, b)]
    else:
        models = pair_of(a, b, True, state, model_class)
        plan = plan_for(models[0], "all")
        both = [model.checkpoint for model in models]
    found = run(plan, Pair.of(plan, *(numbers_stored(plan, one) for one in both)), seed, shuffles)
    if json_:
        print_json(found.to_json())
    else:
        print_text(found.text())


@app.command()
def reorder(
    plan_file: PlanFile,
    source: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The re-ordered checkpoint.")],
    pattern: Annotated[
        str, typer.Option("--pattern", help="N:M: of every M neighbouring inputs of a product, N are kept.")
    ] = "2:4",
    perms_file: Annotated[
        Path, typer.Option("--perms", help="Where to write the permutations, which `unapply` takes back.")
    ] = Path("perms.safetensors"),
    seed: Drawn = 0,
    unfold: Annotated[bool, typer.Option("--unfold", help="A row for every tensor.")] = False,
    no_check: NoCheck = False,
    state: State = "",
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Order units so that N:M sparsity keeps more of the weights."""
    from permgraph.compression.pattern import Pattern
    from permgraph.compression.reorder import reorder as run
    from permgraph.ir.plan import Plan
    from permgraph.reporting.sparsity import sparsity_json, sparsity_text
    from permgraph.weights.checkpoint import open_checkpoint
    from permgraph.weights.planned import numbers_stored

    wanted = Pattern.parse(pattern)
    refuse_foreign(perms_file, force, plan_file, source, out)
    refuse_weights(out, force, source, plan_file, perms_file)
    plan = Plan.load(plan_file)
    stored = open_checkpoint(source, "" if source.is_dir() else state)
    found = run(plan, numbers_stored(plan, stored), wanted, seed)
    checked = permute(
        plan_file,
        perms_file,
        source,
        out,
        no_check,
        state,
        model_class,
        False,
        {"force": force},
        drawn=found.perms,
    )
    found.perms.save(perms_file, force)
    if json_:
        print_json({"written": [str(out), str(perms_file)], "checked": checked, **sparsity_json(found)})
    else:
        print(sparsity_text(found, unfold))
    say(
        f"Permutations written to {perms_file}. {next_step('unapply', plan_file, perms_file, out, '-o', 'BACK')}"
    )
