"""The paper's tables, and the rows that they lack, on encoders that are at hand: merged, judged, and told with intervals.

    python tools/reproduce.py --a DIR/speech-0 DIR/speech-1 --b DIR/music-0 DIR/music-1 --data ../shared/data -o OUT --page docs/results.md
    python tools/reproduce.py --hubert hubert-base --mert mert-v1-95m --data DIR --tasks ks ic sid er --calibrate speech=DIR music=DIR -o OUT

What is made is left in OUT, and a second call goes on from there: merged models, features, results.csv and predictions.csv
(`permgraph score OUT/results.csv --figures DIR` draws the curves over λ). Rows: specs/experiments/results.toml. Test is looked at by no choice.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pretraining.command import run_tool
from reproduction.comparisons import Judged
from reproduction.judging import Pairs, encoders, left_in, valid_means
from reproduction.making import Maker
from reproduction.page import Page
from reproduction.rows import Experiment

import permgraph as pg
from permgraph.data_files import specs
from permgraph.errors import UsageError
from permgraph.evaluation.dataset import load_dataset
from permgraph.evaluation.results import RESULTS
from permgraph.evaluation.task import load_task

ROWS = specs() / "experiments" / "results.toml"
MOVED = ("aligned", "cnn+all")  # rows whose Table II is shown


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    torch.set_num_threads(1)
    experiment = told(Experiment.load(given.rows), given)
    pairs = Pairs(_paired(given.a, given.b), _paired(given.shared_a, given.shared_b))
    parents = pairs.parents()
    maker = Maker(experiment, given.data, given.out, given.seed)
    merged = dict(encoders(experiment, pairs, maker))
    cache = given.out / "features"
    judged = pg.evaluate(parents | merged, experiment.tasks, given.data, head=experiment.head, cache=cache)
    judged.save(given.out, force=True)
    candidates = [
        name for section in experiment.sections if section.candidates for *_, name in section.names()
    ]
    chosen = {name: merged[name] for name in ("aligned 0.5", *candidates) if name in merged}
    datasets = [load_dataset(load_task(task), given.data) for task in experiment.tasks]
    domains: dict[str, list[str]] = {}
    for dataset in datasets:
        domains.setdefault(dataset.task.domain, []).append(dataset.task.name)
    rows = {
        row.name: row for section in experiment.sections for row in section.rows if section.pairs == "trained"
    }
    page = Page(
        experiment,
        pairs.names,
        Judged.of(judged.predictions, {d.task.name: d.task.manifest or d.task.folder for d in datasets}),
        pg.score(given.out / RESULTS, pairs.names),
        domains,
        {name: len(runs) for name, runs in (parents | merged).items()},
        valid_means(chosen, experiment, given.data, cache) if candidates else {},
        {n: pg.report(maker.permutations(rows[n], *pairs.trained[0])) for n in MOVED if n in rows},
        left_in(merged, experiment, pairs, given.data, cache),
    )
    text = page.text(
        f"python tools/reproduce.py {_typed(pairs, given)} -o OUT --page docs/results.md",
        "`specs/experiments/results.toml`" if given.rows == ROWS else f"`{given.rows.name}`",
    )
    print(text)
    if given.page:
        given.page.write_text(text, encoding="utf-8")
        shutil.copy(given.out / RESULTS, given.page.with_suffix(".csv"))
    return 0


def told(experiment: Experiment, given: argparse.Namespace) -> Experiment:
    """The experiment, with what was typed instead of its own. Raises UsageError."""
    if given.tasks:
        experiment = replace(experiment, tasks=tuple(given.tasks))
    if given.head:
        experiment = replace(experiment, head=given.head)
    if given.calibrate:
        audio: dict[str, tuple[str, ...]] = {}
        for text in given.calibrate:
            kind, sign, path = text.partition("=")
            if not sign or kind not in experiment.calibrate:
                known = ", ".join(f"{kind}=PATH" for kind in experiment.calibrate)
                raise UsageError(f"--calibrate {text}: write {known}.")
            audio[kind] = (*audio.get(kind, ()), str(Path(path).resolve()))
        if lacking := set(experiment.calibrate) - set(audio):
            raise UsageError(f"--calibrate: {', '.join(sorted(lacking))} is missing.")
        experiment = replace(experiment, calibrate=audio, where={})
    return experiment


def _paired(a: Sequence[Path], b: Sequence[Path]) -> tuple[tuple[Path, Path], ...]:
    if len(a) != len(b):
        raise UsageError(f"{len(a)} encoders for A and {len(b)} for B: give as many of one as of the other.")
    return tuple(zip(a, b, strict=True))


def _typed(pairs: Pairs, given: argparse.Namespace) -> str:
    """The arguments that this page comes from; encoders and audio without the folders of one machine."""

    def listed(option: str, paths: Sequence[Path]) -> str:
        return f"{option} {' '.join(f'DIR/{path.name}' for path in paths)}"

    found = [listed("--a", [a for a, _ in pairs.trained]), listed("--b", [b for _, b in pairs.trained])]
    if pairs.shared:
        found += [
            listed("--shared-a", [a for a, _ in pairs.shared]),
            listed("--shared-b", [b for _, b in pairs.shared]),
        ]
    found += [f"--rows {given.rows.name}"] if given.rows != ROWS else []
    found += [f"--tasks {' '.join(given.tasks)}"] if given.tasks else []
    found += [f"--head {given.head}"] if given.head else []
    if given.calibrate:
        audio = [text.partition("=") for text in given.calibrate]
        found.append(f"--calibrate {' '.join(f'{kind}=DIR/{Path(path).name}' for kind, _, path in audio)}")
    found += [f"--seed {given.seed}"] if given.seed else []
    return " ".join(
        [*found, "--data", f"DIR/{given.data.name}" if given.data.is_absolute() else str(given.data)]
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--a", "--hubert", dest="a", nargs="+", type=Path, required=True, help="the runs of A")
    made.add_argument("--b", "--mert", dest="b", nargs="+", type=Path, required=True, help="the runs of B")
    made.add_argument("--shared-a", nargs="*", type=Path, default=[], help="of a pair of one initialisation")
    made.add_argument("--shared-b", nargs="*", type=Path, default=[])
    made.add_argument("--data", type=Path, required=True, help="what the tasks are relative to")
    made.add_argument("--out", "-o", type=Path, required=True)
    made.add_argument("--page", type=Path, help="a Markdown page; the table goes beside it, as .csv")
    made.add_argument("--rows", type=Path, default=ROWS)
    made.add_argument("--tasks", nargs="*", default=[], help="instead of those of --rows")
    made.add_argument("--head", help="of the probes, instead of that of --rows")
    made.add_argument("--calibrate", nargs="*", default=[], help="kind=PATH, instead of the audio of --rows")
    made.add_argument("--seed", type=int, default=0, help="of the random orders")
    return made


if __name__ == "__main__":
    run_tool("reproduce", main)
