"""Two pairs of music taggers that were trained apart, aligned and averaged: the numbers of docs/taggers.md.

    python tools/taggers.py [vgg] [musicnn] > docs/taggers.md

Reads the pretrained networks and the notes of ../shared/data; five to ten minutes of one core for each pair. The same run gives the
same numbers every time. What calibrates (moments, BatchNorm statistics), what trains the probes and what is judged are the
validation, training and test split.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from networks import taggers as t
from networks.pretrained import DATA
from numpy.typing import NDArray
from real_pairs import table
from torch import Tensor
from torch.optim.swa_utils import update_bn

import permgraph as pg
from permgraph.ir.permutations import Permutations
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match
from permgraph.weights.interpolate import merge

Tagger = t.Vgg | t.Musicnn
Notes = tuple[Tensor, Tensor]
Floats = NDArray[np.float64]
PAIRS = {"vgg": ("music_vgg_mtt", "music_vgg_msd"), "musicnn": ("music_musicnn_mtt", "music_musicnn_msd")}
SHARES = (0.9, 0.7, 0.5)
PER_INSTRUMENT = {"valid": 11, "train": 6, "test": 10}
EVERY = 3  # note of those that are matched on for the BatchNorm statistics
BATCH, DRAWS, RIDGE = 20, 2000, 10.0

TEXT = """# Music taggers

Taggers of one architecture, trained on two data sets: A on MagnaTagATune, B on the Million Song Dataset (Pons & Serra 2019).
Of two such pairs, this page has: {names}. Their 50 tags differ, so the output layer of every average is A's; all before it is
λ·A + (1 - λ)·B. Written by `python tools/taggers.py {command} > docs/taggers.md`, on notes of twelve instruments of an orchestra:
{valid} that are matched on, {train} that train probes, {test} that are judged; no pitch of an instrument is in two of these.

- *tags*: the correlation, over notes, of the logits of A's tags with what A itself says, each tag about its own mean;
- *probe*: share of notes whose instrument a linear probe (ridge) on the features before the output layer finds; 1 in 12 by chance;
- *reset*: BatchNorm statistics taken anew on every third note of those that were matched on; "A, reset" shows what that alone does;
- *random*: B's units in a random order.

In brackets the 95 % interval, by drawing the judged notes anew {draws:,} times. One recorded player per instrument: notes
are not independent, and the true interval is wider.
"""


@dataclass(frozen=True)
class Judge:
    """What a tagger is judged by; `logits` are those of A on the notes that are judged."""

    train: Notes
    test: Notes
    logits: Floats

    def row(self, model: Tagger) -> tuple[str, str]:
        """The tags and the probe of one network, with their intervals."""
        features = features_of(model, self.test[0])
        with torch.no_grad():
            logits = model.out(features.float()).double().numpy()
        right = probe(features_of(model, self.train[0]), self.train[1], features) == self.test[1].numpy()
        return (
            interval(lambda i: agreement(logits[i], self.logits[i]), len(right)),
            interval(lambda i: float(right[i].mean()), len(right)),
        )


def features_of(model: Tagger, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.features(part) for part in torch.split(x, BATCH)]).double()


def agreement(one: Floats, other: Floats) -> float:
    """Correlation over notes and tags, each tag about its mean over the notes."""
    one, other = one - one.mean(0), other - other.mean(0)
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / size) if size else 0.0


def probe(train: Tensor, labels: Tensor, test: Tensor) -> NDArray[np.int64]:
    """The instruments that a ridge regression onto the twelve classes says; features that never vary are left out."""
    mean, std = train.mean(0), train.std(0)
    varies = std > 1e-9
    x, new = (((f - mean) / torch.where(varies, std, 1.0))[:, varies] for f in (train, test))
    wanted = torch.nn.functional.one_hot(labels, 12).double() - 1 / 12
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ wanted)
    found: NDArray[np.int64] = (new @ weights).argmax(1).numpy()
    return found


def interval(measure: Callable[[NDArray[np.int64]], float], count: int) -> str:
    rng = np.random.default_rng(0)
    drawn = [measure(rng.integers(count, size=count)) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{measure(np.arange(count)):.2f} ({low:.2f} to {high:.2f})"


def averaged(a: Tagger, b: Tagger, plan: pg.Plan, perms: Permutations | None, share: float) -> Tagger:
    """λ·A + (1 - λ)·B with B's units brought to A's, and A's output layer."""
    state = b.state_dict() if perms is None else pg.apply(plan, perms, b.state_dict())
    result = copy.deepcopy(a)
    result.load_state_dict(merge(a.state_dict(), state, (share, 1 - share)))
    result.out.load_state_dict(a.out.state_dict())
    return result


def with_new_statistics(model: Tagger, x: Tensor) -> Tagger:
    result = copy.deepcopy(model)
    update_bn(torch.split(x[::EVERY], BATCH), result)
    return result.eval()


def tables_of(name: str, notes: dict[str, Notes]) -> str:
    a, b = (t.load(file) for file in PAIRS[name])
    heard = notes["valid"][0]
    plan = pg.plan(pg.infer(pg.trace(a, (heard[:1],))))
    moments = calibrate(plan, a, b, torch.split(heard, BATCH))
    aligned = match(plan, moments)
    with torch.no_grad():
        logits = a.out(features_of(a, notes["test"][0]).float()).double().numpy()
    judge = Judge(notes["train"], notes["test"], logits)
    rows: list[list[object]] = []
    for whose, model in (("A", a), ("A, reset", with_new_statistics(a, heard)), ("B", b)):
        tags, found = judge.row(model)
        rows.append([whose, "", tags if whose != "B" else "", found])
    ways = {"plain": None, "aligned": aligned, "random": match(plan, moments, "random", seed=0)}
    for share in SHARES:
        for way, perms in ways.items():
            model = averaged(a, b, plan, perms, share)
            rows.append([way, share, *judge.row(model)])
            rows.append([f"{way}, reset", share, *judge.row(with_new_statistics(model, heard))])
    head = ["network", "λ", "tags", "probe"]
    shown = [[f"{c:.1f}" if isinstance(c, float) else c for c in row] for row in rows]
    return f"## {name}\n\n{units_table(aligned)}\n{table(head, shown)}"


def units_table(aligned: Permutations) -> str:
    """How many units of each group never vary on the notes that calibrate, and how well the others match."""
    rows: list[list[object]] = []
    for group, row in aligned.report["groups"].items():
        cells = [row[key] for key in ("units", "dead_a", "dead_b", "correlation", "identity", "shuffled")]
        rows.append([group, *cells])
    return table(["group", "units", "dead in A", "dead in B", "matched", "identity", "shuffled"], rows)


def main() -> None:
    if not (DATA / "weights").is_dir():
        sys.exit("the pretrained networks (../shared/data) are not here")
    torch.set_num_threads(1)
    notes = {split: t.notes(split, count) for split, count in PER_INSTRUMENT.items()}
    sizes = {split: len(labels) for split, (_, labels) in notes.items()}
    names = [name for name in PAIRS if name in sys.argv[1:]] or list(PAIRS)
    print(TEXT.format(**sizes, draws=DRAWS, names=", ".join(names), command=" ".join(names)), end="")
    for name in names:
        print(f"\n{tables_of(name, notes)}", end="", flush=True)


if __name__ == "__main__":
    main()
