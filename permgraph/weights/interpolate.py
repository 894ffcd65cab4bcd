"""Weighted averages of state dicts, `w_A · A + w_B · B + …` (Wortsman et al., Model soups, 2022); those of files are in
`merge_files.py`.

The sum is taken in float32 (float64 where a tensor is float64) and written in A's dtype. Buffers of integers
and booleans are A's, and have to hold the same values in all. Weights that the network computes from parts (weight norm,
spectral norm) are averaged as computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError
from permgraph.ir.names import letter
from permgraph.weights.average import Average, Side, Weights, result_dtype, weights_of
from permgraph.weights.beside_tensors import tensors_of, with_rest_of
from permgraph.weights.computed import layers_in
from permgraph.weights.dtypes import Array, dtype_of, is_inexact
from permgraph.weights.methods import Chosen, mixture_of
from permgraph.weights.pairing import check_shapes, same_names, tied_as_in_a
from permgraph.weights.tensors import held_by, tensor_of

if TYPE_CHECKING:
    import torch


def merge(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    weights: Weights = (0.9, 0.1),
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Of two state dicts; see `merge_states`."""
    return merge_states((state_a, state_b), weights, **options)


def merge_states(
    states: Sequence[Mapping[str, torch.Tensor]],
    weights: Weights,
    *,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, Weights] | None = None,
    allow_nonfinite: bool = False,
    integers_of_a: bool = False,
    parametrized: str = "weight",
    method: Chosen | None = None,
    base: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The weighted sum of state dicts with the same tensors; keys as the first, A, names them, a new dict.

    An extra state of a module is A's. Tensors that are tied in A stay tied: where another's are not, these are averaged first, and a warning says so.

    weights         of A, of B, and so on
    dtype           of the floating-point results; A's, tensor by tensor, when not given
    tensor_weights  glob on A's keys → weights of the tensors it matches; the last match wins
    integers_of_a   take A's integers and booleans where others hold others, instead of refusing
    parametrized    of weights computed from parts: "weight" averages what is computed, "direction" the same with the
                    interpolated norm, "parts" each stored tensor for itself
    method, base    another method than the average, and the network whose differences from A and B it merges
    Raises FileError for differing keys, shapes or integers and for NaN or inf, UsageError for weights.
    """
    given, states = states[0], [tensors_of(state) for state in states]
    state_a, *others = states
    of_key = weights_of(state_a, weights, tensor_weights, len(states))
    tied = {
        key: (a.data_ptr(), a.shape, a.stride()) for key, a in state_a.items() if a.numel() and not a.is_meta
    }
    same = []
    for number, other in enumerate(others, 1):
        pairs = same_names(state_a, other, letter(number))
        check_shapes(state_a, other, pairs, letter(number))
        named = {key: other[theirs] for key, theirs in pairs.items()}
        same.append(tied_as_in_a(tied, named, of_key, letter(number)))
    target = None if dtype is None else dtype_of(dtype)
    layers = layers_in(state_a, parametrized)
    average = Average(
        of_key,
        layers,
        parametrized,
        lambda key: [_side(key, state[key]) for state in (state_a, *same)],
        target,
        allow_nonfinite,
        integers_of_a,
        mixture=mixture_of(
            method, weights, layers, tensor_weights, None if base is None else _based(state_a, base)
        ),
    )
    done: dict[Any, torch.Tensor] = {}  # what is one tensor in A is one in the result
    result: dict[str, torch.Tensor] = {}
    for key, a in state_a.items():
        if tied.get(key, key) not in done:
            (held,) = average.blocks(key)
            made = dtype_of(a.dtype)
            assert made is not None
            kind = result_dtype(made, target) if is_inexact(made) else made
            fresh = held.copy() if not held.flags.owndata else held
            done[tied.get(key, key)] = tensor_of(fresh, kind).to(a.device)
        result[key] = done[tied.get(key, key)]
    return with_rest_of(given, result)


def _based(state_a: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> Callable[[str], Array]:
    """The numbers of a base network by A's keys. Raises FileError."""
    pairs = same_names(state_a, base, "the base")
    check_shapes(state_a, base, pairs, "the base")
    return lambda key: _side(key, base[pairs[key]]).wide(None)


def _side(key: str, tensor: Any) -> Side:
    """A tensor in memory, read whole."""
    held, dtype = held_by(tensor)
    if dtype is None:
        raise FileError(f"{key}: {tensor.dtype} tensors are not averaged.")
    return Side(held.shape, dtype, lambda rows: held if rows is None else held[rows])
