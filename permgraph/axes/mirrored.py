"""Mirrored dims: whether a value stays the same when two of its dims change places, as those of xᵀx do.

A value is written as an expression in which every dim of every tensor has a tag: movements are gone, products are
sets of factors, what commutes is sorted. Where the expression is the same with two tags exchanged, so is the value.
An op that is not listed is a leaf, of which nothing is known but the node and the tags of its dims.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from permgraph.axes.equation import DOTS
from permgraph.ir.ref import refs_in
from permgraph.ir.trace import Node, Ref, Shape, Trace

Tags = tuple[Any, ...]  # of every dim: equal for dims that have one index; None along which nothing differs
Expression = tuple[Any, ...]  # an op, and the numbers of the expressions that it is applied to

_COPIES = frozenset(["alias", "clone", "contiguous", "detach", "lift_fresh_copy", "expand"])
_VIEWS = frozenset(["view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"])
_COMMUTE = frozenset(["add", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or", "hypot"])
_EVEN = frozenset(["abs", "square", "cos", "cosh"])
_REDUCE = frozenset(["sum", "mean", "amax", "amin", "var", "std", "linalg_vector_norm"])
_PRODUCTS = {"mm": "ik,kj->ij", "bmm": "bik,bkj->bij", "linear": "...k,jk->...j"}
_SCALAR, _SUMMED = -1, "summed"
_DEEP = 64  # ops to look back through


class Mirrored:
    """Of one trace. Answers are kept, and so is every expression, by a number."""

    def __init__(self, trace: Trace) -> None:
        self.nodes = trace.by_name
        self.trace = trace
        self.numbers: dict[Expression, int] = {}
        self.expressions: list[Expression] = []
        self.seen: dict[tuple[str, Tags], int] = {}
        self.roots: dict[str, int | None] = {}

    @cached_property
    def same(self) -> dict[str, str]:
        """Node → the first one that computes the same of the same."""
        return _equal_nodes(self.trace)

    def dims(self, name: str, a: int, b: int) -> bool:
        """Whether the result of a node stays the same when dims a and b change places."""
        if name not in self.nodes or self.nodes[name].shape[a] != self.nodes[name].shape[b]:
            return False
        tags: list[Any] = list(range(len(self.nodes[name].shape)))
        plain = self._of(name, tuple(tags), _DEEP)
        tags[a], tags[b] = tags[b], tags[a]
        return plain == self._of(name, tuple(tags), _DEEP)

    def _number(self, *expression: Any) -> int:
        if expression not in self.numbers:
            self.numbers[expression] = len(self.expressions)
            self.expressions.append(expression)
        return self.numbers[expression]

    def _of(self, name: str, tags: Tags, depth: int) -> int:
        """The expression of a node whose dims have these tags."""
        node = self.nodes[name]
        tags = tuple(None if n == 1 else tag for tag, n in zip(tags, node.shape, strict=True))
        if (name, tags) not in self.seen:
            known = depth and name not in self.trace.random and not node.op.endswith(".dtype")
            found = self._written(node, tags, depth - 1) if known else None
            self.seen[name, tags] = self._number("leaf", self.same[name], tags) if found is None else found
        return self.seen[name, tags]

    def _written(self, node: Node, tags: Tags, depth: int) -> int | None:
        """The same, through an op that is known; None for one that is not."""
        op = node.short_op
        if op == "eye" and node.shape[0] == node.shape[1]:
            return self._number("leaf", node.name, tuple(sorted(tags, key=repr)))
        if op in _PRODUCTS or op in ("matmul", "einsum"):
            return self._product(node, tags, depth)
        values = [value for value in node.operands.values() if value is not None]
        given = [self.nodes[value.node] for value in values if isinstance(value, Ref)]
        if not given or any(isinstance(value, tuple) for value in values):
            return None
        first, shape = given[0], given[0].shape
        if op in _COPIES:
            return self._of(first.name, _aligned(tags, shape), depth)
        if op in _VIEWS and _wide(shape) == _wide(node.shape):
            kept = iter([tag for tag, n in zip(tags, node.shape, strict=True) if n != 1])
            return self._of(first.name, tuple(None if n == 1 else next(kept) for n in shape), depth)
        if op in ("permute", "transpose", "t"):
            order = _order(node, len(shape))
            return self._of(first.name, tuple(tags[order.index(d)] for d in range(len(shape))), depth)
        if op in _REDUCE:
            return self._reduced(node, first, tags, depth)
        if op == "cdist":
            lead, (i, j) = tags[:-2], tags[-2:]
            ends = [
                self._of(x.name, (*_aligned(lead, x.shape[:-2]), t, op), depth)
                for x, t in zip(given, (i, j), strict=True)
            ]
            return self._number(op, _options(node), *sorted(ends))
        if node.pointwise or op == "_to_copy":
            return self._elementwise(node, [self._operand(value, tags, depth) for value in values])
        return None

    def _operand(self, value: Any, tags: Tags, depth: int) -> int:
        if not isinstance(value, Ref):
            return self._number("literal", repr(value))
        return self._of(value.node, _aligned(tags, self.nodes[value.node].shape), depth)

    def _elementwise(self, node: Node, given: list[int]) -> int:
        op, plain = node.short_op, node.options.get("alpha", 1) == 1
        if len(given) == 2 and op == "mul":
            return self._times(given)
        if len(given) == 2 and op == "div" and _plain(node):
            return self._times([given[0], self._number("inverse", given[1])])
        if len(given) == 2 and plain and op in _COMMUTE:
            return self._number(op, *sorted(given))
        if len(given) == 2 and plain and op in ("sub", "rsub"):
            return self._number("sub", *(given if op == "sub" else given[::-1]))
        if op in _EVEN or (op == "pow" and len(given) == 1 and _even(node)):
            given = [self._unsigned(x) for x in given]
        return self._number(node.op, _options(node), *given)

    def _times(self, given: Sequence[int]) -> int:
        """A product, by its factors."""
        factors = sorted(f for x in given for f in self._factors(x))
        pairs = sorted(self._unsigned(f) if factors.count(f) % 2 == 0 else f for f in factors)
        return self._number("mul", *pairs)

    def _factors(self, number: int) -> Sequence[int]:
        op, *rest = self.expressions[number]
        return rest if op == "mul" else [number]

    def _unsigned(self, number: int) -> int:
        """A difference whose sign does not matter."""
        op, *ends = self.expressions[number]
        return self._number("apart", *sorted(ends)) if op == "sub" else number

    def _reduced(self, node: Node, source: Node, tags: Tags, depth: int) -> int:
        """A sum and the like over some dims, whose tags belong to it alone."""
        rank, dims = len(source.shape), node.options.get("dim")
        over = {d % rank for d in ((dims,) if isinstance(dims, int) else dims or range(rank))}
        left = iter(tag for d, tag in enumerate(tags) if not (node.options.get("keepdim") and d in over))
        fresh = _fresh(tags)
        inner = tuple(next(fresh) if d in over else next(left) for d in range(rank))
        body = self._of(source.name, inner, depth)
        body = self._unsigned(body) if node.short_op == "linalg_vector_norm" else body
        return self._number(node.op, _options(node), body)

    def _product(self, node: Node, tags: Tags, depth: int) -> int | None:
        """Factors, and a sum over the tags that the result lacks."""
        given = [
            v for value in node.operands.values() for v in (value if isinstance(value, tuple) else (value,))
        ]
        if any(not isinstance(ref, Ref) for ref in given if ref is not None):
            return None
        sources = [self.nodes[ref.node] for ref in given if ref is not None]
        text = node.options.get("equation") or _PRODUCTS.get(node.short_op)
        if node.short_op == "matmul" and min(len(s.shape) for s in sources) > 1:
            text = "...ik,...kj->...ij"
        terms = _terms(text.replace(" ", ""), sources, len(tags)) if text else None
        if terms is None:
            return None
        *inputs, out = terms
        if self._combined(node, depth) is not None:  # a symmetric matrix: either order of its dims
            return self._number("leaf", self.same[node.name], (*tags[:-2], *sorted(tags[-2:], key=repr)))
        known, fresh = dict(zip(out, tags, strict=True)), _fresh(tags)
        for x in (x for term in inputs for x in term):
            known[x] = known[x] if x in known else next(fresh)
        bodies = [
            self._of(s.name, tuple(known[x] for x in term), depth)
            for s, term in zip(sources, inputs, strict=True)
        ]
        return self._number("sum", self._times(bodies))

    def _polynomial(self, node: Node, depth: int) -> int | None:
        """The symmetric matrix of which a node is a polynomial; _SCALAR for a multiple of 1; None where it is none.

        Such polynomials commute, so that their products are symmetric (the iterations for the root of a matrix).
        """
        rank = len(node.shape)
        if node.name not in self.roots:
            root = None
            if depth and rank > 1 and node.shape[-1] == node.shape[-2]:
                root = self._combined(node, depth - 1)
                plain = tuple(range(rank))
                one, other = (
                    self._of(node.name, t, depth) for t in (plain, (*plain[:-2], rank - 1, rank - 2))
                )
                root = one if root is None and one == other else root
            self.roots[node.name] = root
        return self.roots[node.name]

    def _combined(self, node: Node, depth: int) -> int | None:
        """The same, of a node that is made of such polynomials."""
        op, given = node.short_op, [self.nodes[ref] for ref in node.refs()]
        if op == "eye" or not depth:
            return _SCALAR if op == "eye" else None
        matrices = [x for x in given if x.shape[-2:] == node.shape[-2:]]
        scaled = op in ("mul", "div") and len(matrices) == 1 and matrices[0] is given[0] and _plain(node)
        scaled = scaled and all(math.prod(x.shape[-2:]) == 1 for x in given[1:])
        both = op in ("mm", "bmm", "matmul") or (op in ("add", "sub", "rsub") and len(given) == 2)
        whole = both or (len(given) == 1 and (op in _COPIES or op == "neg"))
        if not matrices or not (scaled or (whole and len(matrices) == len(given))):
            return None
        roots = {self._polynomial(x, depth - 1) for x in matrices}
        known = [root for root in roots if root is not None]
        return max(known) if len(known) == len(roots) and len(roots - {_SCALAR}) < 2 else None


def _equal_nodes(trace: Trace) -> dict[str, str]:
    same: dict[str, str] = {}
    first: dict[str, str] = {}
    for node in trace.nodes:
        plain = node.op.startswith(("aten.", "getitem")) and node.operands and node.name not in trace.random
        plain = plain and not any(refs_in(node.options.values()))
        given = {key: _renamed(value, same) for key, value in node.operands.items()}
        key = repr((node.op, given, _options(node))) if plain else node.name
        same[node.name] = first.setdefault(key, node.name)
    return same


def _renamed(value: Any, same: dict[str, str]) -> Any:
    if isinstance(value, (tuple, list)):
        return [_renamed(v, same) for v in value]
    return Ref(same[value.node]) if isinstance(value, Ref) else value


def _fresh(tags: Tags) -> Iterator[Any]:
    """Tags for what is summed over: none that the body of the sum can see already."""
    return ((_SUMMED, n) for n in count(1 + max((t[1] for t in tags if isinstance(t, tuple)), default=0)))


def _terms(text: str, sources: Sequence[Node], rank: int) -> list[list[str]] | None:
    """The letters of an einsum, a name per dim: of every operand and of the result."""
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(sources):
        return None
    named = [
        _named(term, n)
        for term, n in zip([*terms, right], [*(len(s.shape) for s in sources), rank], strict=True)
    ]
    return [term for term in named if term is not None] if None not in named else None


def _named(term: str, rank: int) -> list[str] | None:
    if DOTS not in term:
        return list(term) if len(term) == rank else None
    before, after = term.split(DOTS)
    dots = rank - len(before) - len(after)
    return [*before, *(f"{DOTS}{i}" for i in reversed(range(dots))), *after] if dots >= 0 else None


def _aligned(tags: Tags, shape: Shape) -> Tags:
    """The tags of an operand that is broadcast from the right."""
    return tags[len(tags) - len(shape) :] if shape else ()


def _wide(shape: Shape) -> list[int]:
    return [n for n in shape if n != 1]


def _order(node: Node, rank: int) -> list[int]:
    """Which dim of the operand every dim of a result is."""
    if node.short_op == "permute":
        return [d % rank for d in node.options["dims"]]
    order = list(range(rank))
    a, b = (0, rank - 1) if node.short_op == "t" else (node.options["dim0"], node.options["dim1"])
    if rank:
        order[a], order[b] = order[b], order[a]
    return order


def _plain(node: Node) -> bool:
    return node.options.get("rounding_mode") is None


def _even(node: Node) -> bool:
    exponent = node.options.get("exponent")
    return isinstance(exponent, (int, float)) and exponent % 2 == 0


def _options(node: Node) -> str:
    return repr(sorted(node.options.items()))
