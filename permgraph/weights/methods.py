"""The menu of merge methods: what becomes of A and the aligned B, one row each.

The weighted average is ours (`interpolate.py`). The others are those of mergekit (`pip install 'permgraph[mergekit]'`), run in memory on
the aligned pair: it takes two state dicts and knows nothing of units, which is why B has to be in A's order before. Buffers are
not weights: running statistics are averaged, integers are A's, whatever the method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from permgraph.errors import UsageError, nearest
from permgraph.weights.computed import layers_in
from permgraph.weights.interpolate import merge
from permgraph.weights.pairing import check_shapes, same_names

if TYPE_CHECKING:
    import torch

    State = Mapping[str, torch.Tensor]

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


def merge_by(
    method: str,
    state_a: State,
    state_b: State,
    weights: tuple[float, float],
    *,
    base: State | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Two aligned state dicts merged by a method of mergekit; keys, dtypes and ties of A.

    base        the network whose differences from A and B are merged, in A's order; all zeros where there is none to speak of
    parameters  of the method as mergekit names them: {"density": 0.5, "lambda": 1.0}
    seed        of what the method draws
    options     as for `merge`

    Raises UsageError for a base that is missing or not wanted, for parameters that mergekit refuses and for weights computed from
    parts; FileError as `merge` does.
    """
    import torch

    row = find_method(method)
    if not row.extra:
        raise UsageError(f"method {method!r} takes neither base nor parameters.")
    if row.base != (base is not None):
        wants = "merges differences from a base network: give it as base=…, a state dict in A's order"
        raise UsageError(f"method {method!r} {wants if row.base else 'takes no base'}.")
    if not math.isfinite(sum(weights)) or sum(weights) <= 0:
        raise UsageError(f"weights {weights!r}: method {method!r} needs two whose sum is positive.")
    computed = layers_in(state_a, options.get("parametrized", "weight"))
    if computed:
        raise UsageError(
            f"method {method!r}: {min(computed)} is a part of a weight that is computed from parts (weight norm). Give "
            "parametrized='parts' to merge the parts as they are stored, or use 'average'."
        )
    kits = _mergekit(method)
    averaged = merge(state_a, state_b, weights, **options)  # refuses what does not fit
    pairs = same_names(state_a, state_b)
    chosen: dict[int, str] = {}  # tied tensors are merged once
    for key, tensor in averaged.items():
        if tensor.is_floating_point() and not key.endswith(STATISTICS):
            chosen.setdefault(id(tensor), key)
    models = {
        "a": {k: state_a[k] for k in chosen.values()},
        "b": {k: state_b[pairs[k]] for k in chosen.values()},
    }
    given: dict[str, Any] = dict(parameters or {})
    if base is not None:
        names = same_names(state_a, base)
        check_shapes(state_a, base, names)
        models["base"] = {k: base[names[k]] for k in chosen.values()}
        given = {"weight": dict(zip("ab", weights, strict=True)), **given}
    else:
        given = {"t": weights[1] / sum(weights), **given}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            done = kits.merge_state_dicts(models, method, parameters=given, base="base" if row.base else "a")
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise UsageError(f"method {method!r}: mergekit says {str(error).splitlines()[0]}.") from error
    merged = {number: done[key].to(averaged[key].dtype) for number, key in chosen.items()}
    return {key: merged.get(id(tensor), tensor) for key, tensor in averaged.items()}


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
