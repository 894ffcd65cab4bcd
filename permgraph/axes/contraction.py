"""The one algorithm behind every equation: bind letters, merge operands, block, contract, assemble.

An equation is an elementwise product over all of its letters, summed over those that its result lacks. So:
arrays of different operands over the same letters are tied; arrays that share only some letters must agree on
the blocks those letters cut out; an array that is summed or mixed over part of its letters moves as blocks
over the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from permgraph.axes.equation import Axis, Equation, family, parse, unstar
from permgraph.axes.points import Labels
from permgraph.axes.tensor_labels import Array, Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Shape

Letters = tuple[str, ...]


@dataclass(eq=False)
class Lettered:
    """An array over letters (sorted), and the operands it came from."""

    letters: Letters
    labels: Labels
    pinned: bool
    repeats: bool
    owners: set[int]


class Pool:
    """Arrays of all operands, at most one per set of letters."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.arrays: dict[Letters, Lettered] = {}

    def add(self, found: Lettered) -> None:
        """Tie to what is there over the same letters."""
        known = self.arrays.get(found.letters)
        if known is None:
            self.arrays[found.letters] = found
            return
        known.owners |= found.owners
        if known.pinned and found.pinned:
            return
        if known.labels is not found.labels:
            self.context.points.tie(known.labels, found.labels)

    def agree(self) -> None:
        """Arrays of different operands that share some of their letters get common blocks over those."""
        arrays = list(self.arrays.values())
        for i, a in enumerate(arrays):
            for b in arrays[i + 1 :]:
                shared = tuple(letter for letter in a.letters if letter in b.letters)
                if shared and not (a.owners & b.owners) and not (a.pinned and b.pinned):
                    self.context.points.tie(self.over(a, shared), self.over(b, shared))

    def over(self, array: Lettered, keep: Letters) -> Labels:
        """The array's blocks over some of its letters (the array itself over all of them)."""
        if keep == array.letters:
            return array.labels
        axes = tuple(array.letters.index(letter) for letter in keep)
        return self.context.block(array.labels, axes, array.pinned, array.repeats)

    def mix(self, letters: set[str]) -> None:
        """Letters normalised over: what they are joined with moves as blocks."""
        for array in self.arrays.values():
            keep = tuple(x for x in array.letters if x not in letters)
            if keep and len(keep) < len(array.letters):
                self.over(array, keep)

    def contract(self, letters: set[str]) -> None:
        """Letters summed over: arrays shrink to their blocks over the rest."""
        for key in list(self.arrays):
            array = self.arrays[key]
            if not letters & set(key):
                continue
            del self.arrays[key]
            keep = tuple(x for x in array.letters if x not in letters)
            if keep:
                self.add(replace(array, letters=keep, labels=self.over(array, keep), repeats=False))


def contract(context: Context, text: str, operands: list[Value | None], shape: Shape, **sizes: int) -> Value:
    """Apply an equation to operands; `sizes` gives letters that the shapes leave open (g=groups).

    Returns the result's Value, of the given shape.
    """
    equation = parse(text)
    bound = [
        (i, value, term)
        for i, (value, term) in enumerate(zip(operands, equation.operands, strict=False))
        if value
    ]
    known = dict(sizes)
    for star in [x for term in equation.operands for (x, *_) in term if x.endswith("*")]:
        known.setdefault(star, 0)
    terms = {i: _bind(value.shape, term, known) for i, value, term in bound}
    pool = Pool(context)
    inputs: set[str] = set()
    for i, value, _ in bound:
        inputs |= {x for axis in terms[i] for x in axis}
        for array in value.arrays:
            if not array.labels.size:
                continue  # a dim of size 0: nothing there to relate
            pool.add(_lettered(_resized(context, array, terms[i], known), terms[i], known, i))
    out = _bind(shape, equation.result, known)
    kept = {x for axis in out for x in axis}
    _order(context, pool, equation, inputs, known)
    pool.agree()
    pool.mix({x for x in inputs if family(x, equation.mixed)})
    summed = inputs - kept
    _record(context, bound, terms, summed)
    pool.contract(summed)
    pool.agree()
    result = _assemble(context, pool, out, shape, kept - inputs, known)
    weight = all(value.weight for _, value, _ in bound)
    made = Value(shape, result, weight, name=context.node.name)
    if not weight and any(value.weight for _, value, _ in bound):
        normed = "norm" in context.node.op
        for array in result if summed or normed else ():
            context.observe("normed" if normed else "leaving", made, array)
    return made


def _bind(shape: Shape, term: tuple[Axis, ...], known: dict[str, int]) -> list[Axis]:
    """The letters of every dim of an operand; learns letter sizes on the way."""
    fixed = sum(1 for axis in term if axis != ("...",) and not axis[0].endswith("*"))
    spare = len(shape) - fixed
    stars = [axis[0] for axis in term if axis[0].endswith("*")]
    has_dots = ("...",) in term
    for star in stars:
        if not has_dots:
            known[star] = spare
    dots = spare - sum(known[s] for s in stars)
    axes: list[Axis] = []
    for axis in term:
        if axis == ("...",):
            # leading axes broadcast from the right: count down so that the last one is always "@0"
            axes += [(f"@{i}",) for i in range(dots - 1, -1, -1)]
        elif axis[0].endswith("*"):
            axes += [(x,) for x in unstar(axis[0], known[axis[0]])]
        else:
            axes.append(axis)
    for dim, axis in enumerate(axes):
        _learn(shape[dim], axis, known)
    return axes


