"""Reads: what Python code learns of a tensor past the ops of torch, in a run that is recorded.

Values that it takes out, as lists and numpy arrays, are read (`Recorder.read`). Sizes are looked at (`Recorder.look`):
where values decided them, as for the rows that a mask selects, code that asks goes on with what the values say.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from permgraph.errors import TraceError
from permgraph.frontend.call_site import call_site
from permgraph.frontend.recorder import Recorder


class Reads(TorchFunctionMode):
    """Python methods that hand out the values of a tensor, without an op of torch: lists and numpy arrays."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __enter__(self) -> Any:
        self.own = _CLASS.tolist  # it hides the method of Tensor, which comes here
        _CLASS.tolist = lambda tensor: self.values(torch.Tensor.tolist, tensor)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        _CLASS.tolist = self.own
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def values(self, method: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        inner = self.recorder.inner(tensor)
        self.recorder.read(inner)
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            return _HAND_OUT[method](inner.detach().clone(), *args, **kwargs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _HAND_OUT and isinstance(args[0], Tensor):
            return self.values(func, *args, **(kwargs or {}))
        if func in _SIZES and isinstance(args[0], FunctionalTensor):
            self.recorder.look(args[0])
        if func in _FROM_NUMBERS and args and not isinstance(args[0], Tensor):  # a list with tensors in it
            args = (tree_map_only(Tensor, lambda t: t.tolist(), args[0]), *args[1:])
        if func in _ADDRESS:
            raise TraceError(
                f"the code takes the memory of a tensor ({func.__name__}, {call_site()}): what it reads there cannot"
                " be seen"
            )
        return func(*args, **(kwargs or {}))


def _array(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`numpy` of a copy."""
    return tensor.numpy(force=True)


_HAND_OUT: dict[Any, Any] = {
    torch.Tensor.tolist: torch.Tensor.tolist,
    torch.Tensor.numpy: _array,
    torch.Tensor.__array__: torch.Tensor.__array__,
    torch.Tensor.__repr__: torch.Tensor.__repr__,
    torch.Tensor.__format__: torch.Tensor.__format__,
}
_CLASS: Any = FunctionalTensor
_SIZES = {
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.numel,
    torch.Tensor.nelement,
    torch.Tensor.__len__,
    torch.Tensor.__iter__,
    torch.numel,
}
_FROM_NUMBERS = (torch.tensor, torch.as_tensor)
_ADDRESS = {
    torch.Tensor.data_ptr,
    torch.Tensor.__dlpack__,
    torch.Tensor.untyped_storage,
    torch.Tensor.storage,
}
