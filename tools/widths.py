"""A narrower speech encoder merged into a wider one that was trained apart: the numbers of docs/widths.md.

    python tools/encoders.py specs/encoders/widths.toml --data ../shared/data -o DIR      train both, about ten minutes
    python tools/widths.py DIR > docs/widths.md

Calibrated on clips of train, judged by probes on test. The same encoders give the same numbers every time.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pretraining.network import save_encoder
from real_pairs import table
from transformers import HubertModel

import permgraph as pg
from permgraph.evaluation.bootstrap import counts_of, interval
from permgraph.evaluation.results import Evaluation
from permgraph.inputs.audio import AudioPairs
from permgraph.ir.spec import Group
from permgraph.weights.fitted import Fitted

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TASKS = ("fsdd-digit", "kws", "intent-shots")
TRAIN = {"fsdd": "split_digit", "intent": "split", "emodb": "split_emotion"}
HEARD, SECONDS = 120, 0.6
WEIGHTS = ((0.5, 0.5),)
TEXT = """# Encoders of two widths

Two small HuBERT-style speech encoders, trained apart (`specs/encoders/widths.toml`, 2,000 steps each from other first weights): A with
convolutions of {wide} channels and {ffn_a} units in each feed-forward block, B with {narrow} and {ffn_b}. `pg.fit` lays
B out in A's shapes: its outputs change by {change} (relative, in float64). B is then matched to A, each of its units with a slot of its
own, and merged; where B has no number, A's stays (`pg.merge_fitted`). Slots of A that no unit of B takes: {open} of {all}.

Written by `python tools/widths.py DIR > docs/widths.md`. Matched on {heard} clips of speech of `train`; judged by ridge probes on `test`:
accuracy, with 95 % intervals by drawing clips (speakers, where there are eight). *In place*: B's units in the first slots, as `fit` lays them.

{accuracy}

What alignment adds to *in place*, on the same draws of clips:

{added}

How much of A and of B is left: R² of each parent's layers 0 to 4 from the same layer of the merged encoder (ridge, clips it was not fitted
on), the mean of the tasks:

{kept}

{said}"""
SAID = """- Alignment keeps more of both, across widths too: of A's last layer 0.69 of the variance by activations and 0.59 by weights, where 0.47 is left
  in place and 0.46 at random; of B's as much more.
- It shows in the wake words (kws) by activations, and nearly by weights. For digits and the number of shots the intervals hold 0.
- No merge is above its better parent.
"""


@dataclass(frozen=True)
class Two:
    """Both encoders, the plan of A, the groups of B that it would have, and B as it is fitted."""

    a: HubertModel
    b: HubertModel
    plan: pg.Plan
    groups_b: tuple[Group, ...]
    fitted: Fitted

    @classmethod
    def load(cls, folder: Path) -> Two:
        a, b = (HubertModel.from_pretrained(folder / name).eval() for name in ("widths-first", "narrow"))
        example = (torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)),)
        plans = [pg.plan(pg.infer(pg.trace(model, example)), "cnn,heads,ffn") for model in (a, b)]
        return cls(a, b, plans[0], plans[1].groups, pg.fit(plans[0], a, b, example))

    def wide_b(self) -> HubertModel:
        """B in A's shapes."""
        made = copy.deepcopy(self.a)
        made.load_state_dict(self.fitted.state)
        return made

    def merged(self, perms: pg.Permutations, weights: tuple[float, float]) -> HubertModel:
        made = copy.deepcopy(self.a)
        made.load_state_dict(pg.merge_fitted(self.plan, perms, self.a.state_dict(), self.fitted, weights))
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where tools/encoders.py wrote both encoders")
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    two = Two.load(folder)
    ways = {
        "in place": pg.match(two.plan, None, "identity"),
        "by activations": pg.match(two.plan, pg.calibrate(two.plan, two.a, two.wide_b(), list(batches()))),
        "by weights": pg.match(two.plan, (two.a.state_dict(), two.fitted), "weights"),
        "at random": pg.random_permutations(two.plan, 0),
    }
    with tempfile.TemporaryDirectory() as place:
        paths = {"A": folder / "widths-first", "B": folder / "narrow"}
        for weights in WEIGHTS:
            for name, perms in ways.items():
                label = f"{weights[0]:g} / {weights[1]:g} {name}"
                paths[label] = Path(place, label.replace(" ", "").replace("/", "-"))
                save_encoder(two.merged(perms, weights), paths[label], {}, False, False)
        judged = pg.evaluate(paths, TASKS, DATA, head="ridge", parents=("A", "B"))
    print(text(two, judged, list(paths)), end="")


