"""Merges of checkpoints, from disk to disk: tensor by tensor, all but the first permuted on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError, PlanError, UsageError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.names import letter
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.weights.apply import applied_step, find_moves
from permgraph.weights.average import Average, Side, Weights, result_dtype, weights_of
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.computed import layers_in
from permgraph.weights.dtypes import dtype_of, is_inexact
from permgraph.weights.methods import Chosen, Mixture, mergekit_version, mixture_of
from permgraph.weights.names import first, stored_names
from permgraph.weights.output import write_like
from permgraph.weights.pairing import check_shapes, planned_pairs, same_names
from permgraph.weights.quantised import refuse_quantised
from permgraph.weights.record import Applied, Merging, Mixed, Record, version
from permgraph.weights.refusals import (
    LATER,
    refuse_other_result,
    refuse_other_stored,
    refuse_other_weights,
    refuse_twice,
    refuse_untied_stored,
)
from permgraph.weights.safetensors_io import Info
from permgraph.weights.source import Source, open_planned

if TYPE_CHECKING:
    import torch


def merge_checkpoints(
    path_a: str | Path,
    path_b: str | Path,
    out: str | Path,
    weights: Weights = (0.9, 0.1),
    *,
    plan: Plan | None = None,
    perms: Permutations | None = None,
    **options: Any,
) -> Path:
    """Of two models; see `merge_files`."""
    matched = None if perms is None else (perms,)
    return merge_files((path_a, path_b), out, weights, plan=plan, perms=matched, **options)


def merge_files(
    paths: Sequence[str | Path],
    out: str | Path,
    weights: Weights,
    *,
    plan: Plan | None = None,
    perms: Sequence[Permutations] | None = None,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, Weights] | None = None,
    ignore_unexpected: Sequence[str] = (),
    allow_nonfinite: bool = False,
    force: bool = False,
    other_weights: bool = False,
    integers_of_a: bool = False,
    parametrized: str = "direction",
    method: Chosen | None = None,
    base: str | Path | None = None,
    extra: Mapping[str, bytes] | None = None,
    checked: Mapping[str, Any] | None = None,
    state: str = "",
    like: str | Path | None = None,
    base_as: str = "",
) -> Path:
    """`merge_states` from disk to disk, permuting all but the first on the way, one tensor at a time. Returns `out`.

    The result has the layout, keys and small files of A, the first, and is safetensors. With a plan, which has permutations
    for each of the others, tensors that it does not know (a head) are merged when all files have them in one shape, and
    A's otherwise; without one, all files must have the same tensors. `extra` adds small files to a folder (a model card),
    `checked` says in the record what became of the function check.
    Weights other than those that were matched are refused unless `other_weights`, integers and booleans that differ
    unless `integers_of_a`. `parametrized` is as for `merge_states`; `state` says which weights of single files, as for
    `open_checkpoint`. `method` is another one than the average, `base` the network whose differences from A and B it merges.
    `like` is an earlier result, which has to come out again, `base_as` the fingerprint of the base it had: all else is refused.
    Raises FileError, PlanError, UsageError; then `out` is as it was.
    """
    if (plan is None) != (perms is None):
        raise UsageError("a plan needs its permutations, and permutations their plan: pass both or neither.")
    matched = [""] * len(paths) if perms is None or other_weights else _matched(perms, len(paths))
    opened = [_opened(plan, path, state, known) for path, known in zip(paths, matched, strict=True)]
    a, *others = opened
    steps: tuple[Applied, ...] = ()
    if plan is not None and perms is not None:
        read = _aligned(plan, perms, opened, ignore_unexpected)
        steps = tuple(applied_step(plan, one) for one in perms)
    else:
        read = [Source(one, {}) for one in opened]
    pairs = [_pairs(plan, read[0], one, letter(i)) for i, one in enumerate(read[1:], 1)]
    of_key = weights_of(a.infos, weights, tensor_weights, len(paths))
    for source in read:
        source.checkpoint.verify()
        if plan is not None:
            refuse_other_stored(plan, source.checkpoint, source.names)
    target = None if dtype is None else dtype_of(dtype)
    shared = {key: None for key in pairs[0] if all(key in pair for pair in pairs)}
    layers = layers_in(shared, parametrized)
    based = None if base is None else _based(plan, read[0], base, state, ignore_unexpected)
    mixture = mixture_of(method, weights, layers, tensor_weights, based.numbers if based else None)
    if based and mixture:
        based.refuse_lacking([key for key in shared if is_inexact(a.infos[key].dtype) and mixture.takes(key)])
        based.refuse_other(base_as)
    average = Average(
        of_key,
        layers,
        parametrized,
        lambda key: _sides(key, read, pairs),
        target,
        allow_nonfinite,
        integers_of_a,
        block=None,
        mixture=mixture,
    )

    def finish(written: Path) -> None:
        for number, (source, known) in enumerate(zip(read, matched, strict=True)):
            if known:
                source.read_rest()
                advice = LATER if like is None else f"Give the {letter(number)} that {like} was merged from."
                refuse_other_weights(letter(number), source.checkpoint.path, known, source.weights, advice)
        if like is not None:
            refuse_other_result(
                open_checkpoint(like, converted=False), open_checkpoint(written, converted=False)
            )

    infos = {
        key: Info(info.shape, result_dtype(info.dtype, target) if key in shared else info.dtype)
        for key, info in a.infos.items()
    }
    record = Record(
        "merge",
        weights=tuple(map(float, weights)),
        b=steps[0] if steps else None,
        others=steps[1:],
        merging=Merging(
            tuple(matched) if all(matched) else (),
            {key: own for key, own in of_key.items() if own != tuple(weights)},
            parametrized,
            integers_of_a,
            state,
            _named(dtype=dtype, ignore_unexpected=ignore_unexpected, allow_nonfinite=allow_nonfinite),
            version(),
            _mixed(mixture, based),
        ),
        function_check=None if checked is None else dict(checked),
    )
    return write_like(
        a,
        Path(out),
        infos,
        average.blocks,
        record,
        force=force,
        inputs=(*(one.path for one in others), *([based.source.checkpoint.path] if based else [])),
        extra=extra,
        finish=finish,
    )


def _opened(plan: Plan | None, path: str | Path, state: str, matched: str) -> Checkpoint:
    """`state` is of single files; `matched` as for `open_planned`. Raises FileError."""
    state = "" if Path(path).is_dir() else state
    checkpoint = open_planned(plan, path, state, matched) if plan else open_checkpoint(path, state)
    refuse_quantised(checkpoint.infos, str(checkpoint.path), checkpoint.config)
    return checkpoint


def _pairs(plan: Plan | None, a: Source, other: Source, whose: str) -> dict[str, str]:
    """A's key → the other's. Raises FileError."""
    infos_a, infos = a.checkpoint.infos, other.checkpoint.infos
    if plan is None:
        found = same_names(infos_a, infos, whose)
    else:
        found = planned_pairs(a.checkpoint, other.checkpoint, a.names, other.names)
    check_shapes(infos_a, infos, found, whose)
    return found


def _sides(key: str, read: Sequence[Source], pairs: Sequence[Mapping[str, str]]) -> list[Side | None]:
    a, *others = read
    found = zip(others, pairs, strict=True)
    return [a.side(key), *(one.side(pair[key]) if key in pair else None for one, pair in found)]


class _Base:
    """The network whose differences from A and B are merged, by A's keys."""

    def __init__(self, source: Source, pairs: Mapping[str, str]) -> None:
        self.source, self.pairs = source, pairs

    def numbers(self, key: str) -> Any:
        return self.source.side(self.pairs[key]).wide(None)

    def refuse_lacking(self, keys: Sequence[str]) -> None:
        """Raises FileError."""
        lacking = [key for key in keys if key not in self.pairs]
        if lacking:
            raise FileError(
                f"{self.source.checkpoint.path}: as a base it lacks {len(lacking)} tensors that A and B share: {first(lacking)}."
            )

    def refuse_other(self, wanted: str) -> None:
        """Read it, for its fingerprint. Raises PlanError where that is not the wanted one, if any is."""
        self.source.read_rest()
        weights = self.source.weights
        if wanted and weights is not None and weights.text != wanted:
            raise PlanError(
                f"{self.source.checkpoint.path}: not the base of that merge (fingerprint {wanted[:12]}…, this has "
                f"{weights.text[:12]}…). Give that."
            )


