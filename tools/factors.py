"""What signs, scales and rotations of units add to a merge: the numbers of docs/factors.md.

    python tools/factors.py > docs/factors.md

Reads the pretrained networks and the audio of ../shared/data, and the pair of the demo; some minutes on one core. The same run gives
the same numbers every time.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import clients
import numpy as np
import onsets
import real_pairs
import torch
from networks import pretrained as p
from real_pairs import HALF, table
from torch import Tensor, nn

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.evaluation.features import FrozenEncoder
from permgraph.evaluation.retention import retained
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match
from permgraph.pipeline import plan_for
from permgraph.weights.encoder import open_encoder

State = dict[str, Tensor]
FOLDS = 6  # of clips that a retention is judged on
TEXT = """# Signs, scales and rotations

Beside changing places, the units of a network may be multiplied by what its functions commute with: by -1 where they are odd (tanh), by a
positive number where they are homogeneous (ReLU), by an orthogonal matrix where nothing looks at them one by one (the channels inside
a head). `permgraph factors` shows which, `permgraph multiply` brings B's units to A's so; the function stays, and is checked.
What this adds to a merge of networks that were trained apart, beside permutations alone. Written by
`python tools/factors.py > docs/factors.md`. Intervals hold 95 %: differences are paired, drawn anew over the clips or images that are judged.

## Signs: eight onset detectors

`tanh` is odd, so a unit of these recurrent networks may be negated, with its states and all that reads them. Matched by the size of the
correlation (`--matcher abs`), and negated where it is negative; aligned to the first network, and averaged. Correlation with the mean
output of the eight, on {judged} clips of other recordings than the {heard} that were matched on.

{signs}
## Scales: pairs of image classifiers

Matched by correlation, half and half. B's units are multiplied so that the norms of what they own are those of A's. Digits: 3,000 images
judged. Objects (ResNet-20s whose norms differ 2.3 times): 500 images; *reset*: BatchNorm statistics taken anew.

{scales}
## Rotations: the encoders of the demo

Two small HuBERTs that were trained apart (`permgraph demo`), half and half. Matched on {clips} clips of real speech and music by correlation;
then an orthogonal matrix for each head's q and k and for its v, by Procrustes on the activations, or on the weights. R² of each
parent's last layer from the merged encoder's, by ridge, over {folds} folds of other clips; interval by t over folds.

