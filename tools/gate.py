"""Are the encoders good enough to judge a merge by? The gate of specs/encoders/gate.toml, and docs/encoders.md.

    python tools/gate.py --data ../shared/data DIR/speech-0 DIR/music-0 -o docs/encoders.md

An encoder's domain is the first word of its folder's name. Features are kept beside the encoders (DIR/features).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from pretraining.command import run_tool
from pretraining.network import RECIPE
from real_pairs import table

import permgraph as pg
from permgraph.data_files import read_toml, refuse_missing, refuse_unknown, specs
from permgraph.errors import FileError, UsageError, nearest
from permgraph.evaluation.bootstrap import Interval, counts_of, interval
from permgraph.evaluation.dataset import Dataset, files_of, load_dataset
from permgraph.evaluation.features import Features, FrozenEncoder, encoder_features
from permgraph.evaluation.heads import HEADS
from permgraph.evaluation.logmel import NAME
from permgraph.evaluation.probing import probe
from permgraph.evaluation.results import Evaluation, Prediction
from permgraph.evaluation.summary import is_above
from permgraph.evaluation.task import load_task
from permgraph.weights.encoder import open_encoder

GATE = specs() / "encoders" / "gate.toml"
QUOTED = "tasks.csv"  # log-mel's number there


@dataclass(frozen=True)
class Verdict:
    """Of one encoder on one task. `above`: encoder - stronger baseline; `gain`: deeper layers - layer 0.

    any_head  the best of log-mel, whatever its head
    layers    accuracy of each layer by itself
    """

    task: str
    clips: int
    value: Interval
    baseline: str
    base: float
    any_head: float
    above: Interval
    first: float
    deeper: float
    gain: Interval
    layers: tuple[float, ...]


@dataclass(frozen=True)
class Gate:
    """The file: the encoder's head, log-mel's (or "tasks.csv", its number there), and the tasks that count, by domain."""

    head: str
    baselines: list[str]
    tasks: dict[str, list[str]]

    @staticmethod
    def load(path: Path) -> Gate:
        """Raises FileError."""
        values = read_toml(path)
        parts = [field.name for field in fields(Gate)]
        refuse_unknown(str(path), "key", values, [*parts, "left_out"])
        refuse_missing(str(path), values, parts)
        for word in values["baselines"]:
            if word not in (known := [*HEADS, QUOTED]):
                raise FileError(
                    f"{path}: baselines: {word}.{nearest(word, known)} There are: {', '.join(known)}."
                )
        return Gate(*(values[key] for key in parts))

    def domain(self, encoder: Path) -> str:
        domain = encoder.name.split("-")[0]
        if domain not in self.tasks:
            raise UsageError(f"{encoder}: its name does not begin with one of {', '.join(self.tasks)}.")
        return domain


def passes(verdicts: Sequence[Verdict]) -> tuple[bool, bool]:
    """Above log-mel on more than half of the tasks; deeper layers above layer 0 on more than half."""
    above, gain = wins(verdicts)
    return 2 * above > len(verdicts), 2 * gain > len(verdicts)


def wins(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """On how many tasks the encoder is above log-mel, its deeper layers above layer 0."""
    return sum(is_above(v.above.value) for v in verdicts), sum(is_above(v.gain.value) for v in verdicts)


def judge(encoder: Path, gate: Gate, data: Path, cache: Path) -> list[Verdict]:
    """The encoder on every task of its domain. Raises what `permgraph.evaluate` raises."""
    tasks = gate.tasks[gate.domain(encoder)]
    judged = pg.evaluate({encoder.name: encoder}, tasks, data, head=gate.head, cache=cache)
    frozen = FrozenEncoder(open_encoder(encoder))
    datasets = [load_dataset(replace(load_task(name), head=gate.head), data) for name in tasks]
    verdicts = []
    for dataset in datasets:
        beside = [d for d in datasets if d.task.manifest == dataset.task.manifest]
        features = encoder_features(frozen, files_of(beside), cache)
        verdicts.append(_verdict(encoder.name, dataset, judged, features, gate.baselines))
    return verdicts


def _verdict(
    name: str, dataset: Dataset, judged: Evaluation, features: Features, baselines: Sequence[str]
) -> Verdict:
    task, word = dataset.task.name, dataset.task.cluster
    rows = {r.encoder: r for r in judged.results if r.task == task}
    mine = rows[name]
    any_head = max(r.value for r in rows.values() if r.encoder.startswith(NAME))
    theirs_of = [rows[key] for word in baselines if (key := f"{NAME} ({word})") in rows]
    if not theirs_of:
        raise UsageError(
            f"{task}: none of the baselines {', '.join(baselines)} is there for it. Add {dataset.task.head}, the head of this gate."
        )
    best = max(theirs_of, key=lambda r: r.value)
    theirs = [p for p in judged.predictions if p.task == task and p.encoder == best.encoder]
    own = counts_of([p for p in judged.predictions if p.task == task and p.encoder == name])
    value = Interval(mine.value, mine.low, mine.high, mine.unit)
    if theirs:
        above = interval(own, counts_of(theirs), word=word)
    else:  # tasks.csv has a number only
        above = Interval(
            value.value - best.value, value.low - best.value, value.high - best.value, value.unit
        )
    count = features.array.shape[1]
    first, deeper = (counts_of(_on(dataset, name, features, part)) for part in ([0], [*range(1, count)]))
    layers = [counts_of(_on(dataset, name, features, [k])).values.mean() for k in range(count)]
    gain = interval(deeper, first, word=word)
    return Verdict(
        task,
        mine.clips,
        value,
        best.encoder,
        best.value,
        any_head,
        above,
        float(first.values.mean()),
        float(deeper.values.mean()),
        gain,
        tuple(map(float, layers)),
    )


def _on(dataset: Dataset, name: str, features: Features, layers: Sequence[int]) -> list[Prediction]:
    """Predictions from some of the layers."""
    some = replace(features, array=features.array[:, list(layers)])
    return list(probe(dataset, name, "0", some, 1, {}))


HEAD = [
    "task",
    "clips",
    "encoder",
    "log-mel",
    "of any head",
    "difference",
    "layer 0",
    "deeper layers",
    "difference",
]
TEXT = """# Encoders

