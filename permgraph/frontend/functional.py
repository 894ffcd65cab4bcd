"""Functional: programs that torch need not trace a second time, since little in them is to be decomposed.

`run_decompositions` traces the whole program again, which takes longer than the first trace did. Most networks need it
for a few ops only: batch norm and dropout in eval mode, activations in place, a reshape, a call of contiguous or to that
changes nothing. These are rewritten here, to what that second trace makes of them, names included: the fingerprint of a
network does not tell which way it went. Where there is anything else to do, the program is left to torch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from torch.fx.graph import _Namespace

from permgraph.frontend.decomposition import composed, is_decomposed
from permgraph.frontend.in_place import alone, functional, put_out_of_place
from permgraph.frontend.rewrites import REWRITES, run

aten = torch.ops.aten


def made_functional(program: ExportedProgram) -> bool:
    """Rewrite the program in place, when these few ops are all there is to decompose. Returns whether it did."""
    calls = [n for n in program.graph.nodes if n.op not in ("placeholder", "output")]
    if not all(map(_simple, calls)):
        return False
    again = any(node.target in REWRITES and REWRITES[node.target].again for node in calls)
    order = {node: i for i, node in enumerate(program.graph.nodes)}
    for node in calls:
        if node.target in REWRITES:
            REWRITES[node.target].write(node)
        elif functional(node.target):
            put_out_of_place(node, order)
    if again:
        _erase_dead(program.graph)
    _sort_buffers(program)
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
    if target in REWRITES:
        return REWRITES[target].holds(node)
    if functional(target):
        return alone(node)
    if target is aten.scaled_dot_product_attention.default and not _same_strides(node):
        return False
    schema = target._schema
    if target.namespace != "aten" or schema.is_mutable or is_decomposed(target) or target in _LEFT_TO_TORCH:
        return False
    aliases = any(a.alias_info for a in schema.arguments)
    return not (composed(target) and (aliases or torch.Tag.maybe_aliasing_or_mutating in target.tags))


def _same_strides(node: fx.Node) -> bool:
    """Attention is another kernel where gradients are wanted, as in the first trace: with a mask its result lies in memory
    in another order, and reshapes behind it are views in one trace and copies in the other."""
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if mask is None:
        return True
    with torch.no_grad():
        return bool(run(node).stride() == node.meta["val"].stride())


_BATCH_NORM = aten._native_batch_norm_legit_no_training.default
_LEFT_TO_TORCH = {aten.lift_fresh_copy.default, aten.detach.default}


def _erase_dead(graph: fx.Graph) -> None:
    """What a second round of decompositions does not see. A result of batch norm that is not read is made in every round."""
    for node in reversed(list(graph.nodes)):
        of_batch_norm = node.target is operator.getitem and node.args[0].target is _BATCH_NORM
        if node.op == "call_function" and not (node.users or node.is_impure() or of_batch_norm):
            graph.erase_node(node)


def _sort_buffers(program: ExportedProgram) -> None:
    """As a new trace finds them: from outer modules to inner ones, of which those that hold no saved state come last."""
    specs = program.graph_signature.input_specs
    buffers = [i for i, spec in enumerate(specs) if spec.kind == InputKind.BUFFER]
    modules: dict[str, None] = {"": None}
    for name in (*program.state_dict, *(str(specs[i].target) for i in buffers)):
        parts = name.split(".")[:-1]
        modules |= {".".join(parts[: k + 1]): None for k in range(len(parts))}
    rank = {name: at for at, name in enumerate(_in_depth(list(modules)))}
    ordered = sorted(
        (specs[i] for i in buffers), key=lambda s: (rank[str(s.target).rpartition(".")[0]], not s.persistent)
    )
    for i, spec in zip(buffers, ordered, strict=True):
        specs[i] = spec
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    behind = next(node for node in program.graph.nodes if node.op != "placeholder")
    for spec in specs:
        behind.prepend(nodes[spec.arg.name])


def _in_depth(modules: list[str]) -> list[str]:
    """Every module before its children, those in the order given."""
    children: dict[str, list[str]] = {}
    for name in modules[1:]:
        children.setdefault(name.rpartition(".")[0], []).append(name)

    def walk(name: str) -> Iterator[str]:
        yield name
        for child in children.get(name, ()):
            yield from walk(child)

    return list(walk(""))


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
        base = base[2:-2] if base.startswith("__") and base.endswith("__") else base  # as fx does
        renamed[node.name] = node, names.create_name(base, None)
    for node, name in renamed.values():
        node.name = name
    given = next(node for node in program.graph.nodes if node.op == "output").args[0]
    for spec, node in zip(program.graph_signature.output_specs, given, strict=True):
        if isinstance(spec.arg, TensorArgument) and isinstance(node, fx.Node):
            spec.arg.name = node.name
