"""Verbs that judge encoders: evaluate, score, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from permgraph.cli.app import app
from permgraph.cli.early import refuse_file
from permgraph.cli.options import Class, Force, Json
from permgraph.cli.shared import next_step, print_json, print_text, say, visible

if TYPE_CHECKING:
    from permgraph.reporting.figures.weights import Panel

Parents = Annotated[str, typer.Option(help="Encoders the others were merged from, separated by commas.")]


@app.command()
def evaluate(
    encoders: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER…",
            help="Model folders or files, or NAME=PATH; a NAME that comes again is another pre-training run, PATH+PATH encoders side by side.",
        ),
    ],
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="Names or TOML files, separated by commas.")],
    data: Annotated[
        Path, typer.Option("--data", help="The folder that the tasks' manifests are relative to.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tables.")] = Path(
        "permgraph-evaluation"
    ),
    head: Annotated[
        str | None,
        typer.Option(
            help="Of classes: ridge (a fast screen), logistic, linear, two-layer; of transcripts: ctc. Else the task's own."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10**4, help="Of the probes that draw.")] = 1,
    parents: Parents = "",
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the features (default: OUT/features).")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace the tables in OUT.")] = False,
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Judge frozen encoders by probes, beside a log-mel baseline."""
    from permgraph.cli.progress import progress_bar
    from permgraph.evaluation.probing import evaluate as run
    from permgraph.evaluation.results import RESULTS, refuse_tables

    refuse_tables(out, force)
    made = run(
        encoders,
        _listed(tasks),
        data,
        head=head,
        seeds=seeds,
        parents=_listed(parents),
        cache=cache or out / "features",
        device=device,
        bar=progress_bar,
        model_class=model_class,
    )
    folder = made.save(out, force)
    if json_:
        print_json({"results": [_finite(asdict(r)) for r in made.results], "notes": list(made.notes)})
    else:
        print(visible(made.text()))
    named = ["--parents", parents] if parents else []
    say(f"Tables written to {folder}. {next_step('score', folder / RESULTS, *named)}")


@app.command()
def score(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="results.csv of evaluate, or any table of results.")
    ],
    parents: Parents = "",
    baseline: Annotated[
        str, typer.Option(help="Rows that are the baseline (default: those named log-mel… or FBANK…).")
    ] = "",
    lower: Annotated[str, typer.Option(help="Tasks where less is better, beside WER and the like.")] = "",
    resamples: Annotated[int, typer.Option(min=100, max=10**6, help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the bootstrap.")] = 0,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Write curves over the weight of A, of rows named NAME-0.9, to this folder (SVG, PDF)."
        ),
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Score a table of results, and test the differences.

    The score is Eq. 6 of the paper; McNemar's test and intervals say which differences are more than chance.
    """
    from permgraph.evaluation.scoring import score as run
    from permgraph.reporting.figures.files import paths
    from permgraph.reporting.figures.weights import NAME

    if figures is not None and figures.is_dir():
        for path in paths([NAME], figures):
            refuse_file(path, force, table)
    named = _listed(parents), _listed(baseline), _listed(lower)
    drawn = [] if figures is None else _panels(table, *named)
    made = run(table, *named, resamples=resamples, seed=seed)
    if figures is not None:
        from permgraph.reporting.figures.weights import draw

        for written in draw(drawn, figures, force):
            say(f"Written to {written}.")
    if not json_:
        print(visible(made.text()))
        return
    scores: dict[str, dict[str, float]] = {}
    for (encoder, domain), value in made.scores.items():
        scores.setdefault(encoder, {})[domain] = value
    comparisons = [asdict(c) for c in made.comparisons]
    print_json(
        {
            "scores": scores,
            "refused": dict(made.refused),
            "comparisons": comparisons,
            "notes": list(made.notes),
        }
    )


def _panels(table: Path, parents: list[str], baseline: list[str], lower: list[str]) -> list[Panel]:
    """Curves of the table, a panel for each domain."""
    from permgraph.evaluation.curves import curves
    from permgraph.evaluation.tables import load_table
    from permgraph.reporting.figures.weights import Panel

    found = curves(load_table(table), parents, baseline, lower)
    return [Panel(c.domain, _over(c.tasks), c.families, c.baseline) for c in found]


def _over(tasks: tuple[str, ...]) -> str:
    return f"mean over {len(tasks)} tasks" if len(tasks) > 1 else tasks[0]


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder or file.")],
    format_: Annotated[
        str, typer.Option("--format", help="The benchmark: xares, mteb (MAEB), s3prl (SUPERB) or marble.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if export wrote it.")] = False,
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Write an encoder as the benchmarks that people use load it."""
    from permgraph.evaluation.benchmarks import export as run

    made = run(model, format_, out, model_class=model_class, force=force)
    if json_:
        print_json({"written": [str(made.folder)], "file": str(made.file), "usage": made.usage})
    else:
        print_text(*made.usage.split("\n"))
    for note in made.notes:
        say(note)
    say(f"Encoder written to {made.file}, its weights beside it.")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON has no word for, as null."""
    return {key: None if value != value else value for key, value in row.items()}
