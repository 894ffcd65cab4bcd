"""Fitted: the weights of a narrower or shallower network laid out in the shapes of another of its family.

B's units take the first slots of A's groups; slots without a unit hold zeros, so that nothing comes from them, and numbers that
are B's are marked. Then B is a network of A's shapes: it is matched by what matches any two, an assignment in which the empty
slots are worth nothing to anyone is the rectangular one, and in the average a number that B lacks is A's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from permgraph.errors import FileError, PlanError
from permgraph.ir.names import canonical
from permgraph.ir.spec import IntArray, PermSpec, Place
from permgraph.weights.beside_tensors import tensors_of, with_rest_of
from permgraph.weights.computed import layers_in
from permgraph.weights.layers import Layers
from permgraph.weights.names import stored_names
from permgraph.weights.tensors import held_by
from permgraph.weights.tied import refuse_untied

ONES = "running_var"  # of an empty slot: a variance that is divided by


@dataclass(frozen=True, eq=False)
class Fitted:
    """B in the shapes of A.

    state   A's key → tensor, in A's types
    held    the same keys → 1 where a number is B's, 0 where B has none; of integers, as in `state`
    groups  groups of B → those of A that they are laid in
    layers  how layers are paired, where B has fewer
    """

    state: dict[str, Any]
    held: dict[str, Any]
    groups: dict[str, str]
    layers: Layers


def fitted(
    spec_a: PermSpec,
    state_a: Mapping[str, Any],
    spec_b: PermSpec,
    state_b: Mapping[str, Any],
    layers: Layers,
) -> Fitted:
    """B's tensors laid out in A's shapes. Raises PlanError, with the reason, where that makes no sense."""
    import torch

    given, state_a = state_a, tensors_of(state_a)
    names_a = stored_names(spec_a, state_a, "state dict of A")
    names_b = stored_names(spec_b, state_b, "state dict of B")
    refuse_untied(names_a, lambda key: held_by(state_a[key]), "state dict of A")
    refuse_untied(names_b, lambda key: held_by(state_b[key]), "state dict of B")
    keys = {layers.of_a(name): key for key, name in names_b.items()}
    found: set[str] = set()
    groups = _paired_groups(spec_a, spec_b, layers)
    state: dict[str, Any] = {}
    held: dict[str, Any] = {}
    for key, tensor in state_a.items():
        name = names_a.get(key, canonical(key))
        other = keys.get(name)
        found.add(name)
        whole = tensor.is_floating_point() or tensor.is_complex()
        if not whole and other is not None and state_b[other].shape != tensor.shape:
            raise PlanError(
                f"{key}: integers of shape {tuple(state_b[other].shape)} in B and {tuple(tensor.shape)} in A say what the other "
                "weights mean, and cannot be laid into each other."
            )
        if not whole:
            state[key] = held[key] = (tensor if other is None else state_b[other]).clone()
            continue
        state[key] = torch.full_like(tensor, float(key.endswith(ONES)))
        held[key] = torch.zeros(tensor.shape)
        if other is None:
            if not layers.left_out(name):
                raise PlanError(
                    f"{key}: A has it and B has nothing like it. Two networks of one family are needed."
                )
            continue
        at = tuple(
            torch.from_numpy(
                _coordinates(spec_a, spec_b, names_b[other], name, axis, tensor, state_b[other], groups)
            )
            for axis in range(tensor.dim())
        )
        grid = torch.meshgrid(*at, indexing="ij") if at else ()
        state[key][grid] = state_b[other].to(tensor.dtype)
        held[key][grid] = 1
    if lost := next((key for name, key in keys.items() if name not in found), ""):
        raise PlanError(
            f"{lost}: B has it and A has nothing like it. A has to be the wider and the deeper one."
        )
    _refuse_part_of_a_norm(held)
    return Fitted(with_rest_of(given, state), held, groups, layers)


def merge_fitted(
    state_a: Mapping[str, Any],
    aligned: Mapping[str, Any],
    held: Mapping[str, Any],
    weights: tuple[float, ...],
) -> dict[str, Any]:
    """`w_A · A + w_B · B` where B has a number, and A's own where it has none. All by A's keys; `held` moved as B was.

    Raises FileError where something is not finite.
    """
    import torch

    from permgraph.weights.interpolate import merge_states

    given, state_a = state_a, tensors_of(state_a)
    missing = [key for key in state_a if key not in held or key not in aligned]
    if missing:
        raise FileError(
            f"{missing[0]}: nothing says which of its numbers are B's. Give B as `fit` laid it out for this A."
        )
    own = {key: held[key].to(tensor.device) != 0 for key, tensor in state_a.items()}
    whole = {key: t.is_floating_point() or t.is_complex() for key, t in state_a.items()}
    # what B lacks is A's before it is averaged, too: no norm is taken of empty slots
    filled = {k: torch.where(own[k], aligned[k], t) if whole[k] else t for k, t in state_a.items()}
    mean = merge_states([state_a, filled], weights)
    merged = {k: torch.where(own[k], mean[k], t) if whole[k] else t.clone() for k, t in state_a.items()}
    return with_rest_of(given, merged)


def _paired_groups(a: PermSpec, b: PermSpec, layers: Layers) -> dict[str, str]:
    """B's group → A's, by the places that they have. Raises PlanError where the networks do not move alike."""
    places: dict[tuple[str, int], list[Place]] = {}
    for place in a.places:
        places.setdefault((place.tensor, place.axis), []).append(place)
    mine: dict[tuple[str, int], list[Place]] = {}
    for place in b.places:
        mine.setdefault((layers.of_a(place.tensor), place.axis), []).append(place)
    found: dict[str, str] = {}
    for where, own in mine.items():
        theirs = places.get(where, [])
        if [(len(p.layout), p.positions.shape[-1]) for p in own] != [
            (len(p.layout), p.positions.shape[-1]) for p in theirs
        ]:
            raise PlanError(
                f"{where[0]}[{where[1]}]: {', '.join(n for p in own for n in p.layout) or 'nothing'} may move there in B, "
                f"{', '.join(n for p in theirs for n in p.layout) or 'nothing'} in A: their operations differ, so their units "
                "cannot be paired."
            )
        for one, other in zip(own, theirs, strict=True):
            for name, of_a in zip(one.layout, other.layout, strict=True):
                if found.setdefault(name, of_a) != of_a:
                    raise PlanError(
                        f"{where[0]}[{where[1]}]: {name} of B is {found[name]} of A elsewhere and {of_a} here: their "
                        "operations differ, so their units cannot be paired."
                    )
    for name, of_a in found.items():
        _refuse_wider(a, b, name, of_a)
    return found


def _refuse_wider(a: PermSpec, b: PermSpec, name: str, of_a: str) -> None:
    mine, theirs = b.by_name[name], a.by_name[of_a]
    if mine.size > theirs.size:
        raise PlanError(
            f"{name}: B has {mine.size:,} units and A {theirs.size:,}: B is the wider one. Name the wider model as A."
        )
    if mine.ancestors and mine.size != theirs.size:
        raise PlanError(
            f"{name}: {mine.size:,} units inside each of {mine.ancestors[-1]} in B and {theirs.size:,} in A (head sizes differ, "
            "say): what each holds is computed otherwise, so one cannot be laid into the other."
        )


def _coordinates(
    a: PermSpec,
    b: PermSpec,
    name_b: str,
    name_a: str,
    axis: int,
    tensor_a: Any,
    tensor_b: Any,
    groups: Mapping[str, str],
) -> IntArray:
    """For every coordinate of B on an axis of a tensor, the one of A that it is laid on. Raises PlanError."""
    length_a, length_b = (
        tensor_a.shape[axis] if tensor_a.dim() == tensor_b.dim() else -1,
        tensor_b.shape[axis],
    )
    if length_a == length_b:
        return np.arange(length_b)
    own = [place for place in b.places if (place.tensor, place.axis) == (name_b, axis)]
    theirs = [place for place in a.places if (place.tensor, place.axis) == (name_a, axis)]
    if not own or any(place.rows is not None for place in (*own, *theirs)):
        raise PlanError(
            f"{name_a}[{axis}]: {length_b} in B and {length_a} in A, and its units may not move freely, so there is no place to "
            "lay them. Only widths whose units may be re-ordered can differ."
        )
    at = np.full(length_b, -1, dtype=np.int64)
    taken: list[IntArray] = []
    for one, other in zip(own, theirs, strict=True):
        small, large = one.positions.array(), other.positions.array()
        part = large[tuple(slice(n) for n in small.shape[:-1])]
        at[small[small >= 0]] = part[small >= 0]
        taken.append(large.ravel())
    fixed = np.setdiff1d(np.arange(length_a), np.concatenate(taken))
    if len(fixed) != int((at < 0).sum()):
        raise PlanError(
            f"{name_a}[{axis}]: {int((at < 0).sum())} of its numbers stay in B and {len(fixed)} in A."
        )
    at[at < 0] = fixed
    return at


def _refuse_part_of_a_norm(held: Mapping[str, Any]) -> None:
    """Weight norm over units of which B has some: the norm of the average is not the average of norms. Raises PlanError."""
    for layer in layers_in(held, "weight").values():
        for key in layer.keys.values():
            if 0 < float(held[key].mean()) < 1:
                raise PlanError(
                    f"{key}: of a weight that is computed from parts ({layer.kind}), and narrower in B: remove the "
                    "parametrization first (torch.nn.utils.parametrize.remove_parametrizations)."
                )
