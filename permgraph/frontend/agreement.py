"""Agreement: whether a run under the recorder gave what the network gives by itself.

The recorder runs below autograd, where no tensor has a gradient. Code that computes with gradients may go on without
them: `torch.autograd.functional.jacobian` returns zeros then. So what was recorded is compared with a plain run.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from permgraph.errors import TraceError
from permgraph.frontend.arguments import Call, tensors_in

CLOSE = 1e-3  # of the largest number: ops that the recorder decomposes round in another way
SHARE = 0.9  # of the numbers of each output: rounding may change which of several is the largest
GRADIENTS = "Write gradients with torch.func (grad, vjp, jacrev): these are captured."


def check_agreement(module: nn.Module, call: Call, recorded: Sequence[Tensor]) -> None:
    """Raises TraceError where outputs differ from those of the network, which is run and not changed.

    A network that gives something else each time, as one that draws numbers, is left out.
    """
    plain = outputs_of(module, call)
    if (apart := _first_apart(plain, recorded)) is None:
        return
    if _first_apart(plain, outputs_of(module, call)) is None:
        raise TraceError(
            f"output {apart} of a run under the recorder is not that of the network, as where code computes with"
            f" gradients or asks whether there are any. {GRADIENTS}"
        )


def outputs_of(module: nn.Module, call: Call) -> list[Tensor]:
    """What the network returns. A copy runs, which shares the parameters: no code writes into these."""
    alone = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    args, kwargs = copy.deepcopy(call)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        return [t.detach() for t in tensors_in(alone(*args, **kwargs))]


def _first_apart(some: Sequence[Tensor], others: Sequence[Tensor]) -> int | None:
    """The first output that is another, or that is missing."""
    if len(some) != len(others):
        return min(len(some), len(others))
    return next((i for i, pair in enumerate(zip(some, others, strict=True)) if not agree(*pair)), None)


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs are the same but for rounding."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_sparse or one.is_quantized or not one.numel():
        return True
    a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (one, other))
    finite = a.isfinite()
    largest = float(a[finite].abs().max()) if bool(finite.any()) else 0.0
    near = ((a - b).abs() <= CLOSE * largest) | (a == b) | (a.isnan() & b.isnan())
    return float(near.double().mean()) >= SHARE
