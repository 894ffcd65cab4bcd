"""MomentsBuilder: adds batches of activations, on the device where they are, into float64 sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from permgraph.errors import MatchError, nearest
from permgraph.ir.moments import ARRAYS, Layout, Moments, ProbeMoments

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 512  # samples per float32 product: its rounding grows with √CHUNK, the float64 sums cost 1/CHUNK
ROWS = 256  # rows of a product widened to float64 at a time: more would leave the cache, six times slower


class MomentsBuilder:
    """Accumulates moments batch by batch.

    >>> import torch
    >>> builder = MomentsBuilder({"ffn.0": Layout(("ffn.0",), (3,))})
    >>> builder.update("ffn.0", torch.randn(100, 3), torch.randn(100, 3))
    True
    >>> builder.build()["ffn.0"].n
    100
    """

    def __init__(
        self, layouts: Mapping[str, Layout], fingerprint: str = "", meta: Mapping[str, str] | None = None
    ) -> None:
        self.layouts = dict(layouts)
        self.fingerprint = fingerprint
        self.meta = dict(meta or {})
        self._sums: dict[str, _Sums] = {}

    @property
    def pending(self) -> bool:
        """Whether anything was counted in since the last `build`."""
        return bool(self._sums)

    def update(self, key: str, a: Tensor, b: Tensor) -> bool:
        """Count in one batch: a of shape (samples, U_a · m), b of shape (samples, U_b · m), paired by row.

        Returns False when the batch holds a NaN or an infinity: then none of it is counted but as excluded.
        Raises MatchError when the shapes do not fit the probe.
        """
        import torch

        if key not in self.layouts:
            raise MatchError(f"no probe {key!r} was declared.{nearest(key, self.layouts)}")
        slots = _slots(key, self.layouts[key], a, b)
        sums = self._sums.setdefault(key, _Sums(self.layouts[key]))
        # neither a caller's autocast nor its matmul setting (TF32, bfloat16) may round the products
        setting = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("highest")
            with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
                return sums.add(a.detach(), b.detach().to(a.device), slots)
        finally:
            torch.set_float32_matmul_precision(setting)

    def build(self) -> Moments:
        """Hand over the sums and start afresh: what is added later is a further shard, and shards add."""
        lost = [key for key, sums in self._sums.items() if not sums.state]
        if lost:
            raise MatchError(
                f"probe {lost[0]!r}: every batch held a NaN or an infinity, nothing was counted. "
                "Check the weights of both models and the audio."
            )
        probes = {key: sums.freeze() for key, sums in self._sums.items()}
        self._sums = {}
        return Moments(probes, self.fingerprint, dict(self.meta))


class _Sums:
    """The running sums of one probe, torch float64, named as in ProbeMoments."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.n = 0
        self.excluded = 0
        self.state: dict[str, Tensor] = {}

    def add(self, a: Tensor, b: Tensor, slots: int) -> bool:
        a, b = _by_slot(a, slots), _by_slot(b, slots)
        samples = a.shape[1]
        if samples == 0:
            return True
        if not all(float(x.abs().amax()) < math.inf for x in (a, b)):
            self.excluded += samples
            return False
        for start in range(0, samples, CHUNK):
            self._chunk(a[:, start : start + CHUNK], b[:, start : start + CHUNK])
        return True

    def _chunk(self, a: Tensor, b: Tensor) -> None:
        """Sums about the chunk's own mean, in float32, moved to the common shift in float64."""
        import torch

        samples = a.shape[1]
        a, centre_a, sum_a, square_a = _centred(a)
        b, centre_b, sum_b, square_b = _centred(b)
        state = self.state
        if not state:
            state |= {"shift_a": centre_a, "shift_b": centre_b}
            state |= {name: torch.zeros_like(centre_a) for name in ("sum_a", "square_a")}
            state |= {name: torch.zeros_like(centre_b) for name in ("sum_b", "square_b")}
            state["product"] = centre_a.new_zeros(a.shape[0], a.shape[2], b.shape[2])
        step_a, step_b = centre_a - state["shift_a"], centre_b - state["shift_b"]
        total_a, total_b = sum_a + samples * step_a, sum_b + samples * step_b
        dtype = torch.promote_types(a.dtype, b.dtype)
        product = torch.bmm(a.to(dtype).transpose(1, 2), b.to(dtype))
        for start in range(0, product.shape[1], ROWS):
            state["product"][:, start : start + ROWS] += product[:, start : start + ROWS]
        if self.n:  # the first chunk is centred on the shift itself
            left, right = torch.stack([step_a, total_a], dim=2), torch.stack([sum_b, step_b], dim=1)
            state["product"].baddbmm_(left, right)
        state["square_a"] += square_a + step_a * (sum_a + total_a)
        state["square_b"] += square_b + step_b * (sum_b + total_b)
        state["sum_a"] += total_a
        state["sum_b"] += total_b
        self.n += samples

    def freeze(self) -> ProbeMoments:
        arrays = {name: self.state.pop(name).cpu().numpy() for name in ARRAYS}
        for array in arrays.values():
            array.flags.writeable = False
        return ProbeMoments(self.layout, self.n, **arrays, excluded=self.excluded)


def _slots(key: str, layout: Layout, a: Tensor, b: Tensor) -> int:
    """Columns per unit. Raises MatchError."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[0]:
        raise MatchError(
            f"probe {key!r}: A gave {tuple(a.shape)} and B {tuple(b.shape)}; both must be (samples, columns) "
            "with the same samples. Do both models see the same clips at the same frame rate?"
        )
    slots, rest = divmod(a.shape[1], layout.units)
    if rest or not slots or b.shape[1] % slots:
        raise MatchError(
            f"probe {key!r}: {a.shape[1]} and {b.shape[1]} columns do not fit {layout.units} units "
            f"({' × '.join(map(str, layout.sizes))})."
        )
    return slots


def _by_slot(x: Tensor, slots: int) -> Tensor:
    """(samples, U · m) → (m, samples, U), at least float32."""
    import torch

    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return x.reshape(len(x), -1, slots).permute(2, 0, 1)


def _centred(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x less its mean (rounded to x's dtype), that mean, Σ and Σ² of the result.

    The result is float64 where its products would leave the range of float32.
    """
    import torch

    centre = x.mean(dim=1, dtype=torch.float64).to(x.dtype)
    x = x - centre[:, None, :]
    spread = float(x.abs().amax())
    if x.dtype == torch.float32 and spread and not 1e-12 < spread < 1e15:
        x = x.double()
    return x, centre.double(), x.sum(dim=1, dtype=torch.float64), (x * x).sum(dim=1, dtype=torch.float64)
