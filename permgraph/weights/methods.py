"""The menu of merge methods: what becomes of A and the aligned B, one row each.

The weighted average is ours (`average.py`). The others are those of mergekit (`pip install 'permgraph[mergekit]'`), run tensor by tensor
on the aligned pair: it knows nothing of units, which is why B has to be in A's order before. Buffers are not weights: running
statistics are averaged, integers are A's, whatever the method. Weights that are computed from parts (weight norm) are averaged as well.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from permgraph.errors import UsageError, nearest
from permgraph.weights.dtypes import Array

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class MergeMethod:
    """One row of the menu.

    what   one sentence
    paper  where it is described
    base   whether it merges differences from a base network
    extra  the extra of permgraph that it needs; "" for none
    """

    what: str
    paper: str
    base: bool = False
    extra: str = "mergekit"


METHODS: dict[str, MergeMethod] = {
    "average": MergeMethod("weighted average of weights", "https://arxiv.org/abs/2203.05482", extra=""),
    "slerp": MergeMethod(
        "along the arc between both tensors, at their norm", "https://doi.org/10.1145/325165.325242"
    ),
    "task_arithmetic": MergeMethod(
        "weighted sum of differences from a base", "https://arxiv.org/abs/2212.04089", True
    ),
    "ties": MergeMethod(
        "the largest differences, those of the elected sign", "https://arxiv.org/abs/2306.01708", True
    ),
    "dare_linear": MergeMethod(
        "differences dropped at random, the rest rescaled", "https://arxiv.org/abs/2311.03099", True
    ),
    "dare_ties": MergeMethod(
        "the same, then those of the elected sign", "https://arxiv.org/abs/2311.03099", True
    ),
    "della": MergeMethod(
        "small differences dropped more often than large ones", "https://arxiv.org/abs/2406.11617", True
    ),
    "breadcrumbs": MergeMethod(
        "differences without the largest and the smallest", "https://arxiv.org/abs/2312.06795", True
    ),
}

# What is done to the average afterwards, on data: the option of `merge`, a sentence, the paper
CORRECTIONS: dict[str, tuple[str, str]] = {
    "--repair": (
        "spread of activations restored, channel by channel, scale-only without a bias",
        "https://arxiv.org/abs/2211.08403",
    ),
    "--repair, BatchNorm": ("running statistics taken anew", "https://arxiv.org/abs/1803.05407"),
    "--group-weights": (
        "another weight for some groups; pg.matched_weights: less of B where it matched badly",
        "https://arxiv.org/abs/2203.05482",
    ),
}


def find_method(name: str) -> MergeMethod:
    """The row of that name. Raises UsageError."""
    if name not in METHODS:
        raise UsageError(
            f"no merge method {name!r}.{nearest(name, METHODS)} There are: {', '.join(METHODS)}."
        )
    return METHODS[name]


@dataclass(frozen=True)
class Chosen:
    """A method of mergekit with what it was given.

    parameters  as mergekit names them: {"density": 0.5, "lambda": 1.0}
    seed        of what the method draws, for each tensor anew
    """

    name: str
    parameters: dict[str, Any]
    seed: int = 0

    def text(self) -> str:
        """For people: ties (density 0.5)."""
        given = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"{self.name} ({given})" if given else self.name


def parse_parameters(terms: Sequence[str]) -> dict[str, Any]:
    """`--parameter NAME=VALUE`: numbers, true and false as such. Raises UsageError."""
    found: dict[str, Any] = {}
    for term in terms:
        name, equals, text = (part.strip() for part in term.partition("="))
        if not (name and equals and text):
            raise UsageError(f"--parameter {term}: write NAME=VALUE, for example density=0.5.")
        if name in found:
            raise UsageError(f"--parameter {term}: {name} is given twice.")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def choose(
    name: str, base: bool, parameters: Mapping[str, Any] | None = None, seed: int = 0
) -> Chosen | None:
    """The method of that name, None for the average.

    base  whether a base network is given

    Raises UsageError for an unknown name, a base that is missing or not wanted, parameters of the average, and without mergekit.
    """
    row = find_method(name)
    if not row.extra:
        if base or parameters:
            raise UsageError(f"method {name!r} takes neither base nor parameters.")
        return None
    if row.base != base:
        wants = "merges differences from a base network, in A's order: give it as base=… (--base)"
        raise UsageError(f"method {name!r} {wants if row.base else 'takes no base'}.")
    given = dict(parameters or {})
    for parameter, value in given.items():
        if parameter in ("weight", "t"):
            raise UsageError(
                f"parameter {parameter!r} of method {name!r} is what weights=… (--weights) says. Leave it out."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"parameter {parameter!r} of method {name!r}: {value} is not a finite number.")
    _mergekit(name)
    return Chosen(name, given, seed)


@dataclass(frozen=True)
class Mixture:
    """A method at work on the tensors of A and B.

    weights   of A and of B
    computed  keys of parts that weights are computed from
    base      A's key → the numbers of the base network, where the method has one
    """

    method: Chosen
    weights: tuple[float, ...]
    computed: Container[str] = ()
    base: Callable[[str], Array] | None = None

    def refuse(self, tensor_weights: object) -> None:
        """What a method of mergekit cannot do. Raises UsageError."""
        name = self.method.name
        if tensor_weights:
            raise UsageError(
                f"method {name!r}: weights of single tensors (--group-weights) belong to 'average'."
            )
        if len(self.weights) != 2 or not math.isfinite(sum(self.weights)) or sum(self.weights) <= 0:
            raise UsageError(
                f"weights {self.weights!r}: method {name!r} needs two, of A and of B, whose sum is positive."
            )

    def takes(self, key: str) -> bool:
        """Whether a tensor of floating-point numbers is a weight."""
        return not key.endswith(STATISTICS) and key not in self.computed

    def tensor(self, key: str, sides: Sequence[Array]) -> Array:
        """What becomes of one whole tensor of A and of B. Raises UsageError with mergekit's words."""
        import numpy as np
        import torch

        kits = _mergekit(self.method.name)
        a, b = self.weights
        given: dict[str, Any] = {"t": b / (a + b)} if self.base is None else {"weight": {"a": a, "b": b}}
        given |= self.method.parameters
        numbers = dict(zip("ab", sides, strict=True))
        if self.base is not None:
            numbers["base"] = self.base(key)
        if self.method.name == "della" and sides[0].size == 1:
            given["density"] = 1.0  # it ranks numbers, and one alone has no rank
        # Without axes of one: della ranks along the second axis
        models = {who: {key: torch.from_numpy(np.squeeze(side).copy())} for who, side in numbers.items()}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.method.seed ^ zlib.crc32(key.encode()))
            try:
                done = kits.merge_state_dicts(
                    models,
                    self.method.name,
                    parameters=given,
                    base="a" if self.base is None else "base",
                )
            except (ValueError, TypeError, RuntimeError, KeyError) as error:
                raise UsageError(
                    f"method {self.method.name!r}: mergekit says {str(error).splitlines()[0]} (of {key})."
                ) from error
        return np.asarray(done[key].numpy()).reshape(sides[0].shape)


def mixture_of(
    method: Chosen | None,
    weights: tuple[float, ...],
    computed: Container[str],
    tensor_weights: object,
    base: Callable[[str], Array] | None,
) -> Mixture | None:
    """A method at work; None for the average. Raises UsageError for what it cannot do."""
    if method is None:
        return None
    mixture = Mixture(method, tuple(weights), computed, base)
    mixture.refuse(tensor_weights)
    return mixture


def _mergekit(method: str) -> Any:
    try:
        import mergekit.merge_methods as kits
    except ImportError as error:
        raise UsageError(
            f"method {method!r} needs mergekit 0.1.5 or newer: pip install 'permgraph[mergekit]' ({error})."
        ) from error
    if not hasattr(kits, "merge_state_dicts"):
        raise UsageError(f"method {method!r} needs mergekit 0.1.5 or newer: pip install -U mergekit.")
    return kits


def mergekit_version() -> str:
    """Of the package that is installed."""
    from importlib.metadata import version

    return version("mergekit")