{rotations}
{findings}"""


def negated(clips: onsets.Clips) -> list[State]:
    """The states of the eight networks, brought to the first by permutations and signs."""
    first = p.load(onsets.NAMES[0])
    traced = pg.trace(first, p.example(onsets.NAMES[0]))
    plan = pg.plan(pg.infer(traced))
    factors = pg.find_factors(traced, plan.spec, ["signs"])
    found = [p.state_of(onsets.NAMES[0])]
    for name in onsets.NAMES[1:]:
        moments = calibrate(plan, first, p.load(name), [torch.cat(clips)])
        perms, state = match(plan, moments, "abs"), p.state_of(name)
        fitted = pg.fit_factors(plan, factors, found[0], state, perms, moments)
        found.append(pg.multiply(plan.spec, fitted.done, pg.apply(plan, perms, state)))
    return found


def signs_table() -> str:
    heard, judged = p.onset_features("train", onsets.HEARD), p.onset_features("test", onsets.JUDGED)
    wanted = onsets.consensus(judged)
    ways = {"permutations": onsets.aligned(heard)[0], "and signs": negated(heard)}
    rows: list[list[object]] = []
    for count in (2, 4, 8):
        said = [onsets.outputs(onsets.averaged(states[:count]), judged) for states in ways.values()]
        drawn = np.array([onsets.agreements(one, wanted) for one in said])
        cells = [f"{row[0]:.3f} ({_ends(row[1:])})" for row in drawn]
        gain = drawn[1] - drawn[0]
        rows.append([f"{count}", *cells, f"{gain[0]:+.3f} ({_ends(gain[1:], '+')})"])
    return table(["networks averaged", *ways, "difference"], rows)


def _ends(values: np.ndarray, sign: str = "") -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def scales_table() -> str:
    rows: list[list[object]] = []
    for name, (pair, judged), fixes in (
        ("digits", real_pairs.digits(), (False,)),
        ("objects", real_pairs.objects(), (False, True)),
    ):
        traced = pg.trace(pair.a, (judged[0][:1],))
        factors = pg.find_factors(traced, pair.plan.spec, ["scales"])
        perms = match(pair.plan, pair.moments())
        state_a, state_b = dict(pair.a.state_dict()), pg.apply(pair.plan, perms, pair.b.state_dict())
        fitted = pg.fit_factors(pair.plan, factors, state_a, state_b)
        scaled = pg.multiply(pair.plan.spec, fitted.done, state_b)
        for fix in fixes:
            right = []
            for state in (state_b, scaled):
                model = copy.deepcopy(pair.a)
                model.load_state_dict(pg.merge(state_a, state, HALF))
                if fix:
                    clients.reset(model, pair)
                right.append(clients.correct(model, judged))
            ends = clients.difference(right[1], right[0])
            rows.append([f"{name}{', reset' if fix else ''}", *(float(one.mean()) for one in right), ends])
    return table(["", "permutations", "and scales", "difference"], rows)


def clips(count: int) -> list[Path]:
    """Speech and music in turn, each file once."""
    speech, music = (
        sorted(f for f in (p.DATA / name / "audio").rglob("*") if f.is_file()) for name in ("kws", "phil")
    )
    step = [max(2 * len(files) // count, 1) for files in (speech, music)]
    return [f for pair in zip(speech[:: step[0]], music[:: step[1]], strict=False) for f in pair][:count]


HEARD = 40


def rotations_table() -> str:
    from permgraph.calibration import Calibration
    from permgraph.passes import calibrate_on

    one, other = (open_encoder(path) for path in demo_models())
    plan = plan_for(one, "cnn,heads,qk,ffn2")
    heard, rest = clips(HEARD * 4)[::4], [f for i, f in enumerate(clips(HEARD * 4)) if i % 4]
    (done,) = calibrate_on(
        one, other, plan, Calibration(audio=tuple(map(str, heard)), seconds=0.5), None, None
    )
    perms = match(plan, done.moments)
    states = [dict(e.module().state_dict()) for e in (one, other)]
    aligned = pg.apply(plan, perms, states[1])
    factors = pg.find_factors(one.trace, plan.spec, ["rotations"])
    ways = {"as they are": states[1], "permutations": aligned}
    for name, moments in (
        ("and rotations, by activations", done.moments),
        ("and rotations, by weights", None),
    ):
        fitted = pg.fit_factors(plan, factors, states[0], states[1], perms, moments)
        ways[name] = pg.multiply(plan.spec, fitted.done, aligned)
    scores = {name: _retention(one, states[0], state, rest) for name, state in ways.items()}
    rows: list[list[object]] = []
    for name, score in scores.items():
        gains = [
            "" if name == "permutations" else _t(score[:, i] - scores["permutations"][:, i]) for i in (0, 1)
        ]
        rows.append([name, float(score[:, 0].mean()), gains[0], float(score[:, 1].mean()), gains[1]])
    return table(["", "R² of A", "difference", "R² of B", "difference"], rows)


def _t(values: np.ndarray) -> str:
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.3f} ({values.mean() - half:+.3f} to {values.mean() + half:+.3f})"


def _retention(encoder: object, a: State, b: State, files: list[Path]) -> np.ndarray:
    """R² of A's and of B's last layer, for every fold."""
    parents = [FrozenEncoder(open_encoder(path)) for path in demo_models()]
    with TemporaryDirectory() as folder:
        module: nn.Module = encoder.module()  # type: ignore[attr-defined]
        module.load_state_dict(pg.merge(a, b, HALF))
        module.save_pretrained(folder)  # type: ignore[operator]
        for name in ("preprocessor_config.json",):
            (Path(folder) / name).write_bytes((demo_models()[0] / name).read_bytes())
        merged = FrozenEncoder(open_encoder(Path(folder)))
        return np.array([[row[-1] for row in retained(merged, parents, *parts)] for parts in _parts(files)])


def _parts(files: list[Path]) -> Iterator[tuple[list[Path], list[Path], list[Path]]]:
    """What fits, chooses and judges, for every fold."""
    for fold in range(FOLDS):
        judge = files[fold::FOLDS]
        others = [f for f in files if f not in judge]
        yield others[::2], others[1::2], judge


FINDINGS = """- Signs help where functions are odd: every average of onset detectors is nearer to the mean of the networks. The signs are read off the
  correlations of the hidden states; fitted on the weights alone they do less.
- Scales do not help the digits, whose networks have norms that are alike. They help a pair with BatchNorm a little as it is, and harm it where statistics are taken anew: a
  scale that keeps the function exactly divides the norm's own weight and leaves its variance as it was, which new statistics contradict. What helps there is to scale the variance too
  (real_pairs.md, *equal norms*): that keeps the function but for BatchNorm's small constant, so it is no symmetry, and is not offered as one.
- Rotations inside heads change nothing that can be measured on this pair.
"""


def main() -> None:
    if not (p.DATA / "weights").is_dir():
        sys.exit("the pretrained networks (../shared/data) are not here")
    torch.set_num_threads(1)
    parts = {"signs": signs_table, "scales": scales_table, "rotations": rotations_table}
    made = {name: make() for name, make in parts.items()}
    print(
        TEXT.format(
            judged=onsets.JUDGED, heard=onsets.HEARD, clips=HEARD, folds=FOLDS, findings=FINDINGS, **made
        ),
        end="",
    )


if __name__ == "__main__":
    main()
