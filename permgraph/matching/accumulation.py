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

CHUNK = 512  # samples that are centred and multiplied together, in float32: rounding grows with their number
# Samples whose products are added in float32 before the sum goes to float64. That costs about a twentieth of the products; more
# would leave half as much memory as the sums take to what waits, for every probe.
FOLD = 896
NARROW = 64  # units of a probe whose products are float64 throughout: small ones cost nothing, and are summed one by one
ROWS = 256  # rows of a product widened to float64 at a time: more would leave the cache, six times slower
SMALL, LARGE = 1e-24, 1e30  # squares of float32 numbers beyond these leave its range


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
    """The running sums of one probe, torch float64; products of the last samples wait in float32."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.excluded = 0
        self.a: Sums | None = None
        self.b: Sums | None = None
        self.product: Tensor | None = None
        self.waiting: Tensor | None = None  # Σ of products in float32, of `count` samples
        self.count = 0
        self.steps: list[tuple[Tensor, Tensor]] = []  # what moves these to the common shift: left · right

    def add(self, a: Tensor, b: Tensor, slots: int) -> bool:
        samples = len(a)
        if samples == 0:
            return True
        a, b = _by_slot(a, slots), _by_slot(b, slots)
        chunks = [slice(start, start + CHUNK) for start in range(0, samples, CHUNK)]
        centres = [[x[:, at].mean(dim=1) for at in chunks] for x in (a, b)]
        if not all(_is_finite(x, means) for x, means in zip((a, b), centres, strict=True)):
            self.excluded += samples
            return False
        for at, of_a, of_b in zip(chunks, *centres, strict=True):
            self._chunk(_centred(a[:, at], of_a), _centred(b[:, at], of_b))
        return True

    def _chunk(self, one: tuple[Tensor, Sums], other: tuple[Tensor, Sums]) -> None:
        """Sums about the chunk's own mean, moved to the common shift in float64."""
        import torch

        (a, of_a), (b, of_b) = one, other
        if self.a is None or self.b is None:
            empty = of_a.sum.new_zeros(a.shape[0], a.shape[2], b.shape[2])
            self.a, self.b, self.product = of_a, of_b, empty
        else:
            moved = of_a.about(self.a.shift)
            left = torch.stack([of_a.shift - self.a.shift, moved.sum], 2)
            self.steps.append((left, torch.stack([of_b.sum, of_b.shift - self.b.shift], 1)))
            self.a, self.b = self.a + moved, self.b + of_b
        self._multiply(a, b)

    def _multiply(self, a: Tensor, b: Tensor) -> None:
        """Add the products of centred samples."""
        import torch

        assert self.product is not None
        if torch.float64 in (a.dtype, b.dtype) or min(a.shape[2], b.shape[2]) < NARROW:
            self.product.baddbmm_(a.double().transpose(1, 2), b.double())
        elif self.waiting is None:
            self.waiting = torch.bmm(a.transpose(1, 2), b)
        else:
            self.waiting.baddbmm_(a.transpose(1, 2), b)
        self.count += a.shape[1]
        if self.count >= FOLD:
            self._fold()

    def _fold(self) -> None:
        """Everything that waits goes into the float64 product."""
        import torch

        assert self.product is not None
        if self.waiting is not None:
            for start in range(0, self.product.shape[1], ROWS):
                self.product[:, start : start + ROWS] += self.waiting[:, start : start + ROWS]
            self.waiting = None  # the next probe's may have its place
        if self.steps:
            left, right = zip(*self.steps, strict=True)
            self.product.baddbmm_(torch.cat(left, dim=2), torch.cat(right, dim=1))
        self.steps, self.count = [], 0

    def freeze(self) -> ProbeMoments:
        assert self.a is not None and self.b is not None and self.product is not None
        self._fold()
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


def _is_finite(x: Tensor, means: list[Tensor]) -> bool:
    """Whether no value is NaN or infinite: those stay in a mean, which may also leave the range by itself."""
    return all(math.isfinite(float(mean.sum())) for mean in means) or float(x.abs().amax()) < math.inf


def _centred(x: Tensor, centre: Tensor) -> tuple[Tensor, Sums]:
    """x (m, samples, U) less about its mean, and the sums of x about that.

    The result is float64 where its products would leave the range of float32.
    """
    if not math.isfinite(float(centre.sum())):
        x, centre = x.double(), x.mean(dim=1, dtype=centre.double().dtype)
    x = x - centre[:, None, :]
    total, square = x.sum(dim=1).double(), (x * x).sum(dim=1).double()
    large = float(square.amax()) / x.shape[1]
    if x.element_size() == 4 and large and not SMALL < large < LARGE:
        x = x.double()
        total, square = x.sum(dim=1), (x * x).sum(dim=1)
    elif x.element_size() == 4:
        square = _small_too(x, square)
    return x, Sums(x.shape[1], centre.double(), total, square)


def _small_too(x: Tensor, square: Tensor) -> Tensor:
    """The sums of squares, anew in float64 of channels whose squares float32 does not hold."""
    import torch

    few = square < SMALL
    if bool(few.any()):
        for slot, unit in torch.nonzero(few & (x != 0).any(dim=1)).tolist():
            square[slot, unit] = (x[slot, :, unit].double() ** 2).sum()
    return square


def _numpy(sums: Sums) -> Sums:
    return Sums(sums.n, _array(sums.shift), _array(sums.sum), _array(sums.square))


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.cpu().numpy()
    array.flags.writeable = False
    return array
