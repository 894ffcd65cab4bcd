"""Moments: what one pass over both models leaves behind, enough for every correlation, and nothing per frame.

    n, Σa, Σb, Σa², Σb², Σabᵀ        with a, b shifted by the mean of the first chunk

Correlation is a difference of large numbers, so where the sums are taken matters more than how: each chunk is
centred on its own mean before it is multiplied in float32, and the products are added in float64. Sums about
one shift become sums about another by algebra alone, so shards, resumed runs and ranks simply add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import FileError, MatchError
from permgraph.ir.files import load_arrays, save_arrays, write_bytes
from permgraph.ir.notebook import html_table
from permgraph.ir.plan import UNKNOWN, Origin
from permgraph.ir.sums import Sums

FORMAT = 3

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Layout:
    """Which groups the units of a probe belong to, slowest first, and how many units each has.

    ("heads.3", "heads.3/v"), (12, 64): 768 units, row-major.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def units(self) -> int:
        return math.prod(self.sizes)


@dataclass(frozen=True, repr=False)
class ProbeMoments:
    """Sums of one probe over all samples. U units, each owning m columns; column = unit · m + slot.

    layout     how the units of A are arranged
    a, b       sums of the columns of each model, arrays (m, U), over the same samples (frames × clips)
    product    Σ(a - shift_a)(b - shift_b)ᵀ between equal slots, (m, U_a, U_b)
    excluded   samples left out because their batch held a NaN or an infinity
    """

    layout: Layout
    a: Sums
    b: Sums
    product: FloatArray
    excluded: int = 0

    def __repr__(self) -> str:
        groups = "·".join(self.layout.groups)
        return f"ProbeMoments({groups}: {self.layout.units} units, {self.n:,} samples)"

    @property
    def n(self) -> int:
        """Samples counted in."""
        return self.a.n

    def __add__(self, other: ProbeMoments) -> ProbeMoments:
        """Sums over both sets of samples, about this one's shifts. Raises MatchError when shapes differ."""
        if self.layout != other.layout or self.product.shape != other.product.shape:
            raise MatchError(
                f"moments of different probes cannot be added: {self.layout} {self.product.shape} "
                f"and {other.layout} {other.product.shape}. Calibrate both with the same plan."
            )
        excluded = self.excluded + other.excluded
        if not self.n or not other.n:
            return replace(self if self.n else other, excluded=excluded)
        moved = other.about(self.a.shift, self.b.shift)
        product = self.product + moved.product
        return replace(self, a=self.a + moved.a, b=self.b + moved.b, product=product, excluded=excluded)

    def about(self, shift_a: FloatArray, shift_b: FloatArray) -> ProbeMoments:
        """The same sums about other shifts; exact algebra in float64."""
        a, b = self.a.about(shift_a), self.b.about(shift_b)
        product = (
            self.product + _outer(self.a.shift - shift_a, self.b.sum) + _outer(a.sum, self.b.shift - shift_b)
        )
        return replace(self, a=a, b=b, product=product)

    def dead_a(self) -> BoolArray:
        """Units of A that never vary, (U,): all their columns are constant up to rounding."""
        return np.asarray(self.a.dead().all(axis=0))

    def dead_b(self) -> BoolArray:
        return np.asarray(self.b.dead().all(axis=0))

    def covariance(self) -> FloatArray:
        """Covariance of every unit of A with every unit of B, summed over the unit's columns, (U_a, U_b)."""
        total = np.zeros(self.product.shape[1:])
        for slot in range(self.product.shape[0]):
            total += self._covariance(slot)
        return total

    def correlation(self) -> FloatArray:
        """Pearson correlation of every unit of A with every unit of B, (U_a, U_b): the paper's Eq. 1.

        A constant channel correlates 0 with everything. With several columns per unit, their mean.
        """
        scale_a, scale_b = _scale(self.a), _scale(self.b)
        total = np.zeros(self.product.shape[1:])
        for slot in range(self.product.shape[0]):
            one = self._covariance(slot)
            one *= scale_a[slot, :, None]
            one *= scale_b[slot]
            total += np.clip(one, -1, 1, out=one)
        return np.asarray(total / self.product.shape[0])

    def _covariance(self, slot: int) -> FloatArray:
        n = max(self.n, 1)
        return np.asarray((self.product[slot] - np.outer(self.a.sum[slot] / n, self.b.sum[slot])) / n)


