"""Verbs that judge encoders: evaluate, score."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from permgraph.cli.app import app
from permgraph.cli.options import Json
from permgraph.cli.shared import print_json, say, visible

Parents = Annotated[str, typer.Option(help="Encoders the others were merged from, separated by commas.")]


@app.command()
def evaluate(
    encoders: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER…",
            help="Model folders or files, or NAME=PATH; a NAME that comes again is another pre-training run.",
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
        typer.Option(help="ridge (a fast screen), logistic, linear, two-layer; else the task's own."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10**4, help="Of the probes that draw.")] = 1,
    parents: Parents = "",
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the features (default: OUT/features).")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace the tables in OUT.")] = False,
    json_: Json = False,
) -> None:
    """Judge frozen encoders by probes on labelled audio, beside a log-mel baseline."""
    from permgraph.cli.progress import progress_bar
    from permgraph.evaluation.probing import evaluate as run
    from permgraph.evaluation.results import refuse_tables

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
    )
    folder = made.save(out, force)
    if json_:
        print_json({"results": [_finite(asdict(r)) for r in made.results], "notes": list(made.notes)})
    else:
        print(visible(made.text()))
    say(f"Tables written to {folder}. Next: permgraph score {folder / 'results.csv'} --parents A,B")


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
    json_: Json = False,
) -> None:
    """Score a table of results (Eq. 6), and say which differences are more than chance."""
    from permgraph.evaluation.scoring import score as run

    made = run(table, _listed(parents), _listed(baseline), _listed(lower), resamples=resamples, seed=seed)
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


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON has no word for, as null."""
    return {key: None if value != value else value for key, value in row.items()}
