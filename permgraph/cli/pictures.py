"""Verbs that show the groups: tree, draw, view, slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.early import refuse_file, refuse_foreign
from permgraph.cli.options import DEFAULT_TRACE, Class, Exclude, Force, Free, Groups, Json, Unfold
from permgraph.cli.shared import kind_of, print_json, say, subject_of
from permgraph.errors import FileError, UsageError


@app.command()
def tree(
    target: Annotated[
        str | None, typer.Argument(metavar="[TRACE|PLAN|MODEL]", help="Whose groups to show.")
    ] = None,
    unfold: Unfold = False,
    free_output: Free = False,
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Show which groups live within which."""
    from permgraph.reporting.tree import tree_text

    _, spec, chosen = subject_of(target, None, free_output, model_class)
    if json_:
        print_json({**spec.document(), "selected": None if chosen is None else list(chosen.selected)})
    else:
        print(tree_text(spec, chosen, unfold))


@app.command()
def draw(
    target: Annotated[str | None, typer.Argument(metavar="[TRACE|PLAN|MODEL]", help="What to draw.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="An .svg, .png, .pdf or .dot file.")] = Path(
        "permgraph.svg"
    ),
    plan_file: Annotated[Path | None, typer.Option("--plan", help="Show what this plan selects.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="svg, png, pdf or dot; by the suffix of OUT otherwise.")
    ] = None,
    unfold: Annotated[bool, typer.Option("--unfold", help="Draw every repeated layer.")] = False,
    direction: Annotated[str, typer.Option(help="TB (top to bottom, in columns) or LR.")] = "TB",
    groups: Annotated[str, typer.Option("--groups", "-g", help="Draw only where these groups are.")] = "",
    layer: Annotated[str, typer.Option(help="Draw only this module and its neighbours.")] = "",
    free_output: Free = False,
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Draw the permutation graph."""
    from permgraph.planning.selection import select
    from permgraph.reporting.drawing.picture import Options, picture
    from permgraph.reporting.drawing.render import form_of, render

    form_of(out, format_)
    options = Options(direction, unfold, (), layer)
    refuse_file(out, force, target, plan_file)
    found, spec, chosen = subject_of(target, plan_file, free_output, model_class)
    names = select(spec, groups).names if groups else ()
    made = picture(found, spec, chosen, replace(options, groups=names))
    written = render(made, out, format_, force=force)
    if json_:
        print_json({"written": [str(written)]})
    say(f"Drawn to {written}.")


@app.command()
def view(
    target: Annotated[
        str | None, typer.Argument(metavar="[TRACE|PLAN|PERMS|MODEL]", help="What to show.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="An .html file, or a .json file.")] = Path(
        "permgraph.html"
    ),
    plan_file: Annotated[Path | None, typer.Option("--plan", help="Show what this plan selects.")] = None,
    trace_file: Annotated[
        Path | None, typer.Option("--trace", help="The trace, where PERMS or a PLAN are shown.")
    ] = None,
    moments_file: Annotated[
        Path | None, typer.Option("--moments", help="With PERMS: statistics kept by match --checkpoint.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="With PERMS: write curves and heat maps to this folder, as SVG and PDF."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="html (a page), or model-explorer (JSON).")
    ] = "html",
    free_output: Free = False,
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Make a page to explore groups and matchings in a browser."""
    from permgraph.reporting.explorer.export import Subject, export, targets

    perms_file = Path(target) if target is not None and target.endswith(".safetensors") else None
    if perms_file is not None:
        plan_file = _plan_beside(perms_file, plan_file, trace_file)
    elif moments_file or figures:
        raise UsageError("--moments and --figures need PERMS, the file that permgraph match has written.")
    elif target is not None and trace_file is not None:
        if plan_file is not None or kind_of(Path(target)) != "plan":
            raise UsageError(
                f"--trace {trace_file}: {target} is what is shown, and no plan. Give one of the two."
            )
        plan_file = Path(target)
    if perms_file is not None or trace_file is not None:
        target = None if trace_file is None else str(trace_file)
    first, *others = targets(out, format_, figures, moments_file is not None)
    refuse_file(first, force, target, plan_file, perms_file, moments_file)
    for other in others:
        if other.parent.is_dir():
            refuse_file(other, force, target, plan_file, perms_file, moments_file)
    found, spec, chosen = subject_of(target, plan_file, free_output, model_class)
    files = export(Subject(found, spec, chosen, perms_file, moments_file), out, format_, figures, force)
    if json_:
        print_json({"written": [str(path) for path in files]})
    for written in files:
        say(f"Written to {written}.")


def _plan_beside(perms: Path, plan: Path | None, trace: Path | None) -> Path:
    """The plan that permutations are shown with. Raises FileError, UsageError where that or the trace is not here."""
    if not perms.is_file():
        raise FileError(f"{perms}: no such file. `permgraph match` writes it.")
    plan = plan or Path("plan.json")
    if not plan.is_file():
        raise UsageError(
            f"{perms}: a page of permutations needs their plan, and {plan} is not here: --plan PLAN."
        )
    if trace is None and not DEFAULT_TRACE.is_file():
        raise UsageError(
            f"{perms}: a page needs the trace too, and {DEFAULT_TRACE} is not here: --trace TRACE."
        )
    return plan


def _files(*named: str | Path | None) -> list[Path]:
    """Of what was typed, the files that are there: an output must not be one of them."""
    return [Path(name) for name in named if name is not None and Path(name).is_file()]


@app.command()
def slices(
    target: Annotated[
        str | None, typer.Argument(metavar="[TRACE|PLAN|MODEL]", help="Whose groups to write.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .json file.")] = Path("slices.json"),
    groups: Groups = "",
    exclude: Exclude = "",
    format_: Annotated[
        str, typer.Option("--format", help="permgraph, or git-re-basin: perm_to_axes and axes_to_perm.")
    ] = "permgraph",
    free_output: Free = False,
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write what each unit of each group owns, for pruning."""
    import json

    from permgraph.compression.slices import slices_json
    from permgraph.ir.files import write_bytes
    from permgraph.ir.plan import Plan
    from permgraph.linter.rebasin import to_rebasin
    from permgraph.planning.compile import compile_plan

    if format_ not in ("permgraph", "git-re-basin"):
        raise UsageError(f"--format {format_}: write permgraph or git-re-basin.")
    refuse_foreign(out, force, target or DEFAULT_TRACE)
    if target is not None and kind_of(Path(target)) == "plan":
        plan = Plan.load(target)
        plan = compile_plan(plan.spec, groups, exclude) if groups else plan
    else:
        spec = subject_of(target, None, free_output, model_class)[1]
        plan = compile_plan(spec, groups or "all", exclude)
    if format_ == "git-re-basin":
        form = {"permgraph": "git-re-basin", **to_rebasin(plan)}
        write_bytes(json.dumps(form, indent=1).encode(), out, force)
        if json_:
            print_json(
                {"written": [str(out)], "groups": list(form["perm_to_axes"]), "left_out": form["left_out"]}
            )
        for name, why in list(form["left_out"].items())[:5]:
            say(f"{name} is left out: {why}.")
        say(f"{len(form['perm_to_axes']):,} of {len(plan.groups):,} groups written to {out}.")
        return
    names = plan.selected
    found = slices_json(plan.spec, names)
    write_bytes(json.dumps(found, separators=(",", ":")).encode(), out, force)
    count = sum(len(group["slices"]) for group in found["groups"])
    if json_:
        print_json({"written": [str(out)], "groups": list(names), "slices": count})
    say(f"{count:,} slices of {len(names):,} groups written to {out}.")
