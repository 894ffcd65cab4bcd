"""Functional: programs that torch need not trace a second time, since little in them is to be decomposed.

`run_decompositions` traces the whole program again, which takes longer than the first trace did. Most networks need it
for a few ops only: dropout in eval mode, a reshape that is a view, a call of contiguous or to that changes nothing.
These are rewritten here, to what that second trace makes of them, names included: the fingerprint of a network does
not tell which way it went. Where there is anything else to do, the program is left to torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx.graph import _Namespace

from permgraph.frontend.decomposition import composed, is_decomposed

aten = torch.ops.aten


def made_functional(program: ExportedProgram) -> bool:
    """Rewrite the program in place, when these few ops are all there is to decompose. Returns whether it did."""
    calls = [n for n in program.graph.nodes if n.op not in ("placeholder", "output")]
    if not all(map(_simple, calls)):
        return False
    for node in calls:
        if rewrite := _REWRITES.get(node.target):
            rewrite(node)
    program.graph_module.graph.lint()
    _rename(program)
    return True


def _simple(node: fx.Node) -> bool:
    """Whether a node stays as it is, or is one to rewrite."""
    target = node.target
    if target is operator.getitem:
        return True
    values = node.meta.get("val")
    values = values if isinstance(values, (tuple, list)) else (values,)
    if any(isinstance(v, torch.SymInt) for v in values) or not isinstance(target, torch._ops.OpOverload):
        return False
    if target in _REWRITES:
        return _CONDITIONS[target](node)
    schema = target._schema
    if target.namespace != "aten" or schema.is_mutable or is_decomposed(target) or target in _LEFT_TO_TORCH:
        return False
    aliases = any(a.alias_info for a in schema.arguments)
    return not (composed(target) and (aliases or torch.Tag.maybe_aliasing_or_mutating in target.tags))


def _value(node: Any) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


def _to_clone(node: fx.Node, **kwargs: Any) -> None:
    node.target, node.args, node.kwargs = aten.clone.default, node.args[:1], kwargs


def _away(node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)


def _contiguous(node: fx.Node) -> None:
    if _value(node.args[0]).is_contiguous():
        _away(node)
    else:
        _to_clone(node, memory_format=torch.contiguous_format)


def _reshape(node: fx.Node) -> None:
    """A view; torch leaves a size of -1 as it was written only where the operand is contiguous."""
    node.target = aten.view.default
    if not _value(node.args[0]).is_contiguous():
        node.args = (node.args[0], list(_value(node).shape))


def _is_view(node: fx.Node) -> bool:
    try:
        _value(node.args[0]).view(node.args[1])  # type: ignore[arg-type]
    except (RuntimeError, ValueError):  # ValueError: of a tensor without values
        return False
    return True


def _changes_nothing(node: fx.Node) -> bool:
    before, after = _value(node.args[0]), _value(node)
    return (
        before.dtype == after.dtype
        and before.device == after.device
        and before.layout == after.layout
        and before.stride() == after.stride()
        and not node.kwargs.get("copy")
    )


_REWRITES: dict[Any, Callable[[fx.Node], None]] = {
    aten.dropout.default: _to_clone,
    aten.contiguous.default: _contiguous,
    aten.reshape.default: _reshape,
    aten.to.dtype_layout: _away,
}
_CONDITIONS: dict[Any, Callable[[fx.Node], bool]] = {
    aten.dropout.default: lambda node: node.args[2:] == (False,),
    aten.contiguous.default: lambda node: len(node.args) == 1 and not node.kwargs,
    aten.reshape.default: _is_view,
    aten.to.dtype_layout: _changes_nothing,
}
_LEFT_TO_TORCH = {aten.lift_fresh_copy.default, aten.detach.default}


def _rename(program: ExportedProgram) -> None:
    """Names as a new trace gives them: the name of the op, and a number."""
    names, renamed = _Namespace(), {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        target = node.target
        base = (
            target._schema.name.partition("::")[2] if isinstance(target, torch._ops.OpOverload) else "getitem"
        )
        renamed[node.name] = node, names.create_name(base, None)
    for node, name in renamed.values():
        node.name = name
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, TensorArgument) and spec.arg.name in renamed:
            spec.arg.name = renamed[spec.arg.name][1]
