"""From a batch of data to the arguments of a forward: what a loader yields is rarely all input.

tensor                       the first argument
dict, BatchEncoding          keyword arguments; keys that the forward does not take are left out, labels too
tuple                        positional arguments
list, as a DataLoader gives  the inputs come first: as many as the forward needs; what follows are labels
Pair(x, y)                   x for A, y for B; each of the above
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from permgraph.errors import MatchError

if TYPE_CHECKING:
    from torch import nn

LABELS = ("labels", "label", "label_ids", "targets", "target")
Call = tuple[tuple[Any, ...], dict[str, Any]]
Inputs = Callable[[Any], Any] | str | int | None


@dataclass(frozen=True)
class Pair:
    """One batch in two forms, for A and for B: at two sampling rates, say. Row by row the same samples."""

    a: Any
    b: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.a, self.b))


def sides(batch: Any, inputs: Inputs = None) -> tuple[Any, Any]:
    """What A and B receive of a batch.

    inputs   picks the inputs where the batch holds more: a function of the batch, or a key or index of it

    Raises MatchError when there is nothing under that key.
    """
    picked = batch if inputs is None else _picked(batch, inputs)
    return (picked.a, picked.b) if isinstance(picked, Pair) else (picked, picked)


def _picked(batch: Any, inputs: Callable[[Any], Any] | str | int) -> Any:
    if isinstance(batch, Pair):
        return Pair(_picked(batch.a, inputs), _picked(batch.b, inputs))
    if callable(inputs):
        return inputs(batch)
    try:
        return batch[inputs]
    except (KeyError, IndexError, TypeError) as error:
        raise MatchError(
            f"inputs={inputs!r}: no such part of a batch that is a {type(batch).__name__}."
        ) from error


def call_for(model: nn.Module, value: Any) -> Call:
    """(args, kwargs) of the model's forward for what it receives of a batch.

    Raises MatchError when it cannot be told which parts are inputs.
    """
    if isinstance(value, Mapping):
        return (), _keywords(model, value)
    if not isinstance(value, (tuple, list)):
        return (value,), {}
    needed, most = _positional(model)
    if len(value) == needed or (isinstance(value, tuple) and needed <= len(value) <= most):
        return tuple(value), {}
    if needed < len(value) and (needed == most or len(value) > most) and needed:
        return tuple(value[:needed]), {}
    raise MatchError(
        f"a batch is a {type(value).__name__} of {len(value)}, and {type(model).__name__}.forward takes {needed} to {most} "
        "arguments: which of them are inputs cannot be told. Say it with inputs=, a function, a key or an index (inputs=0); "
        "give arguments as a tuple, keywords as a dict, and one input for each model as permgraph.Pair(for_a, for_b)."
    )


def _keywords(model: nn.Module, value: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(model.forward).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    found = {str(k): v for k, v in value.items() if k in names and k not in LABELS}
    if not found:
        raise MatchError(
            f"a batch with the keys {', '.join(map(str, value))} holds no argument of {type(model).__name__}.forward "
            f"({', '.join(sorted(names))}). Say what is the input with inputs=, a function or a key."
        )
    return found


def _positional(model: nn.Module) -> tuple[int, int]:
    """How many positional arguments a forward needs, and how many it takes."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in plain)
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return max(needed, 1), 10**6 if many else max(len(plain), 1)
