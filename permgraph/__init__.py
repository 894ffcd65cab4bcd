"""permgraph: a compiler for the permutation symmetries of neural networks.

The verbs, in the order in which data walks:

    trace = pg.trace(model, example_inputs)          # or pg.trace("hubert")
    spec  = pg.infer(trace)
    plan  = pg.plan(spec, groups="cnn,heads,ffn2")
    error = pg.verify(model, example_inputs, spec)
    perms = pg.random_permutations(plan, seed=0)     # or, from activations:
    moments = pg.calibrate(plan, model_a, model_b, batches)
    perms = pg.match(plan, moments)
    state = pg.apply(plan, perms, state_b)           # pg.unapply undoes it bit for bit
    merged = pg.merge(state_a, state, weights=(0.9, 0.1))

and to judge encoders that were merged so: `pg.evaluate`, `pg.score`, `pg.export`.

The packages below are nouns, and the verbs are here alone. Heavy libraries (torch, transformers, scipy) are
imported by the verb that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from permgraph.errors import PermgraphError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch
    from torch import nn

    from permgraph.compression.reorder import Reordered
    from permgraph.evaluation.benchmarks import Exported
    from permgraph.evaluation.results import Evaluation
    from permgraph.evaluation.scoring import Scores
    from permgraph.frontend.batches import Pair
    from permgraph.ir import Group, Moments, PermSpec, Permutations, Place, Plan, Probe, Trace
    from permgraph.ir.spec import IntArray
    from permgraph.linter.report import LintReport
    from permgraph.matching.certified import WarmStart
    from permgraph.matching.similarity import Similarity
    from permgraph.matching.weights import Weights
    from permgraph.reporting.explain import Reason
    from permgraph.reporting.sections import MatchingReport
    from permgraph.transformations.checkpoints import FittedFactors
    from permgraph.transformations.transformation import Factor
    from permgraph.transformations.values import Multiplied
    from permgraph.verification.check import Check
    from permgraph.weights.fitted import Fitted

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The types, imported when they are first asked for: `permgraph --help` needs none of them."""
    from importlib import import_module

    if name == "Pair":
        return import_module("permgraph.frontend.batches").Pair
    if name == "WarmStart":
        return import_module("permgraph.matching.certified").WarmStart
    if name in ("Group", "Moments", "PermSpec", "Permutations", "Place", "Plan", "Probe", "Trace"):
        return getattr(import_module("permgraph.ir"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def trace(
    model: nn.Module | str,
    example_inputs: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    model_class: str = "",
) -> Trace:
    """Capture one path through a network, in eval mode. No weight is read; the meta device will do.

    Where its code reads values of tensors, the network is run with its weights instead, and `notes` says so.

    Args:
        model: a module, or anything the command line takes as MODEL: an alias ("hubert"), a Hugging Face
            folder or id, "file.py:factory".
        example_inputs: arguments of the module's forward: a tuple or list of them, a mapping of arguments by
            name, or a single one. Batch 1 and a short input do. Not needed when `model` is a string.
        kwargs: further arguments, by name.
        name: what to call the network in reports (default: its class, or the string).
        model_class: of a folder, id or alias, the class of transformers that is traced, with its head ("HubertForCTC"), or
            "config" for the one that config.json names; the base model when not given.

    Returns:
        The trace: operations with shapes, and the tensors of the state.

    Raises:
        TraceError: the network cannot be built or captured; the message names the line of its code.
        UsageError: the string names nothing.
    """
    from permgraph.frontend.capture import capture

    if isinstance(model, str):
        from permgraph.frontend.sources import load_source

        return load_source(model, model_class=model_class).trace(name)
    return capture(model, example_inputs, kwargs, name)


def infer(trace: Trace, free_output: bool = False) -> PermSpec:
    """Every group of channels that may be re-ordered without changing the function.

    Args:
        trace: what `trace` returned, or `Trace.load`.
        free_output: let the channels of the outputs move too. They are then part of the places, as
            "output:0", and a caller has to put the outputs back in order.

    Returns:
        The groups with their places (tensor, axis, position of every unit), what is pinned and why, and the
        operations without a rule, which pin all they touch.
    """
    from permgraph.symmetry.infer import infer as run

    return run(trace, free_output)


def plan(spec: PermSpec, groups: str = "all", exclude: str = "", mode: str = "exact") -> Plan:
    """The plan that moves the selected groups: for each tensor and axis, permute or un-permute.

    Args:
        spec: what `infer` returned.
        groups: words (cnn, heads, qk, ffn1, ffn2, all), roles, names, globs, ranges (ffn.0-5) and presets,
            separated by commas.
        exclude: the same notation, taken out again.
        mode: "exact" keeps the function. "one-sided", "untied" and "untied-qkv" are of the literature and do not.

    Raises:
        SelectionError: a selection that matches nothing or cannot be moved.
        UsageError: no such mode.
        PlanError: the spec has a gap.
    """
    from permgraph.planning.compile import compile_plan

    return compile_plan(spec, groups, exclude, mode)


def random_permutations(plan: Plan, seed: int = 0) -> Permutations:
    """A uniformly random element of the selected groups, nested ones included; the same for the same seed.

    Returns:
        {group: index array}. A group within others has one permutation per slot of those: "heads.3/v" has
        shape (heads, channels).
    """
    from permgraph.ir.permutations import random_permutations as run

    return run(plan, seed)


def calibrate(
    plan: Plan,
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    *,
    checkpoint: str | Path | None = None,
    data: str = "",
    save_every: float = 60.0,
    progress: Callable[[int], None] | None = None,
    inputs: Callable[[Any], Any] | str | int | None = None,
    stride: int = 1,
) -> Moments:
    """Moments of both models' activations over the batches: sums, squares and products of the units of every
    group of the plan. Batch and time positions are samples. Activations are not stored.

    Args:
        batches: what the forward takes: a tensor, a tuple of arguments, a dict of keywords, the list that a DataLoader
            yields (inputs first, labels are left out), or `Pair(for A, for B)` of these. Every batch holds inputs of
            one length: padding would change a GroupNorm front end.
        checkpoint: a file to save to now and then, and when the run is interrupted. When it exists, the
            batches it holds are passed over.
        data: what identifies the data, so that a checkpoint is not resumed with others.
        save_every: seconds between checkpoints.
        progress: called with the number of batches done.
        inputs: picks the inputs of a batch that holds more: a function of the batch, a key or an index.
        stride: of the frames of front-end convolutions, hundreds to a thousand a second and much alike, count every
            so many-th only. 1 counts all.

    Raises:
        MatchError: what of a batch is input cannot be told, a model takes another path at an input's length, A and B give different frames, or the
            checkpoint is of another calibration.
        KeyboardInterrupt: interrupted; the checkpoint holds all that was done.
    """
    from permgraph.matching.calibration import calibrate as run

    return run(
        plan,
        model_a,
        model_b,
        batches,
        checkpoint=checkpoint,
        data=data,
        save_every=save_every,
        progress=progress,
        inputs=inputs,
        stride=stride,
    )


def calibrate_many(
    plan: Plan,
    models: Sequence[nn.Module],
    batches: Iterable[Any],
    *,
    align: str = "universe",
    inputs: Callable[[Any], Any] | str | int | None = None,
    stride: int = 1,
) -> dict[tuple[int, int], Moments]:
    """Moments of every pair of several models, for `match_many`: what `calibrate` gives for each, and every model runs once.

    Args:
        models: the first is the one that the others are brought to.
        batches, inputs, stride: as for `calibrate`; all models take the same inputs. Where they do not, calibrate each pair, on
            batches of `Pair`.
        align: as for `match_many`: for "first", the pairs of the first model alone.

    Returns:
        {(i, j): moments} with i < j, counted from 0.

    Raises:
        MatchError: as `calibrate`.
        UsageError: fewer than two models, or no such way to align.
    """
    from permgraph.errors import UsageError
    from permgraph.matching.calibration_many import calibrate_many as run
    from permgraph.matching.many import wanted_pairs

    pairs = wanted_pairs(len(models), align)
    if not pairs:
        raise UsageError("calibrate_many: give a list of two or more models.")
    return run(plan, models, batches, pairs, inputs=inputs, stride=stride)


def match(
    plan: Plan,
    moments: Moments | tuple[Mapping[str, Any], Mapping[str, Any] | Fitted] | None,
    matcher: str = "correlation",
    seed: int = 0,
) -> Permutations:
    """The permutations that bring B's units to their partners in A.

    Args:
        moments: what `calibrate` returned; for the matcher "weights", which needs no data, the state dicts of A and B as a
            pair; None for "identity" and "random". What `fit` returned may stand for B: it is then brought where it is nearest to A
            in the numbers that it has.
        matcher: a name in `permgraph.matching.matchers.MATCHERS`. "correlation" is Eq. 1 of the paper
            (https://arxiv.org/abs/2506.11403), its assignment by Jonker and Volgenant's algorithm. "weights" is the
            weight matching of Git Re-Basin (https://arxiv.org/abs/2209.04836), for nested groups too.
        seed: of the shuffled baseline that the report compares with, of the matcher "random" and of the random starts of
            "weights".

    Returns:
        `perm[i]` is B's unit that goes to A's slot `i`. `.report` has the matched correlation and the
        percentage moved, per group.

    Raises:
        MatchError: moments of another plan, or scores that are not finite.
        FileError: the state dicts are not of the plan's network, or not finite.
        UsageError: no such matcher.
    """
    from permgraph.matching.matchers import match as run

    if not isinstance(moments, (tuple, list)):
        return run(plan, moments, matcher, seed)
    return run(plan, _weights(plan, moments, "match"), matcher, seed)


def match_many(
    plan: Plan,
    evidence: Mapping[tuple[int, int], Moments] | Sequence[Mapping[str, Any]],
    matcher: str = "correlation",
    align: str = "first",
    seed: int = 0,
) -> list[Permutations]:
    """The permutations that bring the units of several networks into the order of the first, one for each network.

    Each is into one order that all share, so they are consistent: from C to B and from B to A is from C to A.

    Args:
        evidence: what `calibrate` returned for pairs of networks, {(i, j): moments} with i < j, counted from 0: those of the first
            with each other, and of all pairs for "many" and "universe"; or, for the matcher "weights", the state dicts of all.
        matcher: as for `match`.
        align: "first" (each is matched with the first alone), "many" (each in turn with the mean of all others, MergeMany of
            https://arxiv.org/abs/2209.04836), "universe" (the same sum over all pairs, as in https://arxiv.org/abs/2405.17897,
            climbed with several of the networks as a start: the best).
        seed: as for `match`, and of the order in which networks take turns.

    Returns:
        Permutations as of `match`, those of the first in order. `.report["many"]` of the others says what all pairs reach.

    Raises:
        MatchError: moments of a pair are missing, or of another plan or other networks.
        FileError: state dicts are not of the plan's network, or not finite.
        UsageError: no such matcher or way, or fewer than two networks.
    """
    from permgraph.errors import UsageError
    from permgraph.ir.names import letter
    from permgraph.matching.many import match_many as run
    from permgraph.weights.planned import numbers_in

    if isinstance(evidence, Mapping):
        if not evidence:
            raise UsageError(
                "match_many: no moments of any pair. Calibrate the first network with each other."
            )
        return run(plan, 1 + max(j for _, j in evidence), evidence, None, matcher, align, seed)
    states = [
        numbers_in(plan, state, f"state dict of {letter(number)}") for number, state in enumerate(evidence)
    ]
    return run(plan, len(states), None, states, matcher, align, seed)


def compare(
    plan: Plan,
    state_a: Mapping[str, Any],
    state_b: Mapping[str, Any],
    seed: int = 0,
    shuffles: int = 19,
) -> Similarity:
    """How alike two networks are, whatever the order of their units: the cosine of their weights, in place and matched.

    Args:
        seed: of what is drawn at random.
        shuffles: how often the numbers of B's tensors are shuffled and matched, for `p_matched`.

    Returns:
        `.in_place` and `.p_in_place` (how often a random order of B is as much like A: a test of whether B's units are in A's
        order), `.matched`, `.shuffled` and `.p_matched` (how often shuffled numbers are matched as well). `.text()`.

    Raises:
        PlanError: the plan moves nothing.
        FileError: the state dicts are not of the plan's network, or not finite.
    """
    from permgraph.matching.similarity import compare as run

    return run(plan, _weights(plan, (state_a, state_b), "compare"), seed, shuffles)


def reorder(plan: Plan, state_dict: Mapping[str, Any], pattern: str = "2:4", seed: int = 0) -> Reordered:
    """The permutations under which N:M sparsity keeps most of the weights' magnitude: `apply` them, then prune.

    Pool and Yu, Channel permutations for N:M sparsity (NeurIPS 2021), for any network and any group, heads included. Counted are
    the weights of products, by the axis that is summed over, where the plan moves it. No number is set to zero here.

    Args:
        pattern: "N:M": of every M neighbours on that axis N are kept, those of the largest magnitude.
        seed: of the search.

    Returns:
        `.perms`; `.rows`, of every tensor the magnitude that is kept `before` and `after`, and the `most` that any order could
        keep; `.total`; `.efficacy`; `.left_out`, whose length M does not divide.

    Raises:
        PlanError: no product sums over units that the plan moves, or its mode does not keep the function.
        FileError: the state dict is not of the plan's network, or not finite.
        UsageError: no such pattern.
    """
    from permgraph.compression.pattern import Pattern
    from permgraph.compression.reorder import reorder as run
    from permgraph.weights.planned import numbers_in

    wanted = Pattern.parse(pattern)
    return run(plan, numbers_in(plan, state_dict, "state dict"), wanted, seed)


def find_factors(
    trace: Trace, spec: PermSpec | None = None, kinds: Sequence[str] = ("signs", "scales", "rotations")
) -> tuple[Factor, ...]:
    """By what the units of every group may be multiplied, beside changing places: the function stays.

    Signs pass where functions are odd (tanh), positive scales where they are homogeneous (ReLU), rotations where nothing looks at
    units one by one (the channels inside a head). Found on the trace, as groups are, from what each op commutes with; an op
    that the table lacks commutes with nothing.

    Args:
        spec: the groups (default: those that `infer` finds).
        kinds: what to look for.

    Returns:
        A `Factor` for every way: `.group`, `.kind`, and the exponent at each place. Parametrized weights are looked at
        as they are stored.

    Raises:
        UsageError: no such kind.
    """
    from permgraph.transformations.find import find_factors as run
    from permgraph.transformations.find import kinds_of

    return run(trace, spec or infer(trace), kinds_of(",".join(kinds)))


def fit_factors(
    plan: Plan,
    factors: Sequence[Factor],
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    perms: Permutations | None = None,
    moments: Moments | None = None,
) -> FittedFactors:
    """The factors of a plan's groups that bring B's weights to A's.

    Signs and rotations maximise the inner product of the weights (orthogonal Procrustes), scales bring the norms of what a unit
    owns together.

    Args:
        a, b: state dicts of torch tensors or numpy arrays.
        perms: those that bring B's units to A's; left out, they are in one order.
        moments: of A's and B's activations: signs and rotations are read off these, instead of the weights, where they hold them.

    Returns:
        `.done`, for `multiply` of B aligned by `apply`; the distance of the weights `.before` and `.after`, relative to A's.

    Raises:
        FileError: a state dict is not of the plan's network, or not finite.
        PlanError: the permutations are of another plan.
    """
    from permgraph.transformations.checkpoints import fit_factors as run
    from permgraph.transformations.checkpoints import values_in

    return run(plan, factors, values_in(plan, a, "A"), values_in(plan, b, "B"), perms, moments)[0]


def multiply(spec: PermSpec, done: Sequence[Multiplied], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A new state dict with every unit multiplied, in the types that it is in; torch tensors or numpy arrays.

    Args:
        done: what `fit_factors` fitted (`.done`, for weights in the order of A's units), or `random_factors` drew.

    Raises:
        FileError: the state dict is not of the spec's network.
        PlanError: a rotation past norms whose scales are not one; see `fold_factors`.
    """
    from permgraph.transformations.checkpoints import multiply_state

    return multiply_state(spec, done, state_dict)


def fold_factors(
    spec: PermSpec, factors: Sequence[Factor], state_dict: Mapping[str, Any]
) -> tuple[Multiplied, ...]:
    """For `multiply`: what makes the scales of norms one, where what reads them takes them up; the function stays.

    A rotation of the residual stream past RMS norms asks for it (`Factor.ones`), of A and of B. Scales that are not all positive
    are left.

    Raises:
        FileError: the state dict is not of the spec's network.
    """
    from permgraph.transformations.checkpoints import fold_state

    return fold_state(spec, factors, state_dict)


def random_factors(spec: PermSpec, factors: Sequence[Factor], seed: int = 0) -> tuple[Multiplied, ...]:
    """Random values for factors: signs by coin, scales from a quarter to four, orthogonal matrices by Haar's measure."""
    from permgraph.transformations.values import random_values

    return tuple(random_values(spec, factors, seed))


def verify_factors(
    model: nn.Module,
    example_inputs: Any,
    spec: PermSpec,
    done: Sequence[Multiplied],
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Check:
    """The function check of factors, in float64: each by itself, and all together. The model is not touched.

    Args:
        done: as for `multiply`; the values do not matter, the function has to stay for all.
        seed: of the noise on the weights.

    Returns:
        A `Check`, as of `verify`: `.kept`, the largest relative `.change`, and its `.limit`.

    Raises:
        PlanError: the model has no weights.
        CheckError: it is of another architecture, or its outputs are all NaN.
    """
    from permgraph.frontend.arguments import call_of
    from permgraph.verification.factor_check import check_factors

    args, named = call_of(example_inputs, kwargs)
    return check_factors(model, args, spec, done, named, seed)


def slices(spec: PermSpec, groups: str = "all", exclude: str = "") -> dict[str, Any]:
    """What every unit of every group owns, tensor by tensor: for structured pruning, in plain lists (`json.dumps` takes them).

    Args:
        groups, exclude: as for `plan`.

    Returns:
        What the command `slices` writes, see docs/json.md: `["groups"]`, each with `["slices"]`, each with the `tensor`, the
        `axis` and the `coordinates` on it, nested as (copies of the group, unit, what it owns).

    Raises:
        SelectionError: nothing like that can be selected.
    """
    from permgraph.compression.slices import slices_json
    from permgraph.planning.selection import select

    return slices_json(spec, select(spec, groups, exclude).names)


def remove(
    spec: PermSpec, units: Mapping[str, Any], state_dict: Mapping[str, Any], *, allow_tables: bool = False
) -> dict[str, Any]:
    """A new, smaller state dict, without some units of some groups: channels, heads, hidden units, wherever they are.

    It computes what the network computes with these units silent, but where something is averaged over them (a norm). What code
    or a configuration holds, a number of heads, the `groups` of a convolution, is to be changed beside it.

    Args:
        units: group → the numbers of units that go: {"ffn.3": [0, 7], "heads.3": [2]}. Of a group within others the same in each
            copy, or an array with as many for each, (*copies, removed): {"heads.3/v": [[0, 1], [5, 9], …]}.
        allow_tables: leave integer tables that the groups depend on as they are, instead of refusing: they may number units.

    Raises:
        PlanError: no such unit, all units of a group, units that are whole modules, or rows that would differ in length.
        SelectionError: no such group.
        FileError: the state dict is not of the spec's network.
    """
    from permgraph.compression.slices import remove as run

    return run(spec, units, state_dict, allow_tables)


def _weights(plan: Plan, states: Sequence[Mapping[str, Any] | Fitted], verb: str) -> Weights:
    """Two state dicts by the names of a plan. Raises UsageError where they are something else."""
    from permgraph.errors import UsageError
    from permgraph.fitting import weights_of
    from permgraph.matching.weights import Weights
    from permgraph.weights.fitted import Fitted
    from permgraph.weights.planned import numbers_in

    one, other = states if len(states) == 2 else (None, None)
    if verb == "match" and isinstance(one, Mapping) and isinstance(other, Fitted):
        return weights_of(plan, one, other)
    given = [state for state in states if isinstance(state, Mapping)]
    if len(given) != 2 or len(states) != 2:
        kinds = ", ".join(type(state).__name__ for state in states)
        raise UsageError(
            f"{verb}: got ({kinds}); give two state dicts, of model_a.state_dict() and model_b.state_dict()."
        )
    a, b = (
        numbers_in(plan, state, f"state dict of {whose}") for state, whose in zip(given, "AB", strict=True)
    )
    return Weights.of(plan, a, b)


def assign(score: Any, warm: WarmStart | None = None) -> IntArray:
    """The one-to-one matching of rows and columns with the largest total score, exact: `perm[i]` is the column of row i.

    Large tables are solved several times faster than by scipy's `linear_sum_assignment`, and the optimum is proved by
    its duals. Among equally good matchings rows keep the column of their own number where they can.

    Args:
        score: (n, n), finite, larger is better; numpy or anything that it converts. Computed in float64.
        warm: for scores that differ little from one to the next: `warm = pg.WarmStart()`, given with each of them. The
            result is the same, and three to five times sooner for large tables; where they differ much, later.

    Raises:
        MatchError: the score is not square, or not finite.
    """
    from permgraph.matching.assignment import assign as run

    return run(score, warm=warm)


def apply(plan: Plan, perms: Permutations, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A new state dict with the plan's tensors permuted, `new = old.take(perm, axis)`. Bits are kept.

    Raises:
        PlanError: a tensor is missing or has another shape, or an index array is not a permutation.
    """
    from permgraph.weights.apply import apply as run

    return run(plan, perms, state_dict)


def unapply(plan: Plan, perms: Permutations, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `apply`, bit for bit. Raises PlanError."""
    from permgraph.weights.apply import unapply as run

    return run(plan, perms, state_dict)


def merge(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    weights: tuple[float, float] = (0.9, 0.1),
    *,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, tuple[float, float]] | None = None,
    allow_nonfinite: bool = False,
    parametrized: str = "weight",
    method: str = "average",
    base: Mapping[str, torch.Tensor] | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """`w_A · A + w_B · B` of two state dicts with the same tensors, computed in float32; or another method of `permgraph methods`.

    Args:
        weights: of A and of B.
        dtype: of the floating-point results; A's, tensor by tensor, when not given.
        tensor_weights: glob on A's keys → weights of the tensors it matches; the last match wins.
        allow_nonfinite: merge NaN and infinity instead of refusing them.
        parametrized: of weights that are computed from stored parts (weight norm, spectral norm): "weight" averages what
            is computed; "direction" does so and interpolates its norm, which an average shrinks; "parts" averages each
            stored tensor, so that B's share depends on how long its parts happen to be.
        method: "average"; or "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "della", "breadcrumbs", which run mergekit
            (`pip install 'permgraph[mergekit]'`) on the aligned pair. Running statistics and weights that are computed from parts are
            averaged, integers are A's.
        base: of the methods that merge differences: the network to take them from, in A's order.
        parameters: of the method, as mergekit names them: {"density": 0.5}.
        seed: of what a method draws, for each tensor anew.

    Raises:
        FileError: keys or shapes differ, or a value is not finite.
        UsageError: weights that are not two finite numbers; no such method, or what it needs is missing.
    """
    from permgraph.weights.interpolate import merge as run
    from permgraph.weights.methods import choose

    return run(
        state_a,
        state_b,
        weights,
        dtype=dtype,
        tensor_weights=tensor_weights,
        allow_nonfinite=allow_nonfinite,
        parametrized=parametrized,
        method=choose(method, base is not None, parameters, seed),
        base=base,
    )


def fit(
    plan: Plan,
    model_a: nn.Module,
    model_b: nn.Module,
    example_inputs: Any,
    layers: Mapping[str, Sequence[int]] | None = None,
) -> Fitted:
    """A narrower or shallower network of A's family, laid out in A's shapes, to be matched and merged with A.

    B's units take the first slots of A's groups, and slots without one hold zeros: B then is a network of A's shapes. By weights,
    `match(plan, (state_a, fitted), "weights")` gives each of B's units a slot of its own, that where B is nearest to A: the rectangular
    assignment. By activations, `.state` is calibrated and matched as any other. `merge_fitted` keeps A's number where B has none.

    Args:
        plan: of A.
        model_a, model_b: A the wider and deeper one.
        example_inputs: as for `trace`; both take them.
        layers: path of a list of layers → for each layer of B the number of that of A it goes with; by position, from the first to
            the last, where it is not given. Layers of A that none goes with are left as they are, and are matched by weights only.

    Returns:
        `.state` (B in A's shapes), `.held` (1 where a number is B's), `.groups` (B's group → A's), `.layers`.

    Raises:
        PlanError: B is the wider or deeper one, its operations or the sizes of its heads differ, or a width differs whose units may not move.
        VerificationError: in A's widths B would no longer compute what it computes, as under a norm over a narrower stream.
        UsageError: a pairing of layers that is not one.
    """
    from permgraph.fitting import fit as run

    return run(plan, model_a, model_b, example_inputs, layers)


def pair_layers(
    model_a: nn.Module,
    model_b: nn.Module,
    path: str,
    batches: Iterable[Any],
    *,
    inputs: Callable[[Any], Any] | str | int | None = None,
) -> tuple[int, ...]:
    """Which layer of a deeper A each layer of B is most like, rising: linear CKA (https://arxiv.org/abs/1905.00414), for `fit`.

    Args:
        path: of the list of layers in both, "encoder.layers".
        batches, inputs: as for `calibrate`; the samples are those of the first axis, four or more in a batch.

    Returns:
        For each layer of B the number of that of A, those with the largest sum of likenesses: `fit(…, layers={path: …})`.

    Raises:
        MatchError: no batches, batches that are too small, or a layer that is not called by itself.
        UsageError: no such list of layers, or B's is the longer one.
    """
    from permgraph.matching.layer_pairs import pair_layers as run

    return run(model_a, model_b, path, batches, inputs)[0]


def merge_fitted(
    plan: Plan,
    perms: Permutations,
    state_a: Mapping[str, torch.Tensor],
    fitted: Fitted,
    weights: tuple[float, float] = (0.9, 0.1),
) -> dict[str, torch.Tensor]:
    """`w_A · A + w_B · B` where B, as `fit` laid it out and `perms` bring it to A, has a number; A's own elsewhere.

    Raises:
        PlanError: permutations of another plan.
        FileError: a value is not finite.
    """
    from permgraph.weights.apply import apply as run
    from permgraph.weights.fitted import merge_fitted as merged

    aligned, held = run(plan, perms, fitted.state), run(plan, perms, fitted.held)
    return merged(state_a, aligned, held, weights)


def merge_many(
    states: Sequence[Mapping[str, torch.Tensor]],
    weights: Sequence[float] | None = None,
    *,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, tuple[float, ...]] | None = None,
    allow_nonfinite: bool = False,
    parametrized: str = "weight",
) -> dict[str, torch.Tensor]:
    """The weighted sum of several state dicts with the same tensors, as `merge` of two; equal weights when none are given.

    Args:
        states: that of A first, which the result takes its keys and types from.
        weights: one for each.
        dtype, tensor_weights, allow_nonfinite, parametrized: as for `merge`.

    Raises:
        FileError: keys or shapes differ, or a value is not finite.
        UsageError: fewer than two state dicts, or not one finite weight for each.
    """
    from permgraph.errors import UsageError
    from permgraph.weights.interpolate import merge_states

    if isinstance(states, Mapping) or len(states) < 2:
        raise UsageError("merge_many: give a list of two or more state dicts.")
    return merge_states(
        states,
        (1 / len(states),) * len(states) if weights is None else tuple(weights),
        dtype=dtype,
        tensor_weights=tensor_weights,
        allow_nonfinite=allow_nonfinite,
        parametrized=parametrized,
    )


def matched_weights(
    plan: Plan, perms: Permutations, weights: tuple[float, float] = (0.5, 0.5)
) -> dict[str, tuple[float, float]]:
    """Weights per tensor, less of B where its units matched badly: `merge(…, tensor_weights=matched_weights(plan, perms))`.

    Args:
        perms: what `match` returned, by activations: the weight of B in a tensor is its share in `weights`, times the mean
            matched correlation of the groups that lie on it.

    Returns:
        Glob of a tensor's name → weights of A and B.

    Raises:
        MatchError: no correlation was measured.
    """
    from permgraph.weights.ratios import matched_weights as run

    return run(plan, perms, weights)


def replay(
    merged: str | Path,
    a: str | Path,
    b: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    plan: str | Path | None = None,
    perms: str | Path | Sequence[str | Path] | None = None,
    base: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Merge again what the command `merge` merged, to the same bytes of weights; from its record, and no model is built.

    Args:
        merged: what `merge` wrote; its record holds the weights, the options, and digests of all else.
        a, b: the models that were merged; `b` is a list where there were more than two, of all but the first.
        out: where the result is written, in the layout of `merged`.
        plan: the file of its plan; the one that lies in `merged` when not given.
        perms: the file of its permutations, or a list, one for each in `b`; the same.
        base: the base network, where it was merged by differences from one (`--method ties`).
        force: replace `out`, if permgraph wrote it.

    Returns:
        `out`.

    Raises:
        PlanError: the plan, the permutations, A, B or the base are not those that were merged, the weights come out otherwise, or the merge
            took what a record does not hold (`--repair`). Nothing is written then.
        FileError: a file is missing, damaged, or in the way.
    """
    from pathlib import Path

    from permgraph.provenance import replay_merge

    others, files = (
        [Path(x) for x in ([] if y is None else [y] if isinstance(y, (str, Path)) else y)] for y in (b, perms)
    )
    plan, base = (None if path is None else Path(path) for path in (plan, base))
    return replay_merge(Path(merged), Path(a), others, Path(out), plan, files, force, base)


def verify(
    model: nn.Module,
    example_inputs: Any,
    spec: PermSpec | Plan,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Check:
    """The function check: how much the outputs change when every selected group moves, in float64.

    Norm scales, biases and running statistics are randomised first: at their initial values a wrong spec passes.
    Random ops give constants, so that no draw decides.

    Returns:
        `.kept`, `.change` (largest relative change of any output), `.limit`; on failure `.groups` and
        `.tensors` name what is wrong. It compares with numbers by its change: `verify(…) < 1e-9`.

    Raises:
        PlanError: the spec or plan does not fit the model.
        VerificationError: nothing can be compared.
    """
    from permgraph.frontend.arguments import call_of
    from permgraph.verification.function_check import verify as run

    args, named = call_of(example_inputs, kwargs)
    return run(model, args, spec, named, seed)


def why(trace: Trace, axis: str, other: str | None = None, free_output: bool = False) -> list[Reason]:
    """The chain of operations that ties `axis` to `other`, pins it, or ties it to its neighbours.

    Args:
        axis: written "encoder.layers.3.attention.q_proj.weight[0]".
        other: another axis, written so.

    Returns:
        One reason per step; empty when nothing relates the two.

    Raises:
        UsageError: no such tensor or axis.
    """
    from permgraph.reporting.explain import why as run

    return run(trace, axis, other, free_output)


def draw(
    trace: Trace,
    path: str | Path,
    plan: Plan | None = None,
    *,
    format: str | None = None,
    direction: str = "TB",
    unfold: bool = False,
    groups: str = "",
    layer: str = "",
    free_output: bool = False,
) -> Path:
    """Draw the permutation graph to a file. Returns its path.

    Args:
        plan: the groups it selects are drawn strong, all others pale.
        format: "svg", "png", "pdf" or "dot"; by the suffix of `path` when not given.
        direction: "TB", from the top down in columns, or "LR", from the left to the right.
        unfold: draw every copy of repeated layers instead of one, "× 12".
        groups: draw only where these groups are (the notation of `plan`); everything when empty.
        layer: draw only the module of this path, and what it is connected to.
        free_output: as in `infer`.

    Raises:
        FileError: the file cannot be written or the layout failed.
        PlanError: the plan is of another network.
        UsageError: no such format, direction, group or layer.
    """
    from permgraph.errors import PlanError
    from permgraph.planning.selection import select
    from permgraph.reporting.drawing.picture import Options, picture
    from permgraph.reporting.drawing.render import render

    if plan is not None and plan.fingerprint != trace.fingerprint:
        raise PlanError(
            f"the plan was made for {plan.spec.model}, another network than the trace of {trace.model}."
        )
    spec = plan.spec if plan is not None else infer(trace, free_output)
    names = select(spec, groups).names if groups else ()
    return render(picture(trace, spec, plan, Options(direction, unfold, names, layer)), path, format)


def view(
    trace: Trace,
    path: str | Path,
    plan: Plan | None = None,
    *,
    perms: Permutations | None = None,
    moments: Moments | None = None,
    free_output: bool = False,
) -> Path:
    """Write a page to explore the groups in a browser: one HTML file that fetches nothing. Returns its path.

    Args:
        plan: the groups it selects are drawn strong, all others pale.
        perms: of this plan; the page then shows what moved and how well units match.
        moments: what `perms` was matched by; adds heat maps of correlation.
        free_output: as in `infer`.

    Raises:
        FileError: the file cannot be written.
        PlanError: the plan is of another network, or the permutations of another plan.
        UsageError: permutations without a plan.
    """
    from permgraph.errors import PlanError, UsageError
    from permgraph.reporting.explorer.model import model
    from permgraph.reporting.explorer.page import write
    from permgraph.reporting.explorer.results import results

    if plan is not None and plan.fingerprint != trace.fingerprint:
        raise PlanError(
            f"the plan was made for {plan.spec.model}, another network than the trace of {trace.model}."
        )
    if perms is not None and plan is None:
        raise UsageError("view: permutations need their plan, as plan=….")
    data = model(trace, plan.spec if plan else infer(trace, free_output), plan)
    if plan is not None and perms is not None:
        data["results"] = results(plan, perms, moments)
    return write(data, path)


def report(perms: Permutations | str | Path, by_section: bool = True) -> MatchingReport:
    """How well units matched and what share of them moved: the paper's Table II. Print it, or show it in a notebook.

    Args:
        perms: what `match` returned, or a file of permutations, or a folder that the command `merge` wrote.
        by_section: a row per section of the network; else a row per group.

    Raises:
        FileError, PlanError: the file or folder cannot be read, or contradicts itself.
    """
    from pathlib import Path

    from permgraph.ir import Permutations
    from permgraph.many import matching_alone
    from permgraph.reporting.sections import MatchingReport

    found = perms if isinstance(perms, Permutations) else matching_alone(Path(perms))
    return MatchingReport(found.report, by_section)


def lint(
    specification: str | Path,
    target: Trace | str,
    *,
    free_output: bool = False,
    measure: bool = True,
    model_class: str = "",
) -> LintReport:
    """Check a hand-written permutation specification (Git Re-Basin's or mergekit's style, or ours) on a network.

    Args:
        target: a trace, or what the command line takes as TRACE or MODEL.
        free_output: hold it against the groups that permute the output too.
        measure: let unsound groups move at random and measure the change; needs a MODEL.
        model_class: of a MODEL, as in `trace`.

    Raises:
        FileError, UsageError, TraceError: as reading, building or tracing do.
    """
    from permgraph.linter.report import lint_files

    return lint_files(specification, target, free_output, measure, model_class)


def evaluate(
    encoders: Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]],
    tasks: Sequence[str | Path],
    data: str | Path,
    *,
    head: str | None = None,
    seeds: int = 1,
    parents: Sequence[str] = (),
    cache: str | Path | None = None,
    device: str = "cpu",
    bar: Callable[[str], AbstractContextManager[Callable[[int, int], None]]] | None = None,
    model_class: str = "",
) -> Evaluation:
    """Judge frozen encoders by probes on labelled audio, as SUPERB (https://arxiv.org/abs/2105.01051) and MARBLE
    (https://arxiv.org/abs/2306.10548) do, beside a log-mel baseline.

    Each clip is read at the encoder's sampling rate and run by itself, unpadded (in pieces of half a minute where it is longer);
    means and standard deviations of every layer over frames are kept. The heads of those papers, "linear" and "two-layer", read the means alone.
    What a probe chooses (layer, penalty, step) it chooses on `valid`; `test` judges. A task of transcripts (metric "wer") is judged by
    a CTC probe on the frames of every layer, and by its word error rate: less is better.

    Args:
        encoders: Hugging Face folders or checkpoint files, named as their folder, or "NAME=PATH"; or name → path. Several
            paths of one name are pre-training runs of one encoder. "PATH+PATH": encoders side by side, each layer's features
            one after the other, on tasks of classes: the ceiling of a merge.
        tasks: names in specs/tasks, or TOML files.
        data: the folder that the tasks' manifests and folders are relative to. Its tasks.csv, where there is one, is
            quoted for tasks on whole manifests (DATASET/manifest.csv).
        head: "ridge" (a screen, less than a second), "logistic", "linear" (SUPERB's weighted sum of layers), "two-layer";
            by default the task's own. Of transcripts there is "ctc".
        seeds: of the probe, for heads that draw.
        parents: names of encoders the others were merged from. Adds the label-free screen: R² (ridge, clips not fitted on)
            of every parent's layers from theirs.
        cache: folder to keep features in, memory-mapped; a temporary one when not given.
        device: of the encoders: "cpu", "cuda".
        bar: makes a progress bar of a title, as a context manager that gives a function of (done, total).
        model_class: of folders, the class that is read, as in `trace`. Layers are those of its base model.

    Returns:
        `.results` (accuracy or word error rate, with 95 % intervals), `.predictions` (per clip), `.retained`, `.notes`; `.text()`,
        `.save(folder)`.

    Raises:
        FileError: a manifest is mistaken (the row is named), audio cannot be used, or weights do not fit.
        UsageError: no such task or head; a library of the extra `evaluate` is missing; an encoder does not take raw audio.
    """
    from permgraph.evaluation.probing import evaluate as run

    return run(
        encoders,
        tasks,
        data,
        head=head,
        seeds=seeds,
        parents=parents,
        cache=cache,
        device=device,
        bar=bar,
        model_class=model_class,
    )


def score(
    table: str | Path,
    parents: Sequence[str] = (),
    baseline: Sequence[str] = (),
    lower: Sequence[str] = (),
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Scores:
    """The score of ML-SUPERB (https://arxiv.org/abs/2305.10615, Eq. 6 of https://arxiv.org/abs/2506.11403), and which
    differences are more than chance.

    1000 · mean over tasks of (s - s_FBANK) / (s_best - s_FBANK), s_best that of the best parent. A task whose best parent
    is not above the baseline is left out, and `.refused` says so.

    Args:
        table: a csv or tsv file: results.csv of `evaluate`, with predictions.csv beside it; or columns task, encoder, item,
            correct (a row per clip; errors and words of a transcript); or task, encoder, value; or the encoder first and a column of numbers per task.
        parents: rows of the table; without them the best encoder of each task stands for them.
        baseline: rows that are the log-mel baseline, of which the strongest counts; by default those named log-mel… or FBANK….
        lower: tasks where less is better, beside those whose metric, or where none is given the last word of the name, is an
            error rate (WER, EER, ↓).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `.scores` {(encoder, domain or "all"): score}, `.refused` {task: reason}, and for a table of clips `.comparisons`: McNemar's
        exact test over folds (None of a word error rate), Holm's correction over the table, 95 % intervals by a paired bootstrap that
        draws clusters, runs and seeds. `.text()` has them as tables.

    Raises:
        FileError: a row is mistaken, or encoders were judged on different clips.
        UsageError: a name that is not in the table.
    """
    from permgraph.evaluation.scoring import score as run

    return run(table, parents, baseline, lower, resamples=resamples, seed=seed)


def export(
    model: str | Path, format: str, out: str | Path, *, model_class: str = "", force: bool = False
) -> Exported:
    """Write an encoder of raw audio as a benchmark loads it: a folder with its weights, and the small class that runs it.

    Args:
        model: a Hugging Face folder or a checkpoint file.
        format: "xares" (X-ARES, https://arxiv.org/abs/2505.16369), "mteb" (its audio benchmark MAEB), "s3prl" (SUPERB) or
            "marble" (MARBLE v2).
        out: the folder to write.
        model_class: of a folder, the class that is read, as in `trace`. What is written is its base model.
        force: replace the folder, if an earlier export wrote it.

    Returns:
        `.folder`, `.file` (what the benchmark loads), `.usage` (how to run it).

    Raises:
        UsageError: no such benchmark, or the model does not take raw audio.
        FileError: the weights do not fit, or the folder cannot be written.
    """
    from permgraph.evaluation.benchmarks import export as run

    return run(model, format, out, model_class=model_class, force=force)


__all__ = [
    "Group",
    "Moments",
    "Pair",
    "PermSpec",
    "PermgraphError",
    "Permutations",
    "Place",
    "Plan",
    "Probe",
    "Trace",
    "WarmStart",
    "apply",
    "assign",
    "calibrate",
    "calibrate_many",
    "compare",
    "draw",
    "evaluate",
    "export",
    "find_factors",
    "fit",
    "fit_factors",
    "fold_factors",
    "infer",
    "lint",
    "match",
    "match_many",
    "matched_weights",
    "merge",
    "merge_fitted",
    "merge_many",
    "multiply",
    "pair_layers",
    "plan",
    "random_factors",
    "random_permutations",
    "remove",
    "reorder",
    "replay",
    "report",
    "score",
    "slices",
    "trace",
    "unapply",
    "verify",
    "verify_factors",
    "view",
    "why",
]
