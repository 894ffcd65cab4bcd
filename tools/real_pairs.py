"""Two networks that were trained separately, aligned and averaged: the numbers of docs/real_pairs.md.

    python tools/real_pairs.py > docs/real_pairs.md

Reads the pretrained networks of ../shared/data; about five minutes on two cores. The same run gives the same
numbers every time. What calibrates (moments, BatchNorm statistics) is never what is judged.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from networks import pretrained as p
from torch import Tensor, nn

import permgraph as pg
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match, match_passes
from permgraph.matching.weights import Weights
from permgraph.weights.interpolate import merge
from permgraph.weights.planned import numbers_in
from permgraph.weights.repair import repair

State = dict[str, Tensor]
Batches = list[tuple[Tensor, Tensor]]
HALF = (0.5, 0.5)

TEXT = """# Real pairs

Small networks that other people trained separately, aligned by permgraph. Written by
`python tools/real_pairs.py > docs/real_pairs.md`. What calibrates is never what is judged, but for the column
"all 4,000", which compares with numbers measured elsewhere.

## Keyword spotting, res8

Two seeds against `res8_firefox_seed403959`, on 100 keywords of one second. The outputs of conv0, conv2, conv4
and conv6 are added up, so one permutation serves all four (`residual.0`, read where the stream enters conv1,
conv3, conv5 and the output layer). `alone` is what a probe would reach with a permutation of its own: layer by
layer more than 0.80 in conv0 and 0.22 deeper; but a permutation of the network has to serve all four at once.
`by weights` is what the permutations of `--matcher weights` reach, which have seen no clip.

{res8}
## Digits

The MNIST pair, 1,000 images to calibrate. Accuracy; one standard error of the aligned averages is 0.004:

{digits}
## Objects

The CIFAR-10 pair of ResNet-20s (16, 32, 64 channels, zero-padded shortcuts), 400 images to calibrate, 600 to judge:
one standard error is 0.02. Accuracy of the average:

{objects}
- Averages are at chance until the BatchNorm statistics are taken anew, aligned or not.
- After that the plain average *seems* to work: A's convolutions are about 2.3 times as large as B's, which
  BatchNorm undoes in each network but not in their average, so the average is mostly A. With A scaled to B's
  norms, which does not change A's function, the plain average falls to 0.17, and one in random order to 0.2; what alignment brings is the difference in the last column.
- Matching by weights, which needs no image, brings much of what matching by activations does; activations stay ahead where norms
  are equal. What does not help, measured apart from this run, is: the running statistics of BatchNorm in the objective, which are larger
  than the weights by far (the last column is 0.32 then, and the mean correlation of res8's probes 0.09 and 0.07 in place of 0.26 and
  0.20); every tensor scaled to one norm first (0.20 to 0.25); more starts (200 random ones raise the objective from 0.312 to 0.314
  of the largest that there can be, and the accuracy by less than its error). On the two encoders of `permgraph demo`, `permgraph compare`
  finds no more than chance: 0.247, and as much for shuffled numbers.
- Where the units are read matters little: before or after the norm, one score or another, all within the error;
  reading everything after the ReLU is the worst of them.

