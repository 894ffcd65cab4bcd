"""Layers whose weight is computed from stored parts: what the network uses is averaged, not the parts.

Weight norm keeps a direction v of any length and a norm g: w = g · v / |v|. Averaging g and v one by one makes B's share
depend on how long its v happens to be. Spectral norm keeps a matrix and two vectors that estimate its largest singular
value. Here the weights themselves are averaged, and split again into parts that compute the average.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from permgraph.errors import FileError, UsageError
from permgraph.ir.names import canonical

SAID = {
    "direction": "averaged as computed, with the interpolated norm (--parametrized direction)",
    "weight": "averaged as computed, which shrinks their norm (--parametrized weight)",
    "parts": "their parts averaged one by one (--parametrized parts)",
}
WAYS = tuple(SAID)
Parts = dict[str, torch.Tensor]

_WEIGHT_NORM = re.compile(r"(?P<layer>(?:.*\.)?weight\w*)_(?P<part>[gv])")
_SPECTRAL = re.compile(r"(?P<layer>(?:.*\.)?\w+)_(?P<part>orig|u|v)")
_NEW_SPECTRAL = re.compile(r"(?P<layer>(?:.*\.)?parametrizations\.\w+)\.(?:0\.)?_?(?P<part>original|u|v)")
_OTHER = re.compile(r"(?P<layer>(?:.*\.)?parametrizations\.\w+)\.(?:original\w*|\d+\..*)")


@dataclass(frozen=True)
class Layer:
    """A computed weight: how, and part → key (g and v; or orig, u and v)."""

    kind: str
    keys: dict[str, str]

    @property
    def main(self) -> str:
        """The part as large as the weight; its share of A and B counts for all."""
        return "v" if self.kind == "weight norm" else "orig"


def layers_in(keys: Iterable[str], way: str) -> dict[str, Layer]:
    """Key → the layer whose weight it is a part of. Raises FileError for a parametrization that is not known here,
    UsageError for an unknown way."""
    if way not in WAYS:
        raise UsageError(f"parametrized={way!r}: one of {', '.join(WAYS)}.")
    if way == "parts":
        return {}
    plain = {canonical(key): key for key in keys}
    layers = [
        *_grouped("spectral norm", _NEW_SPECTRAL, plain, {"original": "orig"}, {"orig", "u", "v"}),
        *_grouped("spectral norm", _SPECTRAL, plain, {}, {"orig", "u", "v"}),
        *_grouped("weight norm", _WEIGHT_NORM, plain, {}, {"g", "v"}),
    ]
    found: dict[str, Layer] = {}
    for layer in layers:
        found |= {key: layer for key in layer.keys.values() if key not in found}
    unknown = [key for name, key in plain.items() if _OTHER.fullmatch(name) and key not in found]
    if unknown:
        raise FileError(
            f"{unknown[0]}: part of a parametrization (orthogonal, or of your own) whose weight cannot be computed from the "
            "file. Average its parts with parametrized='parts' (--parametrized parts), which is not the average of the "
            "weights; or remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations)."
        )
    return found


def _grouped(
    kind: str, pattern: re.Pattern[str], plain: Mapping[str, str], names: Mapping[str, str], wanted: set[str]
) -> list[Layer]:
    parts: dict[str, dict[str, str]] = {}
    for name, key in plain.items():
        if found := pattern.fullmatch(name):
            part = names.get(found["part"], found["part"])
            parts.setdefault(found["layer"], {})[part] = key
    return [Layer(kind, keys) for keys in parts.values() if set(keys) == wanted]


def average(layer: Layer, a: Parts, b: Parts, weights: tuple[float, float], way: str) -> Parts:
    """Parts that compute `w_A · W_A + w_B · W_B`, given those of A and B; in float32 or wider.

    way   "weight": exactly that; "direction": its direction, with `w_A · |W_A| + w_B · |W_B|` as its norm, which an
          average alone would shrink. The length of v is A's. Weights (1, 0) and (0, 1) give back the parts as they are.
    """
    same = sum(weights) == 1 and all(torch.equal(a[part], b[part]) for part in a)
    if same or weights in ((1.0, 0.0), (0.0, 1.0)):
        return {part: t.detach().clone() for part, t in (a if same or weights[0] else b).items()}
    wide = _wide([*a.values(), *b.values()])
    a, b = ({part: t.detach().to(wide) for part, t in parts.items()} for parts in (a, b))
    return (_weight_norm if layer.kind == "weight norm" else _spectral)(a, b, weights, way)


def _wide(tensors: list[torch.Tensor]) -> torch.dtype:
    wide = torch.float32
    for tensor in tensors:
        wide = torch.promote_types(wide, tensor.dtype)
    return wide


def _weight_norm(a: Parts, b: Parts, weights: tuple[float, float], way: str) -> Parts:
    v, g = a["v"], a["g"]
    if g.dim() not in (0, v.dim()) or (
        g.dim() and any(x not in (1, y) for x, y in zip(g.shape, v.shape, strict=True))
    ):
        raise FileError(
            f"a norm of shape {tuple(g.shape)} for a direction of shape {tuple(v.shape)}: not weight norm."
        )
    axes = [i for i in range(v.dim()) if not g.dim() or g.shape[i] == 1]

    def norm(x: torch.Tensor) -> torch.Tensor:
        return (x * x).sum(axes, keepdim=True).sqrt()

    def unit(x: torch.Tensor) -> torch.Tensor:
        length = norm(x)
        return x / torch.where(length == 0, torch.ones_like(length), length)

    mean = weights[0] * a["g"] * unit(v) + weights[1] * b["g"] * unit(b["v"])
    length = norm(mean)
    direction = torch.where(length == 0, unit(v), unit(mean))
    if way == "direction":
        length = weights[0] * a["g"].abs() + weights[1] * b["g"].abs()
    return {"v": direction * norm(v), "g": length.reshape(g.shape) if length.numel() == g.numel() else length}


def _spectral(a: Parts, b: Parts, weights: tuple[float, float], way: str) -> Parts:
    axis = _rows(a)
    mean = sum(w * p["orig"] / _sigma(p, axis) for w, p in zip(weights, (a, b), strict=True))
    assert isinstance(mean, torch.Tensor)
    matrix = mean.movedim(axis, 0).flatten(1)
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    u, v = left[:, 0].to(mean.dtype), right[0].to(mean.dtype)
    if bool((u @ a["u"]) < 0):  # both signs compute the same
        u, v = -u, -v
    if way == "weight":
        u = u / (u @ (matrix @ v))  # so that the estimate is 1: the network uses the mean as it is
    return {"orig": mean, "u": u, "v": v}


def _rows(parts: Parts) -> int:
    """The axis that spectral norm takes as rows: the one that its two vectors fit."""
    shape, count = parts["orig"].shape, parts["orig"].numel()
    fit = [
        i for i, n in enumerate(shape) if n == parts["u"].numel() and count // max(n, 1) == parts["v"].numel()
    ]
    if not fit:
        raise FileError(
            f"vectors of {parts['u'].numel()} and {parts['v'].numel()} for a weight of {tuple(shape)}: not spectral norm."
        )
    return max(fit, key=lambda axis: float(_sigma(parts, axis).abs()))


def _sigma(parts: Parts, axis: int) -> torch.Tensor:
    return parts["u"] @ (parts["orig"].movedim(axis, 0).flatten(1) @ parts["v"])