Small HuBERTs that were trained here, by masked prediction, to judge merges by. Written by

    {command}

The gate is specs/encoders/gate.toml, fixed before any merge was judged: above log-mel (the better of {baselines}) on more than
half of the tasks of the encoder's own domain, and deeper layers above layer 0 (what enters the first transformer layer) on more
than half. Head: {head}, on mean and standard deviation over frames of one layer, as log-mel has them; valid chooses the layer. In brackets 95 % intervals: by drawing the
judged clips (clusters of them, where there are eight or more) anew; differences are paired on the same clips, but for a
baseline that is quoted from tasks.csv. Weights are not kept here: `python tools/encoders.py` trains them anew from the recipes in
specs/encoders, the same again on one thread of a like machine. Settings and loss curves: encoders.jsonl beside this page.
"""


def page(verdicts: dict[Path, list[Verdict]], gate: Gate, command: str) -> str:
    told = [TEXT.format(command=command, head=gate.head, baselines=" and ".join(gate.baselines))]
    summary: list[list[object]] = []
    for encoder, rows in verdicts.items():
        verdict = "passed" if all(passes(rows)) else "failed"
        summary.append([encoder.name, *(f"{count} of {len(rows)}" for count in wins(rows)), verdict])
    told.append(table(["encoder", "above log-mel", "deeper layers above layer 0", "gate"], summary))
    told += [f"## {encoder.name}\n\n{''.join(_section(encoder, rows))}" for encoder, rows in verdicts.items()]
    return "\n".join(told)


def logs(encoders: Iterable[Path]) -> str:
    """A line of JSON for each encoder: its settings, the course of its training, versions."""
    recipes = ({"name": e.name} | json.loads((e / RECIPE).read_text()) for e in encoders)
    return "".join(json.dumps(recipe) + "\n" for recipe in recipes)


def _section(encoder: Path, verdicts: Sequence[Verdict]) -> Iterator[str]:
    recipe = json.loads((encoder / RECIPE).read_text())
    settings, result = recipe["settings"], recipe["result"]
    targets = "clusters of " + ", ".join(settings["targets"])
    targets += f"; {', '.join(settings['vectors'])} as they are" if settings["vectors"] else ""
    init = f", first weights of seed {settings['init']}" if settings["init"] >= 0 else ""
    error = f", error of the vectors {result['error']:.2f}" if settings["vectors"] else ""
    yield (
        f"{settings['steps']} steps of {settings['batch']} crops of {settings['seconds']} s, seed {settings['seed']}{init}; "
        f"targets {targets}. At the end, on masked frames: loss {result['loss']:.2f} nats, accuracy {result['accuracy']:.2f} "
        f"(largest cluster {result['chance']:.2f}){error}.\n\n"
    )
    yield table(HEAD, [_cells(v) for v in verdicts]) + "\n"
    count = len(verdicts[0].layers)
    rows: list[list[object]] = [[v.task, *v.layers] for v in verdicts]
    yield "Each layer by itself:\n\n" + table(["task", *map(str, range(count))], rows)


def _cells(v: Verdict) -> list[object]:
    return [
        v.task,
        str(v.clips),
        f"{v.value.value:.3f} ({v.value.low:.3f} to {v.value.high:.3f})",
        f"{v.base:.3f}, {v.baseline.removeprefix(NAME).strip(' ()')}",
        f"{v.any_head:.3f}",
        _signed(v.above),
        f"{v.first:.3f}",
        f"{v.deeper:.3f}",
        _signed(v.gain),
    ]


def _signed(difference: Interval) -> str:
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoders", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gate", type=Path, default=GATE)
    parser.add_argument("--output", "-o", type=Path, help="a Markdown page")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    gate = Gate.load(given.gate)
    verdicts = {e: judge(e, gate, given.data, e.parent / "features") for e in given.encoders}
    names = " ".join(f"DIR/{encoder.name}" for encoder in verdicts)
    text = page(verdicts, gate, f"python tools/gate.py --data ../shared/data {names} -o docs/encoders.md")
    if given.output:
        given.output.write_text(text, encoding="utf-8")
        given.output.with_suffix(".jsonl").write_text(logs(verdicts), encoding="utf-8")
    print(text)
    return 0 if all(all(passes(rows)) for rows in verdicts.values()) else 1


if __name__ == "__main__":
    run_tool("gate", main)
