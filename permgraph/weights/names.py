"""From the tensor names of a plan to the keys of a checkpoint.

The same tensor has several names: weight norm is spelt `X.weight_g` or `X.parametrizations.weight.original0`;
the first BERT files call the scale and shift of `LayerNorm` gamma and beta;
a model with a head keeps its encoder under a prefix (`hubert.`); a tied tensor may be stored under any of its
names. Keys are only read here: what is written keeps the names it had.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from permgraph.errors import FileError, UsageError
from permgraph.ir.names import canonical
from permgraph.ir.spec import PermSpec
from permgraph.weights.beside_tensors import tensors_of
from permgraph.weights.dtypes import is_inexact

Shapes = Mapping[str, tuple[int, ...]]


def match_names(
    spec: PermSpec,
    shapes: Shapes,
    where: str = "state dict",
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
    whole: str = "plan",
) -> dict[str, str]:
    """Stored key → the plan's name for that tensor; keys the plan does not know are left out.

    Strict: a tensor of the plan that is stored nowhere, a shape that differs, or an unknown tensor beside
    the plan's raise FileError. Allowed are: missing tensors that the network never reads; unknown keys
    outside the prefix (a head), of one element at most, or matching a glob of `ignore_unexpected`.

    A missing prefix is found by name and shape; `prefix` settles it when two would do ("" for none,
    "hubert." for keys that begin so, "-hubert." for plan names that begin so). `whole` is the word of
    the messages for what `spec` lists.
    """
    names = spec.names
    keys = _spelt(shapes, names)
    if whole == "model":
        refuse_twice_spelt(shapes, where)  # a plan moves both alike, a module has room for one
    if prefix is None:
        prefix = _find_prefix(spec, shapes, names, keys, where)
    stored = {}
    for key, plain in keys.items():
        name = names.get(_to_plan(plain, prefix) or "")
        if name is not None:
            stored[key] = name
    _check_missing(spec, stored, names, shapes, where, prefix, whole)
    _check_shapes(spec, stored, shapes, where, whole)
    inside = "" if prefix.startswith("-") else prefix
    unexpected = [
        key
        for key in shapes
        if key not in stored
        and keys[key].startswith(inside)
        and not _harmless(shapes[key])
        and not any(fnmatchcase(key, glob) for glob in ignore_unexpected)
    ]
    if unexpected:
        hint = (
            "If nothing that moves flows into them, pass ignore_unexpected with a glob; else plan it all."
            if whole == "plan"
            else f"The architecture ({spec.model}) is not that of these weights."
        )
        raise FileError(
            f"{where}: {len(unexpected)} tensors unknown to the {whole}: {first(unexpected)}. {hint}"
        )
    return stored


def stored_names(
    spec: PermSpec,
    tensors: Mapping[str, Any],
    where: str,
    ignore: Sequence[str] = (),
    prefix: str | None = None,
) -> dict[str, str]:
    """`match_names` of tensors, or what is known of stored ones: integers that the plan does not know (position ids, counters) may be
    beside it."""
    tensors = tensors_of(tensors)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    tables = [key for key, tensor in tensors.items() if not is_inexact(tensor.dtype)]
    return match_names(spec, shapes, where, prefix, [*ignore, *tables])


def _spelt(shapes: Shapes, names: Mapping[str, str]) -> dict[str, str]:
    """Stored key → its spelling among the names of the plan.

    A model in `DataParallel` has a `module` in its keys, perhaps in their middle; it counts when the plan has one too.
    """
    keys = {key: canonical(key) for key in shapes}
    if any("module" in name.split(".") for name in names):
        return keys
    plain = {k: ".".join(part for part in name.split(".") if part != "module") for k, name in keys.items()}
    return plain if len(set(plain.values())) == len(set(keys.values())) else keys


def refuse_twice_spelt(keys: Iterable[str], where: str) -> None:
    """Refuse two keys that are spellings of one name: which one counts is not known. Raises FileError."""
    seen: dict[str, str] = {}
    for key in keys:
        other = seen.setdefault(canonical(key), key)
        if other != key:
            raise FileError(
                f"{where}: {other} and {key} are one tensor under two names: which one counts is not known."
            )


def first(items: Sequence[str], count: int = 20) -> str:
    """The first items, and how many more there are."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return f"{', '.join(items[:count])}{more}"


def _harmless(shape: tuple[int, ...]) -> bool:
    return math.prod(shape) <= 1


def _to_plan(key: str, prefix: str) -> str | None:
    """A canonical key as the plan would name it; None when it lies outside the prefix."""
    if prefix.startswith("-"):
        return prefix[1:] + key
    return key[len(prefix) :] if key.startswith(prefix) else None


def _find_prefix(
    spec: PermSpec, shapes: Shapes, names: Mapping[str, str], keys: Mapping[str, str], where: str
) -> str:
    """The prefix under which most tensors of the plan are stored, with their shapes; "" wins a tie."""
    votes: Counter[str] = Counter({"": 0})
    plan_tails: dict[str, list[str]] = {}
    for name in names:
        for at in (i + 1 for i, c in enumerate(name) if c == "."):
            plan_tails.setdefault(name[at:], []).append(name)
    for key, plain in keys.items():
        cuts = [0, *(i + 1 for i, c in enumerate(plain) if c == ".")]
        votes.update(plain[:at] for at in cuts if _fits(spec, names.get(plain[at:]), shapes[key]))
        votes.update(
            f"-{name[: -len(plain)]}"
            for name in plan_tails.get(plain, ())
            if _fits(spec, names[name], shapes[key])
        )
    best = max(votes.values())
    winners = sorted(p for p, n in votes.items() if n == best)
    if "" in winners or best == 0:
        return ""
    if len(winners) > 1:
        raise UsageError(
            f"{where}: the plan fits under {len(winners)} prefixes: {first([repr(w) for w in winners])}. "
            f"Say which with prefix={winners[0]!r}."
        )
    return winners[0]


def _fits(spec: PermSpec, name: str | None, shape: tuple[int, ...]) -> bool:
    return name is not None and tuple(spec.tensors[name]) == tuple(shape)


def _check_missing(
    spec: PermSpec,
    stored: Mapping[str, str],
    names: Mapping[str, str],
    shapes: Shapes,
    where: str,
    prefix: str,
    whole: str,
) -> None:
    present = set(stored.values())
    missing = [
        name
        for name in spec.tensors
        if name not in present
        and name not in spec.unused
        and not name.endswith("num_batches_tracked")  # absent from old files; a counter
    ]
    if not missing:
        return
    under = f" (looking under prefix {prefix!r})" if prefix else ""
    extra = [key for key in shapes if key not in stored]
    hint = f" Not in the {whole}: {first(extra, 5)}." if extra else ""
    raise FileError(
        f"{where}: {len(missing)} of the {whole}'s {len(spec.tensors)} tensors are missing{under}: "
        f"{first(missing)}.{hint} Is the {whole} that of these weights ({spec.model})?"
    )


def _check_shapes(spec: PermSpec, stored: Mapping[str, str], shapes: Shapes, where: str, whole: str) -> None:
    wrong = [
        f"{key}: stored {tuple(shapes[key])}, the {whole} has {tuple(spec.tensors[name])}"
        for key, name in stored.items()
        if not _fits(spec, name, shapes[key])
    ]
    if wrong:
        raise FileError(f"{where}: shapes differ from the {whole}'s ({spec.model}): {first(wrong)}.")