For comparison: for ResNet18 on CIFAR-10, four times as wide as these, Jordan et al. (REPAIR,
https://arxiv.org/abs/2211.08403) report an accuracy barrier of 16 points for the aligned average and 1.5 with the
statistics corrected; here, with equal norms, it is about 65 and 25 points. Both they and Ainsworth et al. (Git
Re-Basin, https://arxiv.org/abs/2209.04836) show the barrier of aligned ResNets as curves that fall with the width,
and zero only for networks many times wider than ResNet-20.
"""


@dataclass(frozen=True)
class Pair:
    """Two networks of one architecture, and inputs as each receives them, to calibrate on."""

    names: tuple[str, str]
    a: nn.Module
    b: nn.Module
    plan: pg.Plan
    batches: Batches

    @classmethod
    def load(cls, a: str, b: str, batches: Batches) -> Pair:
        model = p.load(a)
        return cls((a, b), model, p.load(b), pg.plan(pg.infer(pg.trace(model, p.example(a)))), batches)

    def moments(self) -> Moments:
        return calibrate(self.plan, self.a, self.b, self.batches)

    def by_weights(self, moments: Moments) -> Permutations:
        """Matched by weights, without data; the report has the correlations that this reaches."""
        numbers = [numbers_in(self.plan, model.state_dict(), "model") for model in (self.a, self.b)]
        origin = replace(moments.origin, plan=self.plan.digest)
        weights = replace(Weights.of(self.plan, *numbers), origin=origin)
        return match_passes(self.plan, [moments], "weights", weights=weights)

    def merged(
        self, perms: Permutations | None, fix: bool = False, state_a: State | None = None
    ) -> nn.Module:
        """The average of A and of B brought to A by `perms`; with `fix`, repaired on the calibration inputs.

        `state_a` stands in for A's weights.
        """
        a, b, result = (copy.deepcopy(model) for model in (self.a, self.b, self.a))
        if state_a is not None:
            a.load_state_dict(state_a)
        if perms is not None:
            b.load_state_dict(pg.apply(self.plan, perms, self.b.state_dict()))
        result.load_state_dict(merge(a.state_dict(), b.state_dict(), HALF))
        if fix:
            repair(self.plan, result, a, b, self.batches, HALF)
        return result


def res8(other: str, clips: int = 100) -> Pair:
    """Two seeds of res8 on the first second of real keywords."""
    names = ("res8_firefox_seed403959", f"res8_firefox_{other}")
    heard = [clip[:, :16000] for clip in p.keyword_clips(4 * clips) if clip.shape[1] >= 16000][:clips]
    batches = [torch.cat(heard[i : i + 25]) for i in range(0, len(heard), 25)]
    return Pair.load(*names, [(p.log_mel(x, names[0]), p.log_mel(x, names[1])) for x in batches])


def digits() -> tuple[Pair, tuple[Tensor, Tensor]]:
    """MNIST: every fourth image calibrates, the others are judged."""
    images, labels = p.mnist()
    judged = torch.arange(len(labels)) % 4 != 0
    pair = Pair.load("mnist_cnn_a", "mnist_cnn_b", [(x, x) for x in torch.split(images[~judged], 250)])
    return pair, (images[judged], labels[judged])


def objects(count: int = 400) -> tuple[Pair, tuple[Tensor, Tensor]]:
    """CIFAR-10: `count` images calibrate, as many as the other half holds are judged."""
    images, labels = p.cifar()
    names = ("cifar_resnet20", "cifar_resnet_neo_v1_5e4_20")
    pair = Pair.load(*names, [(x, x) for x in torch.split(images[::2][:count], 100)])
    return pair, (images[1::2], labels[1::2])


def balanced(state: State, like: State) -> State:
    """The same function, every convolution under a BatchNorm scaled to the norm it has in `like`.

    BatchNorm undoes the scale of the convolution before it, so two networks that were trained with different
    weight decay may differ in it by any factor, and the plain average is then mostly the larger one.
    """
    result = dict(state)
    for key in state:
        path, _, kind = key.rpartition(".")
        norm = path.replace("conv0", "bn0").replace(".conv", ".bn")
        if kind != "weight" or norm == path or f"{norm}.running_var" not in state:
            continue
        factor = like[key].norm() / state[key].norm()
        for name, power in (
            (key, 1),
            (f"{path}.bias", 1),
            (f"{norm}.running_mean", 1),
            (f"{norm}.running_var", 2),
        ):
            result[name] = state[name] * factor**power
    return result


def table(head: list[str], rows: list[list[object]]) -> str:
    lines: list[list[object]] = [[*head], ["---"] * len(head), *rows]
    cells = [[f"{c:.3f}" if isinstance(c, float) else str(c) for c in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def res8_tables() -> str:
    rows: list[list[object]] = []
    for other in ("seed441002", "seed794773"):
        pair = res8(other)
        moments = pair.moments()
        report, by_weights = match(pair.plan, moments).report, pair.by_weights(moments).report
        for key, row in report["probes"].items():
            found = [
                row["correlation"],
                row["identity"],
                row["shuffled"],
                row.get("alone", row["correlation"]),
                by_weights["probes"][key]["correlation"],
            ]
            rows.append([other, key.rsplit(" ", 1)[0], *found])
    return table(["B", "probe", "matched", "identity", "shuffled", "alone", "by weights"], rows)


def digits_table() -> str:
    pair, judged = digits()
    moments = pair.moments()
    perms, by_weights = match(pair.plan, moments), pair.by_weights(moments)
    everything = p.mnist()
    rows: list[list[object]] = [
        ["A", p.accuracy(pair.a, judged), p.accuracy(pair.a, everything)],
        ["B", p.accuracy(pair.b, judged), p.accuracy(pair.b, everything)],
    ]
    for name, one, fix in (
        ("plain average", None, False),
        ("plain average, REPAIR", None, True),
        ("aligned average", perms, False),
        ("aligned average, REPAIR", perms, True),
        ("aligned by weights, average", by_weights, False),
        ("aligned by weights, average, REPAIR", by_weights, True),
    ):
        model = pair.merged(one, fix)
        rows.append([name, p.accuracy(model, judged), p.accuracy(model, everything)])
    return table(["", "3,000 judged", "all 4,000"], rows)


def objects_table() -> str:
    pair, judged = objects()
    moments = pair.moments()
    equal = balanced(dict(pair.a.state_dict()), dict(pair.b.state_dict()))
    ways: list[tuple[str, Permutations]] = [
        ("plain (identity)", match(pair.plan, moments, "identity")),
        *((f"random order, seed {s}", match(pair.plan, moments, "random", seed=s)) for s in (0, 1)),
        ("aligned, correlation", match(pair.plan, moments)),
        ("aligned, covariance", match(pair.plan, moments, "covariance")),
        ("aligned, weights", pair.by_weights(moments)),
    ]
    for when in ("leaving", "entering"):
        tapped = replace(pair, plan=replace(pair.plan, taps={g.name: when for g in pair.plan.groups}))
        perms = match(tapped.plan, tapped.moments())  # of a plan that moves the same, observed elsewhere
        ways.append((f"aligned, all units read {when}", Permutations(perms.arrays)))
    rows: list[list[object]] = []
    for name, parent in (("A", pair.a), ("B", pair.b)):
        rows.append([name, p.accuracy(parent, judged), "", "", ""])
    for way, perms in ways:
        models = [pair.merged(perms, fix, state) for state in (None, equal) for fix in (False, True)]
        rows.append([way, *(p.accuracy(model, judged) for model in models)])
    head = ["", "as trained", "+ BatchNorm reset", "equal norms", "+ BatchNorm reset"]
    return table(head, rows)


def main() -> None:
    if not (p.DATA / "weights").is_dir():
        sys.exit("the pretrained networks (../shared/data) are not here")
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    text = TEXT
    for mark, make in (("{res8}", res8_tables), ("{digits}", digits_table), ("{objects}", objects_table)):
        text = text.replace(mark, make())
    print(text, end="")


if __name__ == "__main__":
    main()
