"""Several networks that were trained separately, aligned and averaged into one: the numbers of docs/many.md.

    python tools/many.py > docs/many.md

Reads the pretrained networks, the music and the keywords of ../shared/data; about eight minutes on one core. The same run
gives the same numbers every time. What calibrates is never what is judged.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import onsets
import soundfile
import torch
from networks import pretrained as p
from peers.frank_wolfe import Relaxed
from real_pairs import table
from torch import Tensor, nn

import permgraph as pg
from permgraph.matching.many import WAYS

DRAWS = 2000
RES8 = [f"res8_firefox_{seed}" for seed in ("seed403959", "seed441002", "seed794773", "release_seed0")]
HEARD, JUDGED = 100, 300
STARTS = 3  # of Frank and Wolfe's algorithm: all in place, and at random

TEXT = """# Several networks into one

`permgraph merge A B C …` brings the units of all models to the first's order and averages. Each model has one permutation into
an order that all share, so they are consistent: from C to B and from B to A is from C to A. `--align` says what is compared:

| `--align` | what is matched |
|---|---|
| `first` | every model with the first alone |
| `many` | every model in turn with the mean of all others: MergeMany of [Git Re-Basin](https://arxiv.org/abs/2209.04836) |
| `universe` | the same sum over all pairs, as in [C2M3](https://arxiv.org/abs/2405.17897), climbed with several of the models, all by activations and four at most by weights, as a start: the best |

The numbers below are written by `python tools/many.py > docs/many.md`, on networks that other people trained separately. What
calibrates is never what is judged. In brackets 95 % intervals, by drawing the judged clips anew {draws:,} times; differences are
drawn with the same clips on both sides.

## Eight onset detectors

The networks of [docs/onsets.md](onsets.md), matched on {heard_music} clips of music, judged on {judged_music} of other recordings: the
correlation of the averaged network's output with the mean output of the eight.

{onsets}
## Four seeds of res8

Keyword spotting (see [docs/real_pairs.md](real_pairs.md)), matched on {heard} keywords of one second, judged on {judged} of the test
split: the correlation of the averaged network's logits with the mean of the four networks' logits over clips, logit by logit, the mean of the
four; each network's inputs normalised as it was trained. BatchNorm statistics are taken anew on the calibration clips (without that every average is
useless: 'as averaged'). There are four seeds of this task; the fifth network of this shape, `res8_honk_gsc12`, has twelve outputs in
place of four and probably shares its initial weights with one of the four, so it is left out.

{res8}
## What climbs the sum over all pairs

C2M3 maximises the sum by Frank and Wolfe's algorithm, over doubly stochastic matrices. Here it is climbed by exact assignments, one
network after the other, from several starts; that serves nested groups (heads and the channels inside them), too. Both on the
weights of the four res8, as a share of the largest sum that there can be (Cauchy and Schwarz); `tools/peers/frank_wolfe.py`
has no code of the matching. Of Frank and Wolfe's algorithm {starts} starts, one in place and the others at random, and the best:

{climbed}
{said}"""

SAID = """- Alignment matters, the way less. On the four res8, `many` and `universe` do bring units of all pairs closer (by activations the mean
  correlation over all pairs is 0.265 for `first`, 0.296 for both), but the average that comes of it is not shown to be better: every
  interval of a difference from `first` holds 0. On the eight onset detectors both are a little worse than `first` by activations, and
  `many` is about as good or a little better by weights.
- Whether activations or weights match better depends on the networks: activations on res8 (as for two networks), weights on the onset
  detectors, whose 25 units a layer are each read by few others.
- On the four res8 exact assignments climb higher than Frank and Wolfe's algorithm does from three starts.
"""


@dataclass(frozen=True)
class Set:
    """Networks of one architecture.

    inputs   what each network receives, to calibrate on
    judge    a network → what it says of each judged clip, (samples, outputs)
    """

    names: list[str]
    plan: pg.Plan
    models: list[nn.Module]
    moments: dict[tuple[int, int], Any]
    fix: Callable[[nn.Module], nn.Module] | None
    judge: Callable[[nn.Module], list[Tensor]]
    wanted: list[Tensor]

    @property
    def states(self) -> list[dict[str, Tensor]]:
        return [dict(model.state_dict()) for model in self.models]

    def merged(self, perms: Sequence[pg.Permutations] | None) -> nn.Module:
        """The equal average, of the networks as they are or as they are brought to the first."""
        states = self.states
        if perms is not None:
            states = [pg.apply(self.plan, one, state) for one, state in zip(perms, states, strict=True)]
        model = p.build(self.names[0])
        model.load_state_dict(pg.merge_many(states))
        return model


def agreements(said: list[Tensor], wanted: list[Tensor]) -> np.ndarray:
    """Pearson correlation over all clips, the mean over outputs; and over clips drawn anew: (1 + DRAWS,), the same draws every time.

    Of each clip: (samples, outputs).
    """
    rng = np.random.default_rng(0)
    draws = np.concatenate(
        [np.ones((1, len(said))), rng.multinomial(len(said), [1 / len(said)] * len(said), DRAWS)]
    )
    rows = []
    for x, y in zip(said, wanted, strict=True):
        a, b = (t.double().numpy() for t in (x, y))
        rows.append([np.full(a.shape[1], len(a)), *(z.sum(0) for z in (a, b, a * a, b * b, a * b))])
    n, a, b, aa, bb, ab = np.einsum("dc, cso -> sdo", draws, np.array(rows))
    return np.asarray(((ab - a * b / n) / np.sqrt((aa - a * a / n) * (bb - b * b / n))).mean(1))


def cell(values: np.ndarray) -> str:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:.3f} ({low:.3f} to {high:.3f})"


def music() -> Set:
    heard, judged = p.onset_features("train", onsets.HEARD), p.onset_features("test", onsets.JUDGED)
    models = [p.load(name) for name in onsets.NAMES]
    plan = pg.plan(pg.infer(pg.trace(models[0], p.example(onsets.NAMES[0]))))

    def said(model: nn.Module) -> list[Tensor]:
        return [clip.reshape(-1, 1) for clip in onsets.outputs(model, judged)]

    each = [said(model) for model in models]
    wanted = [torch.stack(one).mean(0) for one in zip(*each, strict=True)]
    moments = pg.calibrate_many(plan, models, [torch.cat(heard)])
    return Set(onsets.NAMES, plan, models, moments, None, said, wanted)


def keywords(split: str, count: int) -> Tensor:
    """Audio of so many keywords of a split, the first second of each: (clips, samples)."""
    with open(p.DATA / "kws" / "manifest.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    found = []
    for i in np.random.default_rng(0).permutation(len(rows)):
        clip, _ = soundfile.read(p.DATA / "kws" / rows[int(i)]["path"], dtype="float32")
        if len(clip) >= 16000:
            found.append(torch.from_numpy(clip[:16000]))
        if len(found) == count:
            break
    return torch.stack(found)


def speech() -> Set:
    heard, judged = keywords("train", HEARD), keywords("test", JUDGED)
    models = [p.load(name) for name in RES8]
    plan = pg.plan(pg.infer(pg.trace(models[0], p.example(RES8[0]))))
    inputs = [[p.log_mel(x, name) for x in torch.split(heard, 25)] for name in RES8]
    pairs = {
        (i, j): pg.calibrate(
            plan, models[i], models[j], [pg.Pair(*both) for both in zip(inputs[i], inputs[j], strict=True)]
        )
        for i, j in combinations(range(len(RES8)), 2)
    }

    def logits(model: nn.Module, name: str = RES8[0]) -> list[Tensor]:
        with torch.no_grad():
            return list(model(p.log_mel(judged, name))[:, None])

    def fixed(model: nn.Module) -> nn.Module:
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.train()
        with torch.no_grad():
            for x in inputs[0]:
                model(x)
        return model.eval()

    each = [logits(model, name) for model, name in zip(models, RES8, strict=True)]
    wanted = [torch.stack(one).mean(0) for one in zip(*each, strict=True)]
    return Set(RES8, plan, models, pairs, fixed, logits, wanted)


def alignments(nets: Set, ways: Sequence[str]) -> dict[str, list[pg.Permutations] | None]:
    """What is averaged, by name; by weights in these ways."""
    found: dict[str, list[pg.Permutations] | None] = {"plain average": None}
    for matcher, how in (("correlation", "by activations"), ("weights", "by weights")):
        for way in WAYS if matcher == "correlation" else ways:
            evidence: Any = nets.states if matcher == "weights" else nets.moments
            found[f"{way}, {how}"] = pg.match_many(nets.plan, evidence, matcher, way)
    return found


def judged(nets: Set, found: dict[str, list[pg.Permutations] | None]) -> str:
    """A table: every average beside that of each matched with the first."""
    rows: list[list[object]] = []
    for number, model in enumerate(nets.models):
        if nets.fix is None:
            rows.append([f"network {number + 1} alone", cell(agreements(nets.judge(model), nets.wanted)), ""])
    reached = {}
    for name, perms in found.items():
        model = nets.merged(perms)
        raw = cell(agreements(nets.judge(model), nets.wanted)) if nets.fix else None
        reached[name] = agreements(nets.judge(nets.fix(model) if nets.fix else model), nets.wanted)
        base = reached.get(f"first, {name.partition(', ')[2]}")
        gain = "" if base is None or base is reached[name] else cell(reached[name] - base)
        rows.append([name, *([raw] if raw else []), cell(reached[name]), gain])
    head = ["", *(["as averaged"] if nets.fix else []), "agreement", "more than `first`"]
    if nets.fix is None:
        alone = [float(agreements(nets.judge(m), nets.wanted)[0]) for m in nets.models]
        rows = [["one network alone", f"{min(alone):.3f} to {max(alone):.3f}", ""], *rows[len(nets.models) :]]
    return table(head, rows)


def climbed(nets: Set, found: dict[str, list[pg.Permutations] | None]) -> list[list[object]]:
    """The sum over all pairs of weights that each way reaches."""
    told = {way: (found[f"{way}, by weights"] or [])[1].report["many"] for way in ("many", "universe")}
    most = told["many"]["most"]
    relaxed = Relaxed(nets.plan, [{k: t.numpy() for k, t in s.items()} for s in nets.states])
    rng = np.random.default_rng(0)
    each = [relaxed.climb(relaxed.start(rng if i else None))[1] for i in range(STARTS)]
    mine = told["universe"]["objective"]
    by_hand = Relaxed(
        nets.plan,
        [
            {k: t.numpy() for k, t in pg.apply(nets.plan, one, s).items()}
            for one, s in zip(found["universe, by weights"] or [], nets.states, strict=True)
        ],
    )
    assert abs(by_hand.value(by_hand.start()) - mine) < 1e-4 * abs(mine)  # both measure the same sum
    row = [
        told["many"]["in_place"],
        told["many"]["first"],
        told["many"]["objective"],
        mine,
        float(np.mean(each)),
        max(each),
    ]
    return [[f"{len(nets.models)} × {nets.names[0].split('_')[0]}", *(f"{x / most:.4f}" for x in row)]]


def main() -> None:
    if not (p.DATA / "weights").is_dir():
        sys.exit("the pretrained networks (../shared/data) are not here")
    torch.set_num_threads(1)
    tables, rows = [], []
    for make in (music, speech):
        nets = make()
        found = alignments(
            nets, [*WAYS] if make is speech else ["first", "many"]
        )  # eight by weights take long
        tables.append(judged(nets, found))
        if make is speech:
            rows += climbed(nets, found)
    head = ["", "in place", "`first`", "`many`", "`universe`", "Frank-Wolfe, mean", "Frank-Wolfe, best"]
    text = TEXT.format(
        draws=DRAWS,
        heard_music=onsets.HEARD,
        judged_music=onsets.JUDGED,
        heard=HEARD,
        judged=JUDGED,
        starts=STARTS,
        onsets=tables[0],
        res8=tables[1],
        climbed=table(head, rows),
        said=SAID,
    )
    print(text, end="")


if __name__ == "__main__":
    main()
