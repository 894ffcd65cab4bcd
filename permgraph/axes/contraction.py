"""The one algorithm behind every equation: bind names, merge operands, block, contract, assemble.

An equation is an elementwise product over all of its names, summed over those that its result lacks. So: arrays
of different operands over the same names are tied; arrays that share only some names must agree on the blocks
those names cut out; an array that is summed or mixed over part of its names moves as blocks over the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from permgraph.axes.binding import Axes, bind_term
from permgraph.axes.equation import Equation, in_family, parse
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.pool import NamedArray, Names, Pool
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.workspace import ORDERED, Workspace
from permgraph.ir.trace import Node, Shape


@dataclass(frozen=True, eq=False)
class Contraction:
    """What one equation did, for those who ask later (`usage.py`).

    operands   each with, per label array, whether names of it were summed over
    summed     whether any name was
    names      of every array of every operand, and of the result (the last entry)
    """

    node: Node
    operands: tuple[tuple[LabelledTensor, tuple[bool, ...]], ...]
    result: LabelledTensor
    summed: bool
    names: tuple[tuple[tuple[Names, LabelArray], ...], ...]


def contract(
    equation: Equation | str,
    operands: Sequence[LabelledTensor | None],
    shape: Shape,
    sizes: Mapping[str, int] | None = None,
) -> LabelledTensor:
    """Apply an equation to operands.

    Args:
        operands: one per term, None where one is absent.
        shape: of the result.
        sizes: of names that the shapes leave open: {"g": groups}, or {"c*": how many axes}.

    Raises UnsupportedForm where the operands do not have the axes that the equation says.
    """
    equation = parse(equation) if isinstance(equation, str) else equation
    if any(tensor and tensor.chosen for tensor in operands):
        by_choice = _by_choice(equation, operands, shape, sizes or {})
        if by_choice is not None:
            return by_choice
        operands = [tensor and settled(tensor) for tensor in operands]
    given = _given(equation, operands)
    known = dict(sizes or {})
    terms = {i: bind_term(equation, i, tensor.shape, known) for i, tensor in given.items()}
    out = bind_term(equation, None, shape, known)
    space = next(iter(given.values())).space
    pool = _pooled(space, given, terms, known)
    inputs = {x for term in terms.values() for axis in term for x in axis}
    kept = {x for axis in out for x in axis}
    pool.order({x for x in inputs if in_family(x, equation.ordered)}, known)
    pool.agree()
    pool.keep_blocks({x for x in inputs - kept if in_family(x, equation.ordered)})
    pool.keep_blocks({x for x in inputs if in_family(x, equation.mixed)})
    pool.contract(inputs - kept)
    pool.agree()
    arrays = _assemble(space, pool, out, shape, kept - inputs, known)
    result = LabelledTensor(space, shape, arrays, all(tensor.weight for tensor in given.values()))
    space.record.append(_recorded(space.node, given, terms | {len(operands): out}, inputs - kept, result))
    return result


def settled(tensor: LabelledTensor) -> LabelledTensor:
    """The tensor with arrays of its own, whatever was chosen: an index knows the order of what it chooses from."""
    if tensor.chosen is None:
        return tensor
    tensor.space.use(tensor)
    ordered = "!" if tensor.chosen.index else ""
    plain = contract(f"x* {ordered}n -> x*", [tensor.chosen.values], tensor.shape)
    return replace(tensor, arrays=plain.arrays, chosen=None)


def settled_if_done(tensor: LabelledTensor) -> LabelledTensor:
    """Settled where nothing has an order of its own in each of what is chosen from: then what was chosen no longer matters.

    Not in a first pass, which finds what has such orders.
    """
    assert tensor.chosen is not None
    values, space = tensor.chosen.values, tensor.space
    space.chose = True
    done = space.settles and not any(values.rank - 1 in a.dims and len(a.dims) > 1 for a in values.arrays)
    return settled(tensor) if done and not tensor.chosen.index else tensor


_CHOICE = "choice"  # the name of what was chosen from; no equation of an op has it


def _by_choice(
    equation: Equation, operands: Sequence[LabelledTensor | None], shape: Shape, sizes: Mapping[str, int]
) -> LabelledTensor | None:
    """The equation before anything is chosen, for all that may be: when places of the choice stay as they are.

    None where operands were chosen in different ways, or an index is computed with.
    """
    chosen = {i: t.chosen for i, t in enumerate(operands) if t and t.chosen}
    known = dict(sizes)
    terms = {i: bind_term(equation, i, t.shape, known) for i, t in enumerate(operands) if t}
    out = bind_term(equation, None, shape, known)
    places = {tuple(terms[i][d] for d in c.at) for i, c in chosen.items()}
    keys = {c.key for c in chosen.values()}
    where = places.pop()
    if places or len(keys) > 1 or any(c.index for c in chosen.values()):
        return None
    if not all(axis in out and len(axis) == 1 for axis in where):
        return None
    marked = [x for axis in where for x in axis if in_family(x, equation.mixed | equation.ordered)]
    if marked:
        return None
    choice = ((_CHOICE,),)
    values = [t.chosen.values if t and t.chosen else t for t in operands]
    whole = replace(
        equation,
        operands=tuple(term + choice if i in chosen else term for i, term in enumerate(equation.operands)),
        result=equation.result + choice,
    )
    for tensor in operands:
        if tensor:
            tensor.space.use(tensor)
    first = next(iter(chosen.values()))
    before = contract(whole, values, (*shape, first.values.shape[-1]), sizes)
    at = tuple(out.index(axis) for axis in where)
    return settled_if_done(
        LabelledTensor(before.space, shape, weight=before.weight, chosen=replace(first, values=before, at=at))
    )


def without_singles(tensor: LabelledTensor) -> LabelledTensor:
    """The tensor, of which single coordinates that were taken out of an axis are used now."""
    singles = [a for a in tensor.arrays if not a.dims]
    for array in singles:
        tensor.space.used_part(array)
    return replace(tensor, arrays=tuple(a for a in tensor.arrays if a.dims)) if singles else tensor


def _given(equation: Equation, operands: Sequence[LabelledTensor | None]) -> dict[int, LabelledTensor]:
    """The operands that are there, by the number of their term."""
    if len(operands) != len(equation.operands):
        raise ValueError(
            f"{len(operands)} operands for the {len(equation.operands)} terms of {equation.text!r}"
        )
    given = {}
    for i, (tensor, optional) in enumerate(zip(operands, equation.optional, strict=True)):
        if tensor is not None:
            tensor.space.use(tensor)
            given[i] = without_singles(tensor)
        elif not optional:
            raise UnsupportedForm(f"operand {i + 1} of {equation.text!r} is absent")
    return given


def _pooled(
    space: Workspace, given: dict[int, LabelledTensor], terms: dict[int, Axes], sizes: dict[str, int]
) -> Pool:
    pool = Pool(space)
    for i, tensor in given.items():
        for array in tensor.arrays:
            if array.labels.size:  # else a dim of size 0: nothing there to relate
                used = space.used_part(array)
                pool.add(_named(_resized(space, used, terms[i], sizes), terms[i], sizes, i))
    return pool


def _resized(space: Workspace, array: LabelArray, axes: Axes, sizes: dict[str, int]) -> LabelArray:
    """Positions along a data-dependent size: two counts that are one may be counted differently here."""
    if not array.pinned or len(array.dims) != 1 or array.labels.size <= 1:
        return array
    wanted = (prod(sizes[x] for x in axes[array.dims[0]]),)
    if array.labels.size != wanted[0]:
        return replace(array, labels=space.fresh_pinned(wanted, ORDERED))
    return array


def _named(array: LabelArray, axes: Axes, sizes: dict[str, int], owner: int) -> NamedArray:
    names = [x for d in array.dims for x in axes[d]]
    labels = array.labels.reshape([sizes[x] for x in names])
    if array.repeats:
        for axis in reversed(range(len(names))):
            first = labels.take([0], axis=axis)
            if len(names) > 1 and bool((labels == first).all()):
                labels = first.squeeze(axis)
                names.pop(axis)
    spare = tuple(i for i, x in enumerate(names) if sizes[x] == 1)
    if spare:
        labels = labels.squeeze(spare) if len(spare) < len(names) else labels.reshape(-1)
        names = [x for i, x in enumerate(names) if i not in spare] or names[:1]
    repeats = array.repeats and len(names) > 1
    order = sorted(range(len(names)), key=names.__getitem__)
    labels = labels.transpose(order) if len(order) > 1 else labels
    return NamedArray(tuple(names[i] for i in order), labels, array.pinned, repeats, {owner})


def _recorded(
    node: Node,
    given: dict[int, LabelledTensor],
    terms: dict[int, Axes],
    summed: set[str],
    result: LabelledTensor,
) -> Contraction:
    operands = tuple(
        (tensor, tuple(any(x in summed for d in a.dims for x in terms[i][d]) for a in tensor.arrays))
        for i, tensor in given.items()
    )
    all_tensors = [(i, tensor) for i, tensor in given.items()] + [(max(terms), result)]
    names = tuple(
        tuple((tuple(x for d in a.dims for x in terms[i][d]), a) for a in tensor.arrays)
        for i, tensor in all_tensors
    )
    return Contraction(node, operands, result, bool(summed), names)


def _assemble(
    space: Workspace, pool: Pool, out: Axes, shape: Shape, new: set[str], sizes: dict[str, int]
) -> tuple[LabelArray, ...]:
    """The arrays of the result: those that cover whole axes, and those spread over the rest of a factored one."""
    dim_of = {x: d for d, axis in enumerate(out) for x in axis}
    whole: list[LabelArray] = []
    partial: list[tuple[tuple[int, ...], NamedArray]] = []
    for names, array in pool.arrays.items():
        dims = tuple(sorted({dim_of[x] for x in names}))
        wanted = [x for d in dims for x in out[d] if sizes[x] > 1]
        if not set(wanted) <= set(names):
            partial.append((dims, array))
        elif array.pinned and len(dims) == 1 and array.labels.size != shape[dims[0]]:
            whole += space.positions(shape, dims, ORDERED)
        else:
            labels = array.labels.transpose([names.index(x) for x in wanted])
            labels = labels.reshape([shape[d] for d in dims])
            whole.append(LabelArray(dims, labels, array.pinned, array.repeats))
    covered = {d for a in whole for d in a.dims}
    whole += [_spread(space, a, dims, out, shape, sizes) for dims, a in partial if not set(dims) <= covered]
    for d, axis in enumerate(out):
        if set(axis) & new and shape[d] > 1:
            whole += space.positions(shape, (d,), ORDERED)
    return tuple(whole)


def _spread(
    space: Workspace, array: NamedArray, dims: tuple[int, ...], out: Axes, shape: Shape, sizes: dict[str, int]
) -> LabelArray:
    """An array over part of a factored axis, spread over all of it: new points under the labelled ones."""
    wanted = [x for d in dims for x in out[d]]
    labels = array.labels.transpose([array.names.index(x) for x in wanted if x in array.names])
    view = [sizes[x] if x in array.names else 1 for x in wanted]
    points = space.points.fresh(tuple(sizes[x] for x in wanted))
    space.points.link(points, labels.reshape(view))
    return LabelArray(dims, points.reshape([shape[d] for d in dims]))
