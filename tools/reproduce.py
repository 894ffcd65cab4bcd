"""Table I of the paper on encoders that were trained here: plain, aligned and random averages of a speech and a music encoder.

    python tools/reproduce.py DIR/speech-0 DIR/music-0 --data ../shared/data -o OUT --page docs/results.md

Merged models, features, results.csv and predictions.csv are left in OUT; `permgraph score OUT/results.csv --figures DIR` draws the
curves over λ. Calibration: train clips. Nothing is chosen by
the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gate import GATE, Gate
from pretraining.command import run_tool
from real_pairs import table

import permgraph as pg
from permgraph.calibration import Calibration
from permgraph.evaluation.results import RESULTS, Evaluation, between
from permgraph.evaluation.scoring import Scores
from permgraph.pipeline import align, merge_all, plan_for
from permgraph.weights.encoder import Encoder, open_encoder

SHARES = (0.9, 0.7, 0.5)  # λ: the weight of A
MANIFESTS = ("kws", "intent", "phil", "inst10")  # that calibrate, by their train clips
NONE = "none"  # the preset of plain interpolation


@dataclass(frozen=True)
class Row:
    """A row of the table: how B's units are ordered before the average, and by which preset of specs/presets."""

    name: str
    groups: str
    matcher: str


def rows_of(groups: Sequence[str]) -> list[Row]:
    """Plain, then each preset aligned and in a random order."""
    ways = [("aligned", "correlation"), ("random", "random")]
    found = [Row(f"{way} {preset}", preset, matcher) for preset in groups for way, matcher in ways]
    return [Row("plain", NONE, "correlation"), *found]


def merged(
    a: Encoder, b: Encoder, row: Row, calibration: Calibration, out: Path, seed: int
) -> dict[str, Path]:
    """The averages of a row, by name: "plain 0.9" → folder. The function check is run on every one that is permuted."""
    plan = plan_for(b, row.groups)
    given = calibration if row.matcher == "correlation" and row.groups != NONE else None
    found = align(a, b, plan, given, matcher=row.matcher, seed=seed)
    pairs = [(share, round(1 - share, 6)) for share in SHARES]
    folders, _ = merge_all(a, b, found, out / "merged" / row.name.replace(" ", "-"), pairs, force=True)
    return {f"{row.name} {share:g}": folder for share, folder in zip(SHARES, folders, strict=True)}


TEXT = """# Table I on small encoders

A speech encoder (A, `{a}`) and a music encoder (B, `{b}`) that were trained here ([encoders.md](encoders.md) says how good they are),
averaged as λ·A + (1 - λ)·B. Written by

    {command}

- *plain*: B as it is;
- *aligned*: B's units brought to A's by correlation on {clips} train clips of {sets}; {groups}; B's function kept;
- *random*: B's units of the same groups in a random order, its function kept too.

Accuracy on test by the head `{head}`, with 95 % intervals by drawing the judged clips anew. `score` is Eq. 6, in which log-mel is 0 and
the better parent of every task 1000; a task whose better parent is not above log-mel has none.
"""


def page(judged: Evaluation, scores: Scores, text: str) -> str:
    names = list(dict.fromkeys(r.encoder for r in judged.results))
    value = {(r.encoder, r.task): r for r in judged.results}
    parts = [text]
    for domain in dict.fromkeys(r.domain for r in judged.results):
        tasks = list(dict.fromkeys(r.task for r in judged.results if r.domain == domain))
        rows: list[list[object]] = []
        for name in names:
            results = [value.get((name, task)) for task in tasks]
            cells = [f"{r.value:.3f} {_bracketed(r.low, r.high)}".strip() if r else "" for r in results]
            score = scores.scores.get((name, domain))
            rows.append([name, *cells, "" if score is None else f"{score:.0f}"])
        parts.append(f"## {domain.capitalize()}\n\n{table(['encoder', *tasks, 'score'], rows)}")
    if scores.refused:
        parts.append("".join(f"- {task} has no score: {why}.\n" for task, why in scores.refused.items()))
    return "\n".join(parts)


def _bracketed(low: float, high: float) -> str:
    text = between(low, high)
    return f"({text})" if text else ""


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    (given.out / "merged").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    gate = Gate.load(given.gate)
    a, b = (open_encoder(path) for path in (given.a, given.b))
    audio = tuple(str(given.data / name / "manifest.csv") for name in given.calibrate)
    calibration = Calibration(
        audio, seconds=given.seconds, clips=given.clips, max_bad=0.1, where={"split": "train"}
    )
    encoders: dict[str, Path] = {given.a.name: given.a, given.b.name: given.b}
    for row in rows_of(given.groups):
        encoders |= merged(a, b, row, calibration, given.out, given.seed)
        print(f"{row.name}: merged", flush=True)
    tasks = [task for domain in gate.tasks.values() for task in domain]
    head = given.head or gate.head
    judged = pg.evaluate(encoders, tasks, given.data, head=head, cache=given.out / "features")
    judged.save(given.out, force=True)
    scores = pg.score(given.out / RESULTS, [given.a.name, given.b.name])
    text = TEXT.format(
        a=given.a.name,
        b=given.b.name,
        clips=given.clips,
        sets=", ".join(given.calibrate),
        groups=", ".join(f"`{preset}`" for preset in given.groups),
        head=head,
        command=f"python tools/reproduce.py DIR/{given.a.name} DIR/{given.b.name} --data ../shared/data -o OUT --page docs/results.md",
    )
    text = page(judged, scores, text)
    print(text)
    if given.page:
        given.page.write_text(text, encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("a", type=Path, help="the speech encoder")
    made.add_argument("b", type=Path, help="the music encoder")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--out", "-o", type=Path, required=True)
    made.add_argument("--page", type=Path, help="a Markdown page")
    made.add_argument("--groups", nargs="*", default=["cnn+ffn+attn"], help="presets to align by")
    made.add_argument(
        "--calibrate", nargs="*", default=list(MANIFESTS), help="data sets whose train clips calibrate"
    )
    made.add_argument("--clips", type=int, default=400)
    made.add_argument("--seconds", type=float, default=0.5, help="of a clip")
    made.add_argument("--head", help="of the probes; the gate's when not given")
    made.add_argument("--gate", type=Path, default=GATE)
    made.add_argument("--seed", type=int, default=0, help="of the random orders")
    return made


if __name__ == "__main__":
    run_tool("reproduce", main)
