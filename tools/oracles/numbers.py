"""A network on numbers, in float64: what a re-ordering of its state does to its outputs."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

State = dict[str, Tensor]


class OnNumbers:
    """`module` in float64 on fixed inputs. `state` holds every tensor of its state dict."""

    def __init__(
        self, module: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self.module = copy.deepcopy(module).double().eval()
        self.inputs, self.kwargs = tree_map_only(
            Tensor, lambda x: x.double() if x.is_floating_point() else x, (inputs, dict(kwargs or {}))
        )
        tensors = self.module.state_dict(keep_vars=True)
        first = {id(v): k for k, v in reversed(tensors.items())}
        self.ties = {k: first[id(v)] for k, v in tensors.items() if first[id(v)] != k}  # name → what it is
        self.state: State = OrderedDict({k: v.detach().clone() for k, v in tensors.items()})
        self.state._metadata = tensors._metadata  # type: ignore[attr-defined]  # what `load_state_dict` reads beside
        self.before = self.outputs(self.state)

    def outputs(self, state: State) -> Tensor:
        """All outputs in one vector."""
        with torch.no_grad():
            return self._run(state)

    def _run(self, state: State) -> Tensor:
        free = {k: v for k, v in state.items() if k not in self.ties}
        with _wide():
            return _flat(functional_call(self.module, free, self.inputs, self.kwargs))

    def change(self, state: State) -> float:
        """Largest change of an output, relative to the largest output."""
        return float((self.outputs(state) - self.before).abs().max() / self.before.abs().max())

    def loaded_change(self, state: State) -> float:
        """The same by loading the state into a copy, strictly, as a user would."""
        other = copy.deepcopy(self.module)
        other.load_state_dict(state, strict=True)
        with torch.no_grad(), _wide():
            after = _flat(other(*self.inputs, **self.kwargs))
        return float((after - self.before).abs().max() / self.before.abs().max())

    def gradients(self, state: State, seed: int = 0) -> State:
        """The gradient of a random combination of the outputs. Running statistics have none: torch cannot."""
        wanted = {
            k
            for k, v in state.items()
            if v.is_floating_point() and "running_" not in k and k not in self.ties
        }
        leaves = {k: v.detach().clone().requires_grad_(k in wanted) for k, v in state.items()}
        mix = torch.randn(
            self.before.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        names = [k for k, v in leaves.items() if v.requires_grad]
        found = torch.autograd.grad(
            (self._run(leaves) * mix).sum(), [leaves[k] for k in names], allow_unused=True
        )
        return {k: g for k, g in zip(names, found, strict=True) if g is not None}


NARROW = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64}
NARROW[torch.complex64] = torch.complex128
CASTS = {Tensor.float: Tensor.double, Tensor.half: Tensor.double, Tensor.bfloat16: Tensor.double}


class _Casts(TorchFunctionMode):
    """A cast to a narrower float is one to float64: rounding would hide that an exchange changes nothing."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args = tuple(NARROW.get(x, x) if isinstance(x, torch.dtype) else x for x in args)
        if kwargs and kwargs.get("dtype") in NARROW:
            kwargs = {**kwargs, "dtype": NARROW[kwargs["dtype"]]}
        return CASTS.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def _wide() -> Iterator[None]:
    """Every float that a forward makes has 64 bits."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Casts():
            yield
    finally:
        torch.set_default_dtype(usual)


def _flat(made: Any) -> Tensor:
    """All tensors of an output in one vector."""
    return torch.cat([x.reshape(-1) for x in tree_leaves(made) if isinstance(x, Tensor)])
