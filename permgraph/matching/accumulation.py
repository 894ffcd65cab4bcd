"""MomentsBuilder: adds batches of activations, on the device where they are, into float64 sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from permgraph.errors import MatchError, nearest
from permgraph.ir.moments import FloatArray, Layout, Moments, ProbeMoments
from permgraph.ir.plan import Origin
from permgraph.ir.sums import Sums

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
        self,
        layouts: Mapping[str, Layout],
        origin: Origin | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> None:
        self.layouts = dict(layouts)
        self.origin = origin or Origin()
        self.meta = dict(meta or {})
        self._sums: dict[str, _Running] = {}

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
        sums = self._sums.setdefault(key, _Running(self.layouts[key]))
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
        lost = [key for key, sums in self._sums.items() if sums.a is None]
        if lost:
            raise MatchError(
                f"probe {lost[0]!r}: every batch held a NaN or an infinity, nothing was counted. "
                "Check the weights of both models and the audio."
            )
        probes = {key: sums.freeze() for key, sums in self._sums.items()}
        self._sums = {}
        return Moments(probes, self.origin, dict(self.meta))


class _Running:
    """The running sums of one probe, torch float64."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.excluded = 0
        self.a: Sums | None = None
        self.b: Sums | None = None
        self.product: Tensor | None = None

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

        a, of_a = _centred(a)
        b, of_b = _centred(b)
        dtype = torch.promote_types(a.dtype, b.dtype)
        product = torch.bmm(a.to(dtype).transpose(1, 2), b.to(dtype))
        if self.a is None or self.b is None or self.product is None:
            self.a, self.b, self.product = of_a, of_b, product.double()
            return
        for start in range(0, product.shape[1], ROWS):
            self.product[:, start : start + ROWS] += product[:, start : start + ROWS]
        moved = of_a.about(self.a.shift)
        left = torch.stack([of_a.shift - self.a.shift, moved.sum], dim=2)
        right = torch.stack([of_b.sum, of_b.shift - self.b.shift], dim=1)
        self.product.baddbmm_(left, right)
        self.a, self.b = self.a + moved, self.b + of_b

    def freeze(self) -> ProbeMoments:
        assert self.a is not None and self.b is not None and self.product is not None
        return ProbeMoments(self.layout, _numpy(self.a), _numpy(self.b), _array(self.product), self.excluded)


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


def _centred(x: Tensor) -> tuple[Tensor, Sums]:
    """x (m, samples, U) less its mean (rounded to x's dtype), and the sums of x about that mean.

    The result is float64 where its products would leave the range of float32.
    """
    import torch

    centre = x.mean(dim=1, dtype=torch.float64).to(x.dtype)
    x = x - centre[:, None, :]
    spread = float(x.abs().amax())
    if x.dtype == torch.float32 and spread and not 1e-12 < spread < 1e15:
        x = x.double()
    total, square = (y.sum(dim=1, dtype=torch.float64) for y in (x, x * x))
    return x, Sums(x.shape[1], centre.double(), total, square)


def _numpy(sums: Sums) -> Sums:
    return Sums(sums.n, _array(sums.shift), _array(sums.sum), _array(sums.square))


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.cpu().numpy()
    array.flags.writeable = False
    return array