def batches() -> Iterator[torch.Tensor]:
    """Crops of spoken digits, commands and sentences of `train`, normalised as the encoders are."""
    for manifest, column in TRAIN.items():
        found = AudioPairs(
            [DATA / manifest / "manifest.csv"],
            seconds=SECONDS,
            limit=HEARD // len(TRAIN),
            where={column: "train"},
            max_bad=1.0,  # clips that are shorter are passed over
        )
        for crops, _ in found:
            yield (crops - crops.mean(1, keepdim=True)) / crops.std(1, keepdim=True).clamp(min=1e-7)


def text(two: Two, judged: Evaluation, names: list[str]) -> str:
    of_a, of_b = (
        sum(g.size for g in groups if "/" not in g.name) for groups in (two.plan.groups, two.groups_b)
    )
    return TEXT.format(
        wide=", ".join(map(str, two.a.config.conv_dim)),
        narrow=", ".join(map(str, two.b.config.conv_dim)),
        ffn_a=two.a.config.intermediate_size,
        ffn_b=two.b.config.intermediate_size,
        change=f"{changed(two):.1g}",
        open=f"{of_a - of_b:,}",
        all=f"{of_a:,}",
        heard=HEARD,
        accuracy=table(
            ["", *TASKS], [[name, *(cell(judged, name, task) for task in TASKS)] for name in names]
        ),
        added=table(["", *TASKS], list(added(judged))),
        kept=table(["", "of A", "of B"], [[name, *retained(judged, name)] for name in names[2:]]),
        said=SAID,
    )


def changed(two: Two, audio: torch.Tensor | None = None) -> float:
    """By how much B in A's shapes computes something else, in float64."""
    audio = (next(batches())[:2] if audio is None else audio).double()
    with torch.no_grad():
        one, other = (copy.deepcopy(m).double()(audio).last_hidden_state for m in (two.b, two.wide_b()))
    return float((one - other).norm() / one.norm())


def cell(judged: Evaluation, name: str, task: str) -> str:
    (found,) = (r for r in judged.results if (r.encoder, r.task) == (name, task))
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def added(judged: Evaluation) -> Iterator[list[object]]:
    for weights in WEIGHTS:
        prefix = f"{weights[0]:g} / {weights[1]:g}"
        for way in ("by activations", "by weights", "at random"):
            row: list[object] = [f"{prefix} {way}"]
            for task in TASKS:
                one, other = (
                    counts_of(
                        [p for p in judged.predictions if (p.encoder, p.task) == (f"{prefix} {name}", task)]
                    )
                    for name in (way, "in place")
                )
                made = interval(one, other)
                row.append(f"{made.value:+.3f} ({made.low:+.3f} to {made.high:+.3f})")
            yield row


def retained(judged: Evaluation, name: str) -> Iterator[str]:
    """Of A and of B, layer by layer, the mean of the tasks."""
    for parent in ("A", "B"):
        found = [r for r in judged.retained if (r.encoder, r.parent) == (name, parent)]
        layers = sorted({r.layer for r in found})
        yield " ".join(f"{np.mean([r.r2 for r in found if r.layer == k]):.2f}" for k in layers)


if __name__ == "__main__":
    main()
