"""Equal values: whether coordinates of an activation may hold one value, so that a selection has to break ties.

What argmax, topk and sort return does not depend on the order of coordinates, unless some are equal: then the first
one wins. Values that come out of weights in general position differ; those behind a ReLU may all be zero, and those
behind a comparison, a rounding or a mask are equal as a rule. Where a value may be zero, `extreme_values` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from permgraph.axes.against_itself import meets_itself, softmax_of
from permgraph.axes.cancellation import cancelling
from permgraph.axes.constant_ops import is_constant, is_rectified
from permgraph.axes.extreme_values import Extremes, extreme_values, is_zeros, mixes_by_a_mask
from permgraph.axes.op_kinds import LAYERS, MOVEMENTS, NORMS, RANDOM, SUMS, ZERO_AT_ZERO
from permgraph.axes.own_weights import own_weights
from permgraph.axes.ways import meetings
from permgraph.ir.trace import Node, Ref, Trace

DISTINCT, ZEROS, EQUAL = 0, 1, 2  # in general different; equal only where they are zero; equal anywhere

_KEEP = MOVEMENTS | frozenset(
    [
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "var",
        "std",
        "norm",
        "linalg_vector_norm",
        "topk",
        "sort",
        "broadcast_to",
        "cat",
        "stack",
        "index",
        "index_select",
        "gather",
        "dropout",
        "copy",
        "mul",
        "div",
        "true_divide",
        "neg",
    ]
)
_SMOOTH = frozenset(
    [
        "exp",
        "sigmoid",
        "log",
        "log1p",
        "expm1",
        "cos",
        "softplus",
        "logsigmoid",
        "log_sigmoid",
        "reciprocal",
        "rsqrt",
        "erf",
        "selu",
        "celu",
        "softmax",
        "_softmax",
        "log_softmax",
        "_log_softmax",
        "cumsum",
        "logsumexp",
        "cosh",
        "sinh",
    ]
)


@dataclass(frozen=True)
class EqualValues:
    """DISTINCT, ZEROS or EQUAL for every node (of several results: for the first).

    along_own   of coordinates that have weights of their own; of all others, `worst`: the largest level before it
    own         these dims
    """

    along_own: Mapping[str, int]
    worst: Mapping[str, int]
    own: Mapping[str, frozenset[int]]

    def along(self, name: str, dim: int) -> int:
        """Of coordinates that differ in one dim."""
        levels = self.along_own if dim in self.own.get(name, ()) else self.worst
        return levels[name]


def equal_values(trace: Trace) -> EqualValues:
    """How equal the values of every node may be."""
    met = meetings(trace) | cancelling(trace)
    found = _Levels(trace, own_weights(trace), extreme_values(trace, met), {})
    worst: dict[str, int] = {}
    widened: set[str] = set()  # holds coordinates twice, along dims of their own
    for node in trace.nodes:
        refs = [ref for ref in node.refs() if ref in found.levels]
        level = EQUAL if node.name in met else found.of(node)
        if widened.intersection(refs) and node.short_op not in LAYERS:
            merged = node.short_op in ("view", "reshape", "flatten", "_unsafe_view") and _merges(node, trace)
            level = EQUAL if merged else level
            widened.add(node.name)
        if node.short_op in ("expand", "broadcast_to"):
            widened.add(node.name)
        found.levels[node.name] = level
        # an integer may be there twice: what is looked up by it is
        before = max([level, *(worst[r] if trace.by_name[r].is_float else EQUAL for r in refs)])
        lifted = before == ZEROS and node.name not in found.extremes.zero
        worst[node.name] = EQUAL if lifted else before
    return EqualValues(found.levels, worst, found.own)


def _merges(node: Node, trace: Trace) -> bool:
    source = node.operands.get("self")
    return isinstance(source, Ref) and len(trace.by_name[source.node].shape) > len(node.shape)


@dataclass(frozen=True)
class _Levels:
    """Of every node, along its own dims."""

    trace: Trace
    own: Mapping[str, frozenset[int]]
    extremes: Extremes
    levels: dict[str, int]

    def of(self, node: Node) -> int:
        if node.op in ("state", "input"):
            return DISTINCT if node.is_float else EQUAL
        if node.op == "getitem":
            return self.levels[node.operands["source"].node]
        name, zero = node.short_op, node.name in self.extremes.zero
        if is_zeros(node):
            return ZEROS
        if name in RANDOM:
            return DISTINCT
        refs = [ref for ref in node.refs() if ref in self.levels]
        given = [self.levels[ref] for ref in refs if _varies(self.trace.by_name[ref])]
        if not node.is_float or meets_itself(node, self.trace) or is_constant(node, self.trace):
            return EQUAL
        if name == "mul" and len(refs) > 1:
            return self.of_product(node, refs)
        if not given:
            return EQUAL
        if is_rectified(node):
            return max(ZEROS, *given)
        if (softened := softmax_of(node, self.trace)) is not None:
            return DISTINCT if self.levels.get(softened) == DISTINCT else EQUAL
        if name in LAYERS or (name in NORMS and node.operands.get("weight") is not None):
            return max(ZEROS if zero else DISTINCT, min(given))
        if (
            name in ("pad", "constant_pad_nd")
            and not node.options.get("value")
            and node.options.get("mode", "constant") == "constant"
        ):
            return max(ZEROS, *given)
        if name in SUMS:
            return self.of_sum(node, refs)
        if name in ("div", "true_divide") and len(refs) > 1:
            return self.of_quotient(node)
        return _of_elements(name, given)

    def along(self, node: Node, refs: Sequence[str]) -> list[str]:
        """The operands that vary along every own dim of the result; the others are the same for several coordinates."""
        rank, found = len(node.shape), []
        for ref in refs:
            shape = self.trace.by_name[ref].shape
            backs = [dim - rank for dim in self.own.get(node.name, ()) if node.shape[dim] > 1]
            if all(len(shape) + back >= 0 and shape[len(shape) + back] > 1 for back in backs):
                found.append(ref)
        return found

    def of_sum(self, node: Node, refs: Sequence[str]) -> int:
        """What is the same for all coordinates makes other numbers of zeros, but leaves them equal."""
        if any(ref in self.extremes.huge for ref in (*refs, node.name)):
            return EQUAL
        varying = self.along(node, refs)
        levels = [self.levels[ref] for ref in varying]
        if mixes_by_a_mask(node, self.extremes.zero):
            return max(map(self.levels.__getitem__, refs[:2])) if len(varying) == len(refs) else EQUAL
        if node.short_op in ("add", "sub", "rsub"):
            least = min(levels, default=EQUAL)
        else:  # of a product that may be zero nothing is left but the first operand
            least = self.levels[refs[0]] if refs[0] in varying else EQUAL
        if least == DISTINCT:
            return DISTINCT
        whole = len(refs) > 1 and len(varying) == len(refs)
        return ZEROS if whole and max(levels) == ZEROS else EQUAL

    def of_product(self, node: Node, refs: Sequence[str]) -> int:
        """Equal where a factor is zero, whether it varies along a dim or not."""
        varying = self.along(node, refs)
        least = min((self.levels[ref] for ref in varying), default=EQUAL)
        if least == EQUAL:
            return EQUAL
        return ZEROS if node.name in self.extremes.zero or least == ZEROS else DISTINCT

    def of_quotient(self, node: Node) -> int:
        above, below = (node.operands[side].node for side in ("self", "other"))
        if below in self.extremes.zero:
            return EQUAL  # infinite
        varying = self.along(node, [above, below])
        level = self.levels[above] if above in varying else EQUAL
        if level != EQUAL or below not in varying or self.levels[below] != DISTINCT:
            return level
        return ZEROS if above in self.extremes.zero else DISTINCT


def _of_elements(name: str, given: list[int]) -> int:
    """Of an op that works element by element, from the levels of what varies among its operands."""
    if name in _KEEP or name in ZERO_AT_ZERO:
        return max(given)
    if name in _SMOOTH or name in NORMS:
        return DISTINCT if max(given) == DISTINCT else EQUAL
    return EQUAL


def zero_where(selection: Node, node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether a tensor is zero wherever the values selected are: it comes of them by ops that keep zero."""
    if node.op == "getitem":
        source = nodes[node.operands["source"].node]
        same = (source.op, source.operands, source.options) == (
            selection.op,
            selection.operands,
            selection.options,
        )
        return bool(same and node.options["index"] == 0)
    name, sources = node.short_op, [nodes[ref] for ref in node.refs()]
    if name == "mul":
        return any(zero_where(selection, source, nodes) for source in sources)
    keeps = name in ZERO_AT_ZERO or name in (
        "relu",
        "clone",
        "contiguous",
        "_to_copy",
        "neg",
        "detach",
        "alias",
    )
    return keeps and len(sources) == 1 and zero_where(selection, sources[0], nodes)


def _varies(node: Node) -> bool:
    """Whether a tensor has more than one element; of an index, which is none of the values, nothing is asked."""
    return node.is_float and any(n > 1 for n in node.shape)
