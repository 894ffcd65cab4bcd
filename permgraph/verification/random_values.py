"""Random values do not decide a function check: what a random op draws is replaced by one value per call.

The same seed is not enough: a mask that is drawn over a moved axis does not move along. A constant does. It differs
from call to call, so that two draws do not cancel; and what a distribution takes from a tensor (mean, rate,
probability) stays in, so that a wrong order of it is seen. Dropout is switched off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from permgraph.frontend.random_ops import SWITCHES, is_on, short_name

Arguments = dict[str, Any]

_GOLDEN = (math.sqrt(5) - 1) / 2


class Constants:
    """Runs random ops with constants for what they draw, and counts them.

    calls   op → how often its result was replaced
    others  ops for which no constant is known: they ran with a fixed seed
    """

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.others: set[str] = set()

    def run(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a random op (see `frontend/random_ops.py`)."""
        bound = _bound(op, args, kwargs)
        switches = {name: off for name, off in SWITCHES.items() if name in bound}
        if switches and not is_on(bound):
            return op(*args, **kwargs)
        number, name = sum(self.calls.values()), short_name(op).removesuffix("_")
        self.calls[name] = self.calls.get(name, 0) + 1
        if switches:
            return _call(op, bound | switches)
        return self._constant(op, name, bound, 0.2 + 0.6 * ((number + 1) * _GOLDEN % 1))

    def _constant(self, op: Any, name: str, bound: Arguments, unit: float) -> Any:
        before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in bound.items()}
        result = _call(op, bound)
        if name not in _VALUES or not isinstance(result, torch.Tensor):
            self.others.add(name)
            return result
        value = _VALUES[name](before, unit, result) if result.numel() else 0
        return result.copy_(value) if isinstance(value, torch.Tensor) else result.fill_(value)


def _uniform(bound: Arguments, unit: float, result: torch.Tensor) -> float:
    low, high = bound.get("from", 0.0), bound.get("to", 1.0)
    return float(low + unit * (high - low))


def _normal(bound: Arguments, unit: float, result: torch.Tensor) -> Any:
    """Half a standard deviation or so from the mean: a sample shows both."""
    return bound.get("mean", 0.0) + (unit + 0.1) * bound.get("std", 1.0)


def _integer(bound: Arguments, unit: float, result: torch.Tensor) -> Any:
    low: Any = bound.get("low", bound.get("from")) or 0
    high: Any = bound.get("high", bound.get("to"))
    if isinstance(high, torch.Tensor):
        return torch.floor(low + unit * (high - low))
    return int(low + unit * ((2 if high is None else high) - low))  # `random_()` is without bounds


def _bernoulli(bound: Arguments, unit: float, result: torch.Tensor) -> Any:
    """1 where it is likely; at the greatest probability always, or a mask could hide everything."""
    p: Any = bound.get("p", bound["self"])
    return (p >= unit * p.max()).to(result.dtype) if isinstance(p, torch.Tensor) else float(p > 0)


def _positions(bound: Arguments, unit: float, result: torch.Tensor) -> torch.Tensor:
    """`multinomial`: the first categories, each once."""
    categories = torch.arange(result.shape[-1]) % int(bound["self"].shape[-1])
    return categories.to(result).expand_as(result)


def _shuffled(bound: Arguments, unit: float, result: torch.Tensor) -> torch.Tensor:
    """`randperm`: an order that leaves nothing in its place."""
    return torch.arange(result.shape[0]).roll(1).to(result)


_VALUES: dict[str, Callable[[Arguments, float, torch.Tensor], Any]] = {
    "rand": _uniform,
    "rand_like": _uniform,
    "uniform": _uniform,
    "randn": _normal,
    "randn_like": _normal,
    "normal": _normal,
    "log_normal": lambda bound, unit, result: math.exp(_normal(bound, unit, result)),
    "cauchy": lambda bound, unit, result: bound["median"] + unit * bound["sigma"],
    "exponential": lambda bound, unit, result: unit / bound["lambd"],
    "geometric": lambda bound, unit, result: 1 + int(3 * unit),
    "randint": _integer,
    "randint_like": _integer,
    "random": _integer,
    "randperm": _shuffled,
    "bernoulli": _bernoulli,
    "multinomial": _positions,
    "poisson": lambda bound, unit, result: torch.floor(bound["self"] + unit),
    "binomial": lambda bound, unit, result: torch.floor(bound["count"] * bound["prob"]),
    "_standard_gamma": lambda bound, unit, result: bound["self"] * (0.5 + unit),
    "_sample_dirichlet": lambda bound, unit, result: bound["self"] / bound["self"].sum(-1, keepdim=True),
}


def _bound(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Arguments by the names of the schema, defaults included."""
    bound = {a.name: a.default_value for a in op._schema.arguments if a.has_default_value()}
    names = [a.name for a in op._schema.arguments if not a.kwarg_only]
    return bound | dict(zip(names, args, strict=False)) | kwargs


def _call(op: Any, bound: Arguments) -> Any:
    schema = [a for a in op._schema.arguments if a.name in bound]
    args = [bound[a.name] for a in schema if not a.kwarg_only]
    return op(*args, **{a.name: bound[a.name] for a in schema if a.kwarg_only})
