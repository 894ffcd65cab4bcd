"""Layers whose weight is computed from stored parts: what the network uses is averaged, not the parts.

Weight norm keeps a direction v of any length and a norm g: w = g · v / |v|. Averaging g and v one by one makes B's share
depend on how long its v happens to be. Spectral norm keeps a matrix and two vectors that estimate its largest singular
value. Here the weights themselves are averaged, and split again into parts that compute the average.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from permgraph.errors import FileError, UsageError
from permgraph.ir.names import canonical
from permgraph.weights.dtypes import Array
from permgraph.weights.rows import Rows

SAID = {
    "direction": "averaged as computed, with the interpolated norm (--parametrized direction)",
    "weight": "averaged as computed, which shrinks their norm (--parametrized weight)",
    "parts": "their parts averaged one by one (--parametrized parts)",
}
WAYS = tuple(SAID)
Parts = Mapping[str, Callable[[Rows], Array]]  # part → rows of it, in float32 or wider
Weights = tuple[float, ...]

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
        """The part as large as the weight; its share of each model counts for all."""
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


def _unzero(length: Array) -> Array:
    """Lengths to divide by: of nothing, 1."""
    return np.where(length == 0, np.ones_like(length), length)


@dataclass(frozen=True)
class WeightNorm:
    """Parts that compute `w_A · W_A + w_B · W_B + …`, in rows; the length of v is A's.

    each    the parts of every model
    blocks  the rows of v, one block after another
    way     "weight": exactly that; "direction": its direction, with `w_A · |W_A| + w_B · |W_B| + …` as its norm, which an
            average alone would shrink
    """

    each: Sequence[Parts]
    weights: Weights
    way: str
    blocks: tuple[Rows, ...]
    shape: tuple[int, ...]

    @cached_property
    def g(self) -> list[Array]:
        g = [parts["g"](None) for parts in self.each]
        shape = g[0].shape
        if len(shape) not in (0, len(self.shape)) or any(
            x not in (1, y) for x, y in zip(shape, self.shape, strict=bool(shape))
        ):
            raise FileError(
                f"a norm of shape {shape} for a direction of shape {self.shape}: not weight norm."
            )
        wide = tuple(shape) or (1,) * len(self.shape)
        return [one.reshape(wide) for one in g]

    @cached_property
    def lengths(self) -> list[Array]:
        """|v| of every model."""
        return [self._length(parts["v"]) for parts in self.each]

    @cached_property
    def length(self) -> Array:
        """|w_A · W_A + w_B · W_B + …|."""
        return self._length(self._mean)

    def rows(self, part: str, rows: Rows) -> Array:
        """Rows of a part of the result."""
        if part == "v":
            return self._direction(rows)
        shape = self.each[0]["g"](None).shape
        if self.way == "weight":
            return self.length.astype(self.g[0].dtype).reshape(shape)
        mean = _sum([weight * np.abs(g) for weight, g in zip(self.weights, self.g, strict=True)])
        return mean.astype(np.result_type(*self.g)).reshape(shape)

    def _mean(self, rows: Rows) -> Array:
        terms = []
        for parts, g, length, weight in zip(self.each, self.g, self.lengths, self.weights, strict=True):
            v = parts["v"](rows)
            terms.append(v * self._of(weight * g / _unzero(length), rows).astype(v.dtype))
        return _sum(terms)

    def _direction(self, rows: Rows) -> Array:
        mean, length = self._mean(rows), self._of(self.length, rows)
        scale = self._of(self.lengths[0] / _unzero(self.length), rows).astype(mean.dtype)
        return np.where(length == 0, self.each[0]["v"](rows), mean * scale)

    def _of(self, lengths: Array, rows: Rows) -> Array:
        return lengths if rows is None or lengths.shape[0] == 1 else lengths[rows]

    def _length(self, read: Callable[[Rows], Array]) -> Array:
        """One length for each entry of g, summed in float64."""
        shape = self.g[0].shape
        axes = tuple(i for i, n in enumerate(shape) if n == 1)
        total = np.zeros(shape)
        for rows in self.blocks:
            squares = np.square(read(rows), dtype=np.float64).sum(axes, keepdims=True)
            if rows is None or shape[0] == 1:
                total += squares
            else:
                total[rows] += squares
        return np.asarray(np.sqrt(total))


@dataclass(frozen=True)
class SpectralNorm:
    """The same of spectral norm, whole."""

    each: Sequence[Parts]
    weights: Weights
    way: str

    def rows(self, part: str, rows: Rows) -> Array:
        whole = self._made[part]
        return whole if rows is None else np.asarray(whole[rows])

    @cached_property
    def _made(self) -> dict[str, Array]:
        each = [{part: read(None) for part, read in parts.items()} for parts in self.each]
        a = each[0]
        axis = _axis_of_rows(a)
        mean = np.sum(
            [w * p["orig"] / _sigma(p, axis) for w, p in zip(self.weights, each, strict=True)], axis=0
        )
        mean = mean.astype(np.result_type(*(parts["orig"] for parts in each)))
        matrix = _matrix(mean, axis)
        left, _, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        u, v = left[:, 0].astype(mean.dtype), right[0].astype(mean.dtype)
        if float(u @ a["u"]) < 0:  # both signs compute the same
            u, v = -u, -v
        if self.way == "weight":
            u = u / (u @ (matrix @ v))  # so that the estimate is 1: the network uses the mean as it is
        return {"orig": mean, "u": u, "v": v}


@dataclass(frozen=True)
class Kept:
    """The parts of one model as they are: what a weight of 1 beside zeros gives back."""

    parts: Parts

    def rows(self, part: str, rows: Rows) -> Array:
        return self.parts[part](rows)


Averaged = WeightNorm | SpectralNorm | Kept


def average(
    layer: Layer,
    each: Sequence[Parts],
    weights: Weights,
    way: str,
    blocks: Mapping[str, tuple[Rows, ...]],
    shape: tuple[int, ...],
) -> Averaged:
    """Parts that compute the average of a weight, given those of every model.

    blocks  part → its rows, block after block; `shape` is that of the main part
    """
    if sorted(weights) == [0.0] * (len(weights) - 1) + [1.0]:
        return Kept(each[weights.index(1.0)])
    a, *others = each
    if sum(weights) == 1 and all(_equal(a[p], one[p], blocks[p]) for one in others for p in a):
        return Kept(a)
    if layer.kind == "weight norm":
        return WeightNorm(each, weights, way, blocks["v"], shape)
    return SpectralNorm(each, weights, way)


def _sum(terms: Iterable[Array]) -> Array:
    """One after another."""
    return np.asarray(reduce(np.add, terms))


def _equal(a: Callable[[Rows], Array], b: Callable[[Rows], Array], blocks: Iterable[Rows]) -> bool:
    return all(np.array_equal(a(rows), b(rows)) for rows in blocks)


def _axis_of_rows(parts: Mapping[str, Array]) -> int:
    """The axis that spectral norm takes as rows: the one that its two vectors fit."""
    shape, count = parts["orig"].shape, parts["orig"].size
    fit = [i for i, n in enumerate(shape) if n == parts["u"].size and count // max(n, 1) == parts["v"].size]
    if not fit:
        raise FileError(
            f"vectors of {parts['u'].size} and {parts['v'].size} for a weight of {tuple(shape)}: not spectral norm."
        )
    return max(fit, key=lambda axis: float(abs(_sigma(parts, axis))))


def _matrix(weight: Array, axis: int) -> Array:
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def _sigma(parts: Mapping[str, Array], axis: int) -> Array:
    found: Array = parts["u"] @ (_matrix(parts["orig"], axis) @ parts["v"])
    return found