def _based(plan: Plan | None, a: Source, path: str | Path, state: str, ignore: Sequence[str]) -> _Base:
    checkpoint = _opened(plan, path, state, "")
    checkpoint.verify()
    if plan is None:
        source = Source(checkpoint, {})
    else:
        names = stored_names(plan.spec, checkpoint.infos, str(checkpoint.path), ignore)
        refuse_untied_stored(checkpoint, names)
        source = Source(checkpoint, names, Fingerprint(plan.spec))
    return _Base(source, _pairs(plan, a, source, "the base"))


def _mixed(mixture: Mixture | None, base: _Base | None) -> Mixed | None:
    """What the record holds of a method."""
    if mixture is None:
        return None
    chosen, weights = mixture.method, base.source.weights if base else None
    return Mixed(
        chosen.name, chosen.parameters, chosen.seed, weights.text if weights else "", mergekit_version()
    )


def _matched(perms: Sequence[Permutations], count: int) -> list[str]:
    """Fingerprints of the weights that were matched, of A and of each other. Raises PlanError where they differ on A."""
    if len(perms) != count - 1:
        raise UsageError(f"{len(perms)} permutations for {count} models: each but the first needs its own.")
    of_a = {one.origin.weights_a for one in perms}
    if len(of_a) > 1:
        raise PlanError("the permutations were matched to different models as A. Match them together again.")
    return [of_a.pop(), *(one.origin.weights_b for one in perms)]


def _named(**options: object) -> tuple[str, ...]:
    """The options that were given."""
    return tuple(name for name, value in options.items() if value)


def _aligned(
    plan: Plan, perms: Sequence[Permutations], opened: Sequence[Checkpoint], ignore: Sequence[str]
) -> list[Source]:
    """A, and the others on their way to A."""
    a, *others = opened
    found = []
    for one, other in zip(perms, others, strict=True):
        names, moves = find_moves(plan, one, other.infos, str(other.path), ignore_unexpected=ignore)
        found.append(Source(other, names, Fingerprint(plan.spec), moves))
    for one in perms:
        for checkpoint in opened:
            refuse_twice(checkpoint, applied_step(plan, one))
    names = stored_names(plan.spec, a.infos, str(a.path), ignore)
    return [Source(a, names, Fingerprint(plan.spec)), *found]
