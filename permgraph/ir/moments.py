"""Moments: what one pass over both models leaves behind, enough for every correlation, and nothing per frame.

    n, Σa, Σb, Σa², Σb², Σabᵀ        with a, b shifted by the mean of the first chunk

Correlation is a difference of large numbers, so where the sums are taken matters more than how: each chunk is
centred on its own mean before it is multiplied in float32, and the products are added in float64. Sums about
one shift become sums about another by algebra alone, so shards, resumed runs and ranks simply add.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import FileError, MatchError
from permgraph.ir.files import write_bytes

FORMAT = 1
ARRAYS = ("shift_a", "shift_b", "sum_a", "sum_b", "square_a", "square_b", "product")

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


@dataclass(frozen=True)
class ProbeMoments:
    """Sums of one probe over all samples. U units, each owning m columns; column = unit · m + slot.

    layout     how the units of A are arranged
    n          samples (frames × clips) counted in
    shift_*    what was subtracted from every sample, (m, U)
    sum_*      Σ(a - shift_a), (m, U)
    square_*   Σ(a - shift_a)², (m, U)
    product    Σ(a - shift_a)(b - shift_b)ᵀ between equal slots, (m, U_a, U_b)
    excluded   samples left out because their batch held a NaN or an infinity
    """

    layout: Layout
    n: int
    shift_a: FloatArray
    shift_b: FloatArray
    sum_a: FloatArray
    sum_b: FloatArray
    square_a: FloatArray
    square_b: FloatArray
    product: FloatArray
    excluded: int = 0

    def __add__(self, other: ProbeMoments) -> ProbeMoments:
        """Sums over both sets of samples, about this one's shift. Raises MatchError when shapes differ."""
        if self.layout != other.layout or self.product.shape != other.product.shape:
            raise MatchError(
                f"moments of different probes cannot be added: {self.layout} {self.product.shape} "
                f"and {other.layout} {other.product.shape}. Calibrate both with the same plan."
            )
        if not self.n or not other.n:
            return replace(self if self.n else other, excluded=self.excluded + other.excluded)
        moved = other.about(self.shift_a, self.shift_b)
        sums = {name: getattr(self, name) + getattr(moved, name) for name in ARRAYS[2:]}
        return replace(self, n=self.n + other.n, excluded=self.excluded + other.excluded, **sums)

    def about(self, shift_a: FloatArray, shift_b: FloatArray) -> ProbeMoments:
        """The same sums about another shift; exact algebra in float64."""
        step_a, step_b = self.shift_a - shift_a, self.shift_b - shift_b
        if not step_a.any() and not step_b.any():
            return self
        sum_a, sum_b = self.sum_a + self.n * step_a, self.sum_b + self.n * step_b
        return replace(
            self,
            shift_a=shift_a,
            shift_b=shift_b,
            sum_a=sum_a,
            sum_b=sum_b,
            square_a=self.square_a + step_a * (self.sum_a + sum_a),
            square_b=self.square_b + step_b * (self.sum_b + sum_b),
            product=self.product + _outer(step_a, self.sum_b) + _outer(sum_a, step_b),
        )

    def variance_a(self) -> FloatArray:
        """Variance of each column of A, (m, U)."""
        return _variance(self.n, self.sum_a, self.square_a)

    def variance_b(self) -> FloatArray:
        return _variance(self.n, self.sum_b, self.square_b)

    def dead_a(self) -> BoolArray:
        """Units of A that never vary, (U,): all their columns are constant up to rounding."""
        return np.asarray(_dead(self.n, self.shift_a, self.sum_a, self.square_a).all(axis=0))

    def dead_b(self) -> BoolArray:
        return np.asarray(_dead(self.n, self.shift_b, self.sum_b, self.square_b).all(axis=0))

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
        dead_a = _dead(self.n, self.shift_a, self.sum_a, self.square_a)
        dead_b = _dead(self.n, self.shift_b, self.sum_b, self.square_b)
        scale_a = np.where(dead_a, 0, 1 / np.sqrt(np.where(dead_a, 1, self.variance_a())))
        scale_b = np.where(dead_b, 0, 1 / np.sqrt(np.where(dead_b, 1, self.variance_b())))
        total = np.zeros(self.product.shape[1:])
        for slot in range(self.product.shape[0]):
            one = self._covariance(slot)
            one *= scale_a[slot, :, None]
            one *= scale_b[slot]
            total += np.clip(one, -1, 1, out=one)
        return np.asarray(total / self.product.shape[0])

    def _covariance(self, slot: int) -> FloatArray:
        n = max(self.n, 1)
        return np.asarray((self.product[slot] - np.outer(self.sum_a[slot] / n, self.sum_b[slot])) / n)


