"""The function check of factors: weights whose units are multiplied compute the same function, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from permgraph.errors import CheckError, VerificationError
from permgraph.ir.spec import PermSpec
from permgraph.transformations.places import Values
from permgraph.transformations.values import Multiplied, multiply, read_by
from permgraph.verification.check import Check
from permgraph.verification.checkpoints import Checked
from permgraph.verification.experiment import Experiment, change
from permgraph.verification.float64 import run
from permgraph.verification.inputs import random_inputs
from permgraph.verification.state import State

if TYPE_CHECKING:
    from torch import nn

    from permgraph.weights.encoder import Encoder


class _Given(State):
    """The weights of a run, some of them given."""

    def __init__(self, experiment: Experiment, given: Values) -> None:
        super().__init__(experiment.weights, experiment.noise)
        self.given = given

    def _made(self, name: str) -> torch.Tensor:
        return self.given[name].clone() if name in self.given else super()._made(name)


def check_factors(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: PermSpec,
    done: Sequence[Multiplied],
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Check:
    """Measure how much the function changes when units are multiplied, each factor by itself, and all together but for those
    that ask for something of the network.

    `control` is the change with the largest tensor of every factor left as it was. Raises PlanError, CheckError.
    """
    experiment = Experiment(model, example_inputs, kwargs, seed)
    several = [one for one in done if not one.factor.ones]  # those that others make no difference to
    trials = [[one] for one in done] + ([several] if len(several) > 1 else [])
    changes = [_change(experiment, spec, trial) for trial in trials]
    largest = max(changes, default=0.0)
    limit, rounding = experiment.limit_of(largest)
    wrong = sorted(
        {
            trial[0].factor.group
            for trial, x in zip(trials, changes, strict=True)
            if x > limit and len(trial) == 1
        }
    )
    return Check(
        change=largest,
        limit=limit,
        trials=len(trials),
        noise=experiment.noise,
        random=experiment.before.random,
        control=_change(experiment, spec, [_left_out(spec, one) for one in several or done[:1]])
        if done
        else None,
        groups=tuple(wrong),
        nan=experiment.nan,
        rounding=rounding,
    )


def check_encoder_factors(encoder: Encoder, spec: PermSpec, done: Sequence[Multiplied]) -> Checked:
    """The same on a model's own weights. Raises VerificationError when its function changes."""
    args, kwargs = random_inputs(encoder.source, encoder.trace)
    check = check_factors(encoder.module(), args, spec, done, kwargs)
    if not check.kept:
        fault = "It is a fault of permgraph: please report the architecture."
        raise VerificationError(
            f"{encoder.name}: the multiplied weights change the output by {check}, relative, in float64. Nothing was "
            f"written. {' '.join([*check.remarks(), check.advice(fault)])}"
        )
    return Checked(encoder.name, check.in_round_numbers())


def _change(experiment: Experiment, spec: PermSpec, done: Sequence[Multiplied]) -> float:
    names, known = read_by(spec, done), experiment.weights.names
    lacking = sorted(names - known.keys())
    if lacking:
        raise CheckError(f"the model has no tensor {lacking[0]!r}: the factors are of another architecture.")
    held = {name: experiment.weights.wide(known[name], experiment.noise) for name in names}
    ones = {name: torch.ones_like(held[name]) for one in done for name in one.factor.ones}
    before = experiment.before
    if ones:  # what a rotation asks of the network
        given = {known[name]: tensor for name, tensor in ones.items()}
        before = run(experiment.model, _Given(experiment, given), experiment.inputs)
    given = {known[name]: tensor for name, tensor in multiply(spec, done, held | ones).items()}
    after = run(experiment.model, _Given(experiment, given), experiment.inputs)
    return change(before.outputs, after.outputs)


def _left_out(spec: PermSpec, one: Multiplied) -> Multiplied:
    """The same without the place of the largest tensor: a bias may cancel in what follows."""
    powers = one.factor.powers
    if len(powers) < 2:
        return one
    dropped = max(powers, key=lambda power: len(spec.shapes[power.place.tensor]))
    return replace(one, factor=replace(one.factor, powers=tuple(p for p in powers if p is not dropped)))
