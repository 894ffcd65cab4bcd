"""Repair: give a merged network back the spread that averaging took from its units.

Averaging two units that correlate by less than 1 gives one with a smaller variance, and the loss multiplies
from layer to layer (Jordan et al., REPAIR, 2022, https://arxiv.org/abs/2211.08403). Where a BatchNorm follows,
its running statistics are taken anew from data. Elsewhere the layer that makes the units is rescaled: channel
by channel, its mean and its standard deviation become the weighted means of those of A and of the aligned B
(Eqs. 5 and 6 there), folded into weight and bias. A layer without a bias is corrected in its deviation alone; where its units
enter a norm with scale and bias, the mean is corrected there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from permgraph.errors import MatchError, PlanError
from permgraph.frontend.batches import Inputs, call_for, sides
from permgraph.ir.plan import Plan, Step
from permgraph.ir.sums import Sums
from permgraph.torch_modes import eval_mode
from permgraph.weights.rescale import NORMS, channel_axis, output_axis, rescale, why_not

WEIGHTS = (
    "weight",
    "weight_v",
    "weight_orig",
    "original",
    "original1",
)  # what a weight, or its main part, is called
_PARAMETRIZED = re.compile(r"\.?parametrizations\.weight$")


def repair(
    plan: Plan,
    merged: nn.Module,
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    weights: tuple[float, float] = (0.5, 0.5),
    inputs: Inputs = None,
) -> dict[str, Any]:
    """Correct `merged` in place, in one pass; each layer sees the corrected outputs of those before it.

    Args:
        plan: its groups are repaired: the layers that make their units.
        model_b: B as aligned, with the permuted weights.
        batches, inputs: as for `calibrate`; the merged network receives what A receives.
        weights: of A and B in the merge.

    Returns:
        layers       layer → mean factor on its units' standard deviation
        scaled       those of them without a bias: the deviation is corrected, the mean is not
        batch_norm   names of the BatchNorms whose statistics are new
        skipped      layer, or tensor of another kind of layer → why it stays as it was

    Raises:
        MatchError: no batches, or a layer's statistics are not finite.
        PlanError: the models are not what the plan was made for.
    """
    weights = (weights[0] / sum(weights), weights[1] / sum(weights))
    norms = {
        n: m for n, m in merged.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None
    }
    names, skipped = _layers(plan, merged)
    models = (merged, model_a, model_b)
    layers = [{name: _module(model, name) for name in names} for model in models]
    total = [{name: _nothing() for name in names} for _ in models]
    count = 0
    with torch.no_grad(), eval_mode(*models), _averaging(norms.values()):
        for batch in batches:
            for_a, for_b = sides(batch, inputs)
            here = [{name: _nothing() for name in names} for _ in models]
            for side, received in ((1, for_a), (2, for_b)):
                with _watching(layers[side], here[side]):
                    _run(models[side], received)
            pairs = {n: (here[1][n], here[2][n]) for n in names}
            # an expert that A or B did not call in this batch has nothing to be corrected to
            targets = {n: _target(a, b, weights) for n, (a, b) in pairs.items() if a.n and b.n}
            with _watching(layers[0], here[0], targets):
                _run(merged, for_a)
            for whole, part in zip(total, here, strict=True):
                for name in names:
                    whole[name] = whole[name] + part[name]
            count += 1
        if not count:
            raise MatchError("no batch to repair on: the list of inputs is empty.")
        factors = {}
        for name in names:
            if any(not side[name].n for side in total):
                skipped[name] = "it is not called as a layer"
                continue
            target = _target(total[1][name], total[2][name], weights)
            factors[name] = _fold(name, layers[0][name], total[0][name], target)
    scaled = [name for name in factors if not _shifts(layers[0][name])]
    return {"layers": factors, "scaled": scaled, "batch_norm": sorted(norms), "skipped": skipped}


COPIES = (
    9  # of a layer's output, in float32: itself, three in float64 while it is summed up, one more corrected
)


Target = tuple[Tensor, Tensor]  # mean and standard deviation of every channel


def _nothing() -> Sums:
    """Sums over no samples."""
    zero = torch.zeros((), dtype=torch.float64)
    return Sums(0, zero, zero, zero)


def _target(a: Sums, b: Sums, weights: tuple[float, float]) -> Target:
    """Weighted means of the means and of the standard deviations of every channel."""
    means, spreads = ((x, y) for x, y in zip(_mean_and_spread(a), _mean_and_spread(b), strict=True))
    return (
        weights[0] * means[0] + weights[1] * means[1],
        weights[0] * spreads[0] + weights[1] * spreads[1],
    )


def _mean_and_spread(sums: Sums) -> tuple[Tensor, Tensor]:
    return sums.mean(), sums.variance().sqrt()


def _shifts(layer: nn.Module) -> bool:
    """Whether it has a bias to take up a shift of the mean."""
    return isinstance(layer.bias, Tensor)


def _correction(now: Sums, target: Target, shifts: bool) -> tuple[Tensor, Tensor]:
    """(factor, offset): x · factor + offset has the target's mean and deviation. Dead units are only moved.

    Without a bias, `shifts` false, only the deviation is corrected.
    """
    mean, spread = _mean_and_spread(now)
    dead = now.dead()
    factor = torch.where(dead, torch.ones_like(spread), target[1] / torch.where(dead, 1.0, spread))
    return factor, target[0] - mean * factor if shifts else torch.zeros_like(factor)


def _layers(plan: Plan, model: nn.Module) -> tuple[list[str], dict[str, str]]:
    """The layers that make the units of the plan's groups, and those that cannot be corrected, with why."""
    normed = {
        g.name
        for g in plan.groups
        if any(_holds_statistics(t, model) for p in g.places for t in plan.spec.members(p.tensor))
    }
    makers, others = _makers(plan, model)
    counts = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    shared = {key for key, count in counts.items() if count > 1}
    names, skipped = [], {}
    norms: dict[str, set[str]] = {}
    unshifted: set[str] = set()
    for name, groups in makers.items():
        module = _module(model, name)
        if isinstance(module, _BatchNorm) or groups & normed:
            continue  # where a BatchNorm follows, its statistics are the repair
        if isinstance(module, NORMS):
            norms[name] = groups
        elif why := why_not(module, shared):
            skipped[name] = why
        else:
            names.append(name)
            unshifted |= groups if module.bias is None else set()
    # a norm takes up the shift where a producer of its units has no bias to do it
    names += [
        n for n, groups in norms.items() if groups & unshifted and not why_not(_module(model, n), shared)
    ]
    skipped |= {
        tensor: "not the weight of a linear layer or a convolution"
        for tensor, groups in others.items()
        if not groups & normed
    }
    return names, skipped