@dataclass(frozen=True)
class Moments:
    """The sums of every probe, by key.

    probes       key → sums; the layout of each says which groups it is evidence for
    fingerprint  of what was calibrated: the plan's, and after a colon whatever else must be equal to add up
    meta         anything worth keeping in words: models, data, counts
    """

    probes: dict[str, ProbeMoments]
    fingerprint: str = ""
    meta: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> ProbeMoments:
        return self.probes[key]

    def __add__(self, other: Moments) -> Moments:
        """Moments of both runs together. Raises MatchError when they are not of the same calibration."""
        if self.fingerprint != other.fingerprint:
            raise MatchError(
                f"moments of different calibrations cannot be added: fingerprint {self.fingerprint!r} and "
                f"{other.fingerprint!r}. Calibrate both with the same plan, models and settings."
            )
        probes = dict(self.probes)
        for key, probe in other.probes.items():
            probes[key] = probes[key] + probe if key in probes else probe
        meta = dict(self.meta)
        for key, text in other.meta.items():
            meta[key] = text if meta.get(key, text) == text else f"{meta[key]} + {text}"
        return Moments(probes, self.fingerprint, meta)

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

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; equal moments give equal bytes. Raises FileError."""
        from safetensors.numpy import save

        tensors = {
            f"{key}|{name}": np.ascontiguousarray(getattr(probe, name))
            for key, probe in sorted(self.probes.items())
            for name in ARRAYS
        }
        rows = {
            key: {"groups": p.layout.groups, "sizes": p.layout.sizes, "n": p.n, "excluded": p.excluded}
            for key, p in self.probes.items()
        }
        body = {"format": FORMAT, "fingerprint": self.fingerprint, "meta": self.meta, "probes": rows}
        # one metadata key: safetensors writes several in an order that changes from run to run
        write_bytes(save(tensors, metadata={"permgraph.moments": json.dumps(body, sort_keys=True)}), path)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read what `save` wrote. Raises FileError."""
        from safetensors import safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                body = json.loads((file.metadata() or {})["permgraph.moments"])
                if body["format"] > FORMAT:
                    raise FileError(
                        f"{path}: moments format {body['format']} needs a newer permgraph "
                        f"(this one reads {FORMAT})."
                    )
                probes = {key: _read(file, key, row) for key, row in sorted(body["probes"].items())}
                return cls(probes, body["fingerprint"], body["meta"])
        except FileNotFoundError as error:
            raise FileError(
                f"{path}: no such file. Run `permgraph match` with --audio to calibrate."
            ) from error
        except FileError:
            raise
        except Exception as error:
            raise FileError(f"{path}: not a moments file (safetensors): {error}.") from error


def _read(file: Any, key: str, row: Mapping[str, Any]) -> ProbeMoments:
    layout = Layout(tuple(row["groups"]), tuple(row["sizes"]))
    arrays = {name: file.get_tensor(f"{key}|{name}") for name in ARRAYS}
    return ProbeMoments(layout, row["n"], **arrays, excluded=row["excluded"])


def _outer(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(a[:, :, None] * b[:, None, :])


def _variance(n: int, total: FloatArray, square: FloatArray) -> FloatArray:
    n = max(n, 1)
    return np.asarray(np.maximum(square / n - (total / n) ** 2, 0))


def _dead(n: int, shift: FloatArray, total: FloatArray, square: FloatArray) -> BoolArray:
    """Columns whose spread is no more than rounding: of their own float32 value, or of these sums."""
    mean = shift + total / max(n, 1)
    rounding = (4 * np.finfo(np.float32).eps * np.abs(mean)) ** 2 + 1e-13 * square / max(n, 1)
    return np.asarray(_variance(n, total, square) <= rounding)