@dataclass(frozen=True, repr=False, eq=False)
class Moments:
    """The sums of every probe, by key.

    probes   key → sums; the layout of each says which groups it is evidence for
    origin   the plan and the weights that were calibrated
    meta     anything worth keeping in words: data, counts
    """

    probes: dict[str, ProbeMoments]
    origin: Origin = UNKNOWN
    meta: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> ProbeMoments:
        return self.probes[key]

    def __eq__(self, other: object) -> bool:
        """The same sums of the same calibration."""
        if not isinstance(other, Moments):
            return NotImplemented
        return self.origin == other.origin and self._contents() == other._contents()

    __hash__ = None  # type: ignore[assignment]

    def _contents(self) -> dict[str, object]:
        sums = {
            key: [(name, a.shape, np.ascontiguousarray(a).tobytes()) for name, a in _arrays(p).items()]
            for key, p in self.probes.items()
        }
        return {key: (p.layout, p.n, p.excluded, sums[key]) for key, p in self.probes.items()}

    def __repr__(self) -> str:
        samples = max((probe.n for probe in self.probes.values()), default=0)
        return f"Moments({len(self.probes)} probes, up to {samples:,} samples)"

    def _repr_html_(self) -> str:
        rows = ((key, p.n, p.excluded, " × ".join(p.layout.groups)) for key, p in self.probes.items())
        return html_table(repr(self), ("probe", "samples", "left out", "groups"), rows, len(self.probes))

    def __add__(self, other: Moments) -> Moments:
        """Moments of both runs together. Raises MatchError when they are not of the same calibration."""
        if self.origin != other.origin:
            raise MatchError(
                f"moments of different calibrations cannot be added: {self.origin} and {other.origin}. Calibrate both "
                "with the same plan, models and settings."
            )
        probes = dict(self.probes)
        for key, probe in other.probes.items():
            probes[key] = probes[key] + probe if key in probes else probe
        meta = dict(self.meta)
        for key, text in other.meta.items():
            meta[key] = text if meta.get(key, text) == text else f"{meta[key]} + {text}"
        return Moments(probes, self.origin, meta)

    @staticmethod
    def total(shards: list[Moments]) -> Moments:
        """The sum of several shards."""
        return reduce(lambda left, right: left + right, shards)

    @property
    def excluded(self) -> dict[str, int]:
        """Samples left out per probe because of NaN or infinity; probes without any are not listed."""
        return {key: probe.excluded for key, probe in self.probes.items() if probe.excluded}

    def refuse_excluded(self, limit: float = 0.001) -> None:
        """Raise MatchError when more than this share of a probe's samples had to be left out."""
        for key, probe in self.probes.items():
            if probe.excluded > limit * (probe.n + probe.excluded):
                raise MatchError(
                    f"probe {key!r}: {probe.excluded:,} of {probe.n + probe.excluded:,} samples are in "
                    "batches with a NaN or an infinity. Look in the weights of both models and in the "
                    "audio; float16 models may overflow: run them in float32."
                )

    def save(self, path: str | Path, force: bool = True) -> None:
        """Write a safetensors file; equal moments give equal bytes. `force` replaces what is there. Raises FileError."""
        arrays = {f"{key}|{name}": a for key, p in self.probes.items() for name, a in _arrays(p).items()}
        rows = {key: ProbeHeader(p.layout, p.n, p.excluded) for key, p in self.probes.items()}
        header = Header(self.origin, self.meta, rows)
        write_bytes(save_arrays("moments", FORMAT, header, arrays), path, force)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read what `save` wrote. Raises FileError."""
        header, arrays = load_arrays(path, "moments", FORMAT, Header, "calibrate")
        wanted = {f"{key}|{name}" for key in header.probes for name in ARRAYS}
        if wanted != set(arrays):
            wrong = sorted(wanted ^ set(arrays))[0]
            raise FileError(f"{path}: the array {wrong[:100]!r} is missing, or belongs to no probe.")
        probes = {}
        for key, row in header.probes.items():
            try:
                probes[key] = _probe(row, *(arrays[f"{key}|{name}"] for name in ARRAYS))
            except ValueError as error:
                raise FileError(f"{path}: probe {key[:100]!r}: {error}.") from error
        return cls(probes, header.origin, header.meta)


@dataclass(frozen=True)
class ProbeHeader:
    """What the file says of one probe beside its arrays."""

    layout: Layout
    n: int
    excluded: int


@dataclass(frozen=True)
class Header:
    """What a file of moments says beside its arrays."""

    origin: Origin
    meta: dict[str, str]
    probes: dict[str, ProbeHeader]


ARRAYS = ("shift_a", "sum_a", "square_a", "shift_b", "sum_b", "square_b", "product")


def _arrays(probe: ProbeMoments) -> dict[str, FloatArray]:
    a, b = probe.a, probe.b
    return dict(zip(ARRAYS, (a.shift, a.sum, a.square, b.shift, b.sum, b.square, probe.product), strict=True))


def _probe(row: ProbeHeader, *arrays: FloatArray) -> ProbeMoments:
    """Raises ValueError for arrays that are not the sums of one probe."""
    product = arrays[-1]
    if any(x.dtype != np.float64 for x in arrays) or product.ndim != 3:
        raise ValueError("its arrays are not of float64, or its product has not three axes")
    slots, units_a, units_b = product.shape
    shapes = [(slots, units_a)] * 3 + [(slots, units_b)] * 3
    if [x.shape for x in arrays[:-1]] != shapes or row.layout.units != units_a or not slots:
        raise ValueError(f"its arrays do not fit each other, or its layout of {row.layout.units} units")
    if (
        row.n < 0
        or row.excluded < 0
        or not row.layout.sizes
        or len(row.layout.sizes) != len(row.layout.groups)
    ):
        raise ValueError("its counts of samples are below 0, or its layout has not one size per group")
    if not all(np.isfinite(x).all() for x in arrays) or min(arrays[2].min(), arrays[5].min()) < 0:
        raise ValueError("its sums are not finite, or a sum of squares is below 0")
    return ProbeMoments(
        row.layout, Sums(row.n, *arrays[:3]), Sums(row.n, *arrays[3:6]), product, row.excluded
    )


def _scale(sums: Sums) -> FloatArray:
    """1 / standard deviation of every column; 0 of a dead one."""
    dead = sums.dead()
    return np.asarray(np.where(dead, 0, 1 / np.sqrt(np.where(dead, 1, sums.variance()))))


def _outer(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(a[:, :, None] * b[:, None, :])