def _holds_statistics(tensor: str, model: nn.Module) -> bool:
    """Whether this is the running mean of a BatchNorm, which takes its statistics anew; a frozen one does not."""
    path, _, kind = tensor.rpartition(".")
    return kind == "running_mean" and isinstance(_module(model, path), _BatchNorm)


def _makers(plan: Plan, model: nn.Module) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Layer → the groups of its output channels; and the tensors of other layers that make units: recurrent ones, experts."""
    makers: dict[str, set[str]] = {}
    others: dict[str, set[str]] = {}
    for step in (own for joint in plan.steps for own in _on_members(plan, joint)):
        path, _, kind = step.tensor.rpartition(".")
        name = _PARAMETRIZED.sub("", path)
        layer = _module(model, name)
        axis = output_axis(layer)
        if axis is not None:
            if (kind, step.axis) == ("bias", 0) or (kind in WEIGHTS and step.axis == axis):
                makers.setdefault(name, set()).update(step.layout)
        elif (isinstance(layer, nn.RNNBase) or step.side == "permute") and len(
            plan.spec.tensors[step.tensor]
        ) > 1:
            others.setdefault(step.tensor, set()).update(step.layout)
    return makers, others


def _on_members(plan: Plan, step: Step) -> Iterator[Step]:
    """A step on each of the tensors that it is about; which tensor takes whose place is none of them."""
    joined = plan.spec.joined.get(step.tensor)
    if joined is None:
        yield step
    elif joined.axis is not None or step.axis > 0:
        axis = step.axis - joined.axis_of(0)
        yield from (replace(step, tensor=member, axis=axis) for member in joined.members)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise PlanError(
            f"the model has no layer {name!r}: the plan was made for another architecture."
        ) from error


@contextmanager
def _watching(
    layers: dict[str, nn.Module], sums: dict[str, Sums], targets: dict[str, Target] | None = None
) -> Iterator[None]:
    """Adds the outputs of the layers up; with targets, hands them on corrected."""

    def hook(name: str) -> Any:
        def watch(module: nn.Module, args: Any, result: Tensor) -> Tensor | None:
            axis = channel_axis(module)
            sums[name] = sums[name] + Sums.of(result.movedim(axis, -1).flatten(0, -2).double())
            if targets is None or name not in targets:
                return None
            factor, offset = _correction(sums[name], targets[name], _shifts(module))
            moved = result.movedim(axis, -1).double() * factor + offset
            return moved.to(result.dtype).movedim(-1, axis)

        return watch

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _averaging(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """These BatchNorms average the statistics of all batches alike; everything else is as it was."""
    norms = list(norms)
    before = [(n.training, n.momentum, n.num_batches_tracked) for n in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else torch.zeros_like(norm.num_batches_tracked)
        )
        norm.momentum = None  # in torch: a cumulative average
        norm.train()
    try:
        yield
    finally:
        for norm, (training, momentum, tracked) in zip(norms, before, strict=True):
            norm.training, norm.momentum, norm.num_batches_tracked = training, momentum, tracked


def _run(model: nn.Module, value: Any) -> None:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    args, kwargs = tree_map_only(Tensor, lambda t: t.to(device), call_for(model, value))
    model(*args, **kwargs)


def _fold(name: str, layer: nn.Module, now: Sums, target: Target) -> float:
    """Write the correction into weight and bias. Returns the mean factor. Raises MatchError."""
    factor, offset = _correction(now, target, _shifts(layer))
    if not bool(torch.isfinite(factor).all() and torch.isfinite(offset).all()):
        raise MatchError(
            f"{name}: its activations are not finite, so it cannot be repaired. Check the weights."
        )
    rescale(layer, factor, offset)
    return float(factor.mean())
