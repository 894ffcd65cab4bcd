"""Recorder: runs a module with its real weights and writes down, as nodes of a Trace, what it does to its tensors.

This is for networks whose Python code reads values of tensors (sizes of an image grid, lengths of sequences), which
`torch.export` cannot follow. Two dispatch modes work together. The upper one is torch's own functionalization: code
that writes into tensors becomes code that does not. The lower one sees each functional op, runs it, and records it.

What Python reads of a tensor becomes a node too. `item` of one element keeps its op. A list or an array is
`permgraph.read`, whose rule pins every axis: then no permutation changes what Python saw, so the path that it took
and every number that it computed stay the same.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from permgraph.errors import TraceError
from permgraph.frontend import packed
from permgraph.frontend.call_site import call_site
from permgraph.frontend.decomposition import composed, is_decomposed, run_in_parts
from permgraph.frontend.flatten import metas_of, table_of
from permgraph.frontend.recurrent import states_of
from permgraph.frontend.schema import node_of, plain
from permgraph.ir.trace import Node, Ref, TensorMeta

READ, SIZE = "permgraph.read.default", "permgraph.size.default"
SCALAR = "aten._local_scalar_dense.default"
# ops that return no tensor and look at no value
_ABOUT = (
    "result_type",
    "is_same_size",
    "size",
    "dim",
    "numel",
    "stride",
    "storage_offset",
    "is_",
    "_is_",
    "sym_",
)
# ops that return their operand: as torch.export, which does not keep them
_SAME = ("aten.detach.default", "aten.lift_fresh.default", "aten.lift.default", "aten.alias.default")
_INFERENCE = ("_embedding_bag_forward_only", "_embedding_bag")  # the same op, where no gradient is wanted
_PAD = "_pad_packed_sequence"  # torch composes it of others, and reads memory to do so
_PACKED = ("aten.lstm.data", "aten.gru.data", "aten.rnn_tanh.data", "aten.rnn_relu.data")


class ForExportAlone(TraceError):
    """An op with functions of its own, by name and place: only torch.export follows it."""


class Recorder(TorchDispatchMode):
    """The lower mode: `nodes` in the order of execution.

    keep     names of nodes whose results are wanted
    results  the results of these, after the run
    outputs  what the network returned
    """

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.keep, self.results = keep, dict[str, Tensor]()
        self.outputs: list[Tensor] = []
        self.reads = False  # whether Python has read a value
        self.sized: set[str] = set()  # nodes whose results have a size that values decide
        self.modules: list[tuple[str, str]] = []  # (path, class) of the modules that are running
        self._known: Any = WeakTensorKeyDictionary()
        self._count: Counter[str] = Counter()
        self._outside: Any = WeakTensorKeyDictionary()
        self._constants: list[Tensor] = []  # alive as long as their names are

    def name(self, tensor: Tensor, ref: Ref) -> None:
        """Say which node a tensor is the result of."""
        self._known[tensor] = ref
        if ref.node in self.keep:
            self.results[ref.node] = tensor

    def ref(self, tensor: Tensor) -> Ref:
        """The node of a tensor. One that came from outside is a constant, in order on every axis.

        Its values are kept, as those of the constants of an exported program, only as long as no value was read:
        later they may be computed from it, and differ for another input. Raises TraceError for one that was computed
        and that no recorded op made.
        """
        known: Ref | None = self._known.get(tensor)
        if known is None:
            if tensor.numel() > 1 and tensor not in self._outside:  # a number may be made below the modes
                raise TraceError(not_recorded())
            known = self.add(
                "constant", "constant", (), tensor, value=None if self.reads else table_of(tensor)
            )
            self.name(tensor, known)
            self._constants.append(tensor)
        return known

    def current(self, tensor: Tensor) -> Tensor:
        """What a tensor of the upper mode holds. After code has written into it, or into that of which it is a view, it is
        computed anew: that is recorded, else what was written, and all before it, would pass for a constant."""
        if isinstance(tensor, FunctionalTensor):
            tensor = tensor.elem
        if not torch._is_functional_tensor(tensor):
            return tensor
        with self:
            torch._functionalize_sync(tensor)
        return torch._from_functional_tensor(tensor)

    def inner(self, tensor: Tensor) -> Tensor:
        """What the recorder knows of a tensor that code holds. Raises TraceError for what was not recorded."""
        found = self.current(tensor)
        if found is not tensor and found not in self._known:
            raise TraceError(not_recorded())
        return found

    def meet(self, values: Any) -> None:
        """Tensors that code hands to an op and that no op made: literals, what was made by other libraries."""
        for tensor in _tensors(values):
            if not isinstance(tensor, FunctionalTensor):
                self._outside[tensor] = True

    def add(self, base: str, op: str, args: tuple[Any, ...], results: Any, **rest: Any) -> Ref:
        count = self._count[base]
        self._count[base] += 1
        name = f"{base}_{count}" if count else base
        self.nodes.append(node_of(name, op, args, results=metas_of(results), **rest))
        return Ref(name)

    def read(self, tensor: Tensor) -> None:
        """Python looks at the values of a tensor."""
        self.reads = True
        op = SCALAR if tensor.numel() == 1 else READ
        self.add("read", op, (self.ref(tensor),), None, **self._where())
        if op == READ:  # its rule runs only when there is a result
            self.nodes[-1] = replace(self.nodes[-1], results=(TensorMeta((), "bool"),))

    def look(self, tensor: Tensor) -> None:
        """Python looks at the size of a tensor. Where values decided it, what they were made of decides what follows."""
        if self.sized and (ref := self.ref(self.inner(tensor))).node in self.sized:
            self.add("size", SIZE, (ref,), None, **self._where())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            return self._mutated(func, args, kwargs)
        result = func(*args, **kwargs)
        self.record(func, args, kwargs, result)
        return result

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Add the node of an op that has run."""
        tensors = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        op, base = str(func), func._schema.name.partition("::")[2]
        if base == "_pack_padded_sequence":
            return packed.pack(self, args, result)
        if base == _PAD:
            return packed.pad(self, args, result)
        if op in _PACKED:
            return self._keep_states(func, args, kwargs, packed.recurrent(base, self, args, result))
        if not tensors:
            if not base.startswith(_ABOUT):
                for tensor in _tensors((args, kwargs)):
                    self.read(tensor)
            return
        if op in _SAME and isinstance(result, Tensor):
            return self.name(result, self.ref(args[0]))
        multiple = isinstance(result, (tuple, list))
        rest = {"multiple": multiple, "pointwise": torch.Tag.pointwise in func.tags, **self._where()}
        op, base = op.replace(*_INFERENCE), base.replace(*_INFERENCE)
        inputs, named = tree_map_only(Tensor, self.ref, (tuple(args), dict(kwargs)))
        ref = self.add(base, op, plain(inputs), result, kwargs=plain(named), **rest)
        sized = _sized_by_values(func, args) or not self.sized.isdisjoint(self.nodes[-1].refs())
        self.sized |= {ref.node} if sized else set()
        if not multiple:
            return self.name(result, ref)
        if sized:  # how many results there are may be decided by values too
            self.add("size", SIZE, (ref,), None, **self._where())
        for i, one in enumerate(result):
            if isinstance(one, Tensor):
                part = self.add("getitem", "getitem", (ref, i), one, **self._where())
                self.sized |= {part.node} if sized else set()
                self.name(one, part)
        if ref.node in self.keep and isinstance(result[0], Tensor):
            self.results[ref.node] = result[0]
        self._keep_states(func, args, kwargs, ref)

    def _keep_states(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], ref: Ref) -> None:
        """The hidden states that are wanted of a recurrent layer."""
        self.results.update(states_of(func, args, kwargs, ref.node, self.keep))

    def _mutated(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Functionalization left this write: it goes to a tensor that the network holds outside its state."""
        if any(t in self._known for t in _tensors((args, kwargs))):
            raise TraceError(writes_outside(call_site()))
        return func(*args, **kwargs)

    def _where(self) -> dict[str, Any]:
        module, kind = self.modules[-1] if self.modules else ("", "")
        return {"module": module, "module_type": kind, "source": call_site()}


class Functional(FunctionalTensorMode):  # type: ignore[no-untyped-call]
    """The upper mode: hands functional ops to a recorder, compound ops whole unless they are to be decomposed."""

    supports_higher_order_operators = True  # to refuse them

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def _can_decompose(self, func: Any, args: Any, kwargs: Any) -> bool:
        return False  # done here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            raise ForExportAlone(f"{func.__name__} ({call_site()})")
        self.recorder.meet((args, kwargs))
        if func in FunctionalTensor.metadata_fns:
            tree_map_only(FunctionalTensor, self.recorder.current, (args, kwargs))
            return super().__torch_dispatch__(func, types, args, kwargs)
        apart = is_decomposed(func)
        if composed(func) and (func._schema.name == f"aten::{_PAD}" or not (apart or _writes_or_views(func))):
            return self._whole(func, args, kwargs)
        if apart or composed(func):
            with self:
                parts = run_in_parts(func, args, kwargs)
            if parts is not NotImplemented:
                return parts
        with self.recorder:
            return super().__torch_dispatch__(func, types, args, kwargs)

    def _whole(self, func: Any, args: Any, kwargs: Any) -> Any:
        inner = tree_map_only(FunctionalTensor, self.recorder.current, (args, kwargs))
        with self.recorder:
            result = func(*inner[0], **inner[1])
        with self:
            return tree_map_only(Tensor, FunctionalTensor.to_functional, result)


def not_recorded() -> str:
    return f"what was computed at {call_site() or 'an unknown place'} was not recorded; please report it"


def writes_outside(place: str) -> str:
    return (
        f"the code writes into a tensor that its modules do not hold ({place or 'place unknown'}): make that tensor a"
        " buffer (register_buffer) or an argument"
    )


def _writes_or_views(func: Any) -> bool:
    """Whether functionalization must see the parts of a compound op."""
    schema = func._schema
    aliases = any(a.alias_info for a in schema.arguments)
    return bool(schema.is_mutable or aliases or torch.Tag.maybe_aliasing_or_mutating in func.tags)


def _sized_by_values(op: Any, args: tuple[Any, ...]) -> bool:
    """Whether values decide the size of the result. `index` is one of these ops where it has a mask."""
    masked = op is not torch.ops.aten.index.Tensor or any(
        t.dtype in (torch.bool, torch.uint8) for t in _tensors(args[1])
    )
    return torch.Tag.dynamic_output_shape in op.tags and masked


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def state_name(kind: str, name: str) -> str:
    """The name of the node of a state tensor, as torch.export gives it."""
    return f"{'p' if kind == 'parameter' else 'b'}_{re.sub('[^a-zA-Z0-9]', '_', name).lower()}"