def _learn(size: int, axis: Axis, known: dict[str, int]) -> None:
    unknown = [x for x in axis if x not in known]
    if len(axis) == 1:
        known[axis[0]] = max(size, known.get(axis[0], 1))
    elif len(unknown) == 1:
        known[unknown[0]] = size // max(1, int(np.prod([known[x] for x in axis if x in known])))


def _resized(context: Context, array: Array, axes: list[Axis], known: dict[str, int]) -> Array:
    """Positions of a dim whose size the data tell: two counts that are one may be counted differently here."""
    sizes = tuple(int(np.prod([known[x] for x in axes[d]])) for d in array.dims)
    if array.pinned and len(sizes) == 1 and 1 < array.labels.size != sizes[0]:
        return replace(array, labels=context.fresh_pinned(sizes, "ordered axis"))
    return array


def _lettered(array: Array, axes: list[Axis], known: dict[str, int], owner: int) -> Lettered:
    letters = [x for d in array.dims for x in axes[d]]
    labels = array.labels.reshape([known[x] for x in letters])
    if array.repeats:
        for axis in reversed(range(len(letters))):
            first = labels.take([0], axis=axis)
            if len(letters) > 1 and bool((labels == first).all()):
                labels = first.squeeze(axis)
                letters.pop(axis)
    spare = [i for i, x in enumerate(letters) if known[x] == 1]
    labels = labels.squeeze(tuple(spare)) if len(spare) < len(letters) else labels.reshape(-1)
    letters = [x for i, x in enumerate(letters) if i not in spare] or letters[:1]
    order = np.argsort(letters, kind="stable")
    repeats = array.repeats and len(letters) > 1
    return Lettered(tuple(letters[i] for i in order), labels.transpose(order), array.pinned, repeats, {owner})


def _order(context: Context, pool: Pool, equation: Equation, inputs: set[str], known: dict[str, int]) -> None:
    for letter in sorted(x for x in inputs if family(x, equation.ordered) and known[x] > 1):
        touched = [a for key, a in pool.arrays.items() if letter in key]
        if touched and not all(a.pinned for a in touched):
            labels = context.fresh_pinned((known[letter],), "ordered axis")
            pool.add(Lettered((letter,), labels, True, False, {-1}))


def _record(
    context: Context,
    bound: list[tuple[int, Value, tuple[Axis, ...]]],
    terms: dict[int, list[Axis]],
    summed: set[str],
) -> None:
    """Which axes of weights are produced or consumed here, and which activations enter."""
    paired = len(bound) > 1 and not any(value.weight for _, value, _ in bound) and bool(summed)
    for i, value, _ in bound:
        for array in value.arrays:
            inside = bool({x for d in array.dims for x in terms[i][d]} & summed)
            if value.weight:
                context.use(array, inside)
            elif inside:
                context.observe("entering", value, array)
            if paired and (inside or i > 0):
                # a product of two activations: attention scores, then the weighted sum of values
                context.mark("qk" if inside else "v", array)


def _assemble(
    context: Context, pool: Pool, out: list[Axis], shape: Shape, new: set[str], known: dict[str, int]
) -> tuple[Array, ...]:
    dim_of = {x: d for d, axis in enumerate(out) for x in axis}
    whole: list[Array] = []
    partial: list[tuple[tuple[int, ...], Lettered]] = []
    for letters, array in pool.arrays.items():
        dims = tuple(sorted({dim_of[x] for x in letters}))
        wanted = [x for d in dims for x in out[d] if known[x] > 1]
        if array.pinned and len(dims) == 1 and array.labels.size != shape[dims[0]]:
            whole += context.positions(shape, dims, "ordered axis")
        elif set(wanted) <= set(letters):
            labels = array.labels.transpose([letters.index(x) for x in wanted])
            labels = labels.reshape([shape[d] for d in dims])
            whole.append(Array(dims, labels, array.pinned, array.repeats))
        else:
            partial.append((dims, array))
    covered = {d for a in whole for d in a.dims}
    for dims, array in partial:
        if not set(dims) <= covered:
            whole.append(_spread(context, array, dims, out, shape, known))
    for d, axis in enumerate(out):
        if set(axis) & new and shape[d] > 1:
            whole += context.positions(shape, (d,), "ordered axis")
    return tuple(whole)


def _spread(
    context: Context,
    array: Lettered,
    dims: tuple[int, ...],
    out: list[Axis],
    shape: Shape,
    known: dict[str, int],
) -> Array:
    """An array over part of a factored axis, spread over all of it: new points under the labelled ones."""
    wanted = [x for d in dims for x in out[d]]
    labels = array.labels.transpose([array.letters.index(x) for x in wanted if x in array.letters])
    view = [known[x] if x in array.letters else 1 for x in wanted]
    points = context.points.fresh(tuple(known[x] for x in wanted))
    context.points.link(points, labels.reshape(view))
    return Array(dims, points.reshape([shape[d] for d in dims]))
