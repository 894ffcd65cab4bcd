"""Eight onset detectors that were trained separately, aligned and averaged: the numbers of docs/onsets.md.

    python tools/onsets.py > docs/onsets.md

Reads the pretrained networks and the music of ../shared/data; a few minutes on one core. The same run gives the same
numbers every time. No clip that is judged was matched on, and none is of the same recording as one that was.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from networks import pretrained as p
from real_pairs import table
from torch import Tensor, nn

import permgraph as pg
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match

NAMES = [f"onsets_brnn_{i}" for i in range(1, 9)]
HEARD, JUDGED = 30, 20
DRAWS = 2000

TEXT = """# Onset detectors

Eight recurrent networks of one architecture, trained separately on the same music (madmom; three bidirectional layers of 25
`tanh` units), aligned to the first and averaged. Written by `python tools/onsets.py > docs/onsets.md`. Matched on {heard}
clips of music, judged on {judged} of other recordings: the correlation, over all frames, of what the averaged network says with
the mean of what the eight networks say. In brackets its 95 % interval, by drawing the judged clips anew {draws:,} times (clips of one recording are alike, so the
true interval is wider).

{agreement}
Every layer and direction is matched by its own hidden states, which `nn.RNN` does not return: calibration runs it layer
by layer. Correlation of matched units, averaged over networks 2 to 8:

{layers}
`tanh` is odd, so a unit may also be negated, with all its weights. That is no permutation, and not used here: see [factors.md](factors.md).
"""

Clips = list[Tensor]


def states() -> list[dict[str, Tensor]]:
    return [p.state_of(name) for name in NAMES]


def aligned(clips: Clips, count: int = 8) -> tuple[list[dict[str, Tensor]], list[dict[str, Any]]]:
    """The states of `count` networks, the others brought to the first; and the groups of each matching's report."""
    first = p.load(NAMES[0])
    plan = pg.plan(pg.infer(pg.trace(first, p.example(NAMES[0]))))
    found, reports = [p.state_of(NAMES[0])], []
    for name in NAMES[1:count]:
        perms = match(plan, calibrate(plan, first, p.load(name), [torch.cat(clips)]))
        found.append(pg.apply(plan, perms, p.state_of(name)))
        reports.append(perms.report["groups"])
    return found, reports


def averaged(found: Iterable[dict[str, Tensor]]) -> nn.Module:
    """The network whose weights are the mean of these."""
    parts = list(found)
    model = copy.deepcopy(p.build(NAMES[0]))
    model.load_state_dict({key: torch.stack([s[key] for s in parts]).mean(0) for key in parts[0]})
    return model


def outputs(model: nn.Module, clips: Clips) -> list[Tensor]:
    with torch.no_grad():
        return [model(x)[0].double() for x in clips]


def consensus(clips: Clips) -> list[Tensor]:
    """The mean output of the eight networks, clip by clip."""
    each = [outputs(p.load(name), clips) for name in NAMES]
    return [torch.stack(one).mean(0) for one in zip(*each, strict=True)]


def agreements(said: Sequence[Tensor], wanted: Sequence[Tensor]) -> np.ndarray:
    """Pearson correlation over all frames of all clips, then over clips drawn anew: (1 + DRAWS,), the same draws every time."""
    rng = np.random.default_rng(0)

    def over(clips: Iterable[int]) -> float:
        chosen = list(clips)
        pair = torch.stack([torch.cat([x[i] for i in chosen]) for x in (said, wanted)])
        return float(torch.corrcoef(pair)[0, 1])

    drawn = [over(rng.integers(len(said), size=len(said))) for _ in range(DRAWS)]
    return np.array([over(range(len(said))), *drawn])


def agreement(said: list[Tensor], wanted: list[Tensor]) -> tuple[float, float, float]:
    """The first of these, and the ends of its 95 % interval."""
    found = agreements(said, wanted)
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return float(found[0]), float(low), float(high)


def main() -> None:
    if not (p.DATA / "weights").is_dir():
        sys.exit("the pretrained networks (../shared/data) are not here")
    torch.set_num_threads(1)
    heard, judged = p.onset_features("train", HEARD), p.onset_features("test", JUDGED)
    wanted = consensus(judged)
    ours, reports = aligned(heard)
    rows: list[list[object]] = []
    for count in (2, 4, 8):
        cells = []
        for parts in (ours, states()):
            r, low, high = agreement(outputs(averaged(parts[:count]), judged), wanted)
            cells.append(f"{r:.3f} ({low:.3f} to {high:.3f})")
        rows.append([f"{count}", *cells])
    layers: list[list[object]] = []
    for name in reports[0]:
        layers.append(
            [
                name,
                *(
                    float(np.mean([r[name][key] for r in reports]))
                    for key in ("correlation", "identity", "shuffled")
                ),
            ]
        )
    text = TEXT.format(
        heard=HEARD,
        judged=JUDGED,
        draws=DRAWS,
        agreement=table(["networks averaged", "aligned", "as they are"], rows),
        layers=table(["group", "matched", "identity", "shuffled"], layers),
    )
    print(text, end="")


if __name__ == "__main__":
    main()
