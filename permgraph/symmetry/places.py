"""Places: where on the tensors of the state, and of the outputs, the units of the groups lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes.points import Labels, Origin
from permgraph.axes.propagation import Propagation
from permgraph.ir.spec import Place, Positions
from permgraph.ir.trace import Trace
from permgraph.symmetry.block import Unplaced
from permgraph.symmetry.coloured_graph import Classes
from permgraph.symmetry.flat_places import flat_layouts
from permgraph.symmetry.joined_places import JoinedPlaces, NotPlaced
from permgraph.symmetry.layout import Addresses

Found = tuple[tuple[int, ...], Place]  # layout as block keys, and the place with its layout still unnamed


class RowsMixed(Unplaced):
    """Units of an axis ordered in each slice lie in several slices, in no common order: no place says that."""

    def __init__(self, tensor: str, axis: int) -> None:
        super().__init__(f"{tensor}[{axis}]")
        self.tensor = tensor


def places_of(
    trace: Trace, context: Propagation, classes: Classes, addresses: Addresses, together: JoinedPlaces | None
) -> list[Found]:
    """Every run of points on an axis of a state tensor or output that belongs to groups, in graph order.

    `together` is given for a network with branches that may change places. Raises RowsMixed, and NotPlaced for units of such
    a branch that move, and lie in no place.
    """
    order = {node.name: i for i, node in enumerate(trace.nodes)}
    reader = {name: readers[0].name for name, readers in trace.readers.items()}
    found: list[tuple[int, int, Found]] = []
    viewed: dict[tuple[str, int], list[Origin]] = {}
    for node, axis, layout, place in together.found if together else ():
        found.append((order[node], axis, (layout, replace(place, node=reader.get(node, node)))))
    for run in context.points.origins:
        if together and run.node in together.nodes:
            continue
        if run.tensor and run.view is not None:
            viewed.setdefault((run.tensor, run.view.offset), []).append(run)
            continue
        use = context.usage.uses.get((run.tensor, run.axis)) if run.tensor else None
        if not run.tensor:
            continue
        labels = np.arange(run.start, run.stop)
        tensor = trace.state[run.tensor]
        node = use.node if use else reader.get(run.node, run.node)
        side = "un-permute" if use and use.consumed else "permute"
        placed = 0
        for layout, at in addresses.layouts(classes.of[labels]):
            placed += np.unique(at[at >= 0]).size if together else 0
            for place in _placed(run, side, at, tensor.shape, node):
                found.append((order[node], run.axis, (layout, place)))
        if together and placed < np.count_nonzero(addresses.chain_of[classes.of[labels]]):
            raise NotPlaced([run.node])  # only some members of what moves lie here
    for runs in viewed.values():
        use = context.usage.uses.get((runs[0].tensor, runs[0].axis))
        node = use.node if use else reader.get(runs[0].node, runs[0].node)
        side = "un-permute" if use and use.consumed else "permute"
        for layout, at in flat_layouts(runs, classes, addresses):
            place = Place(runs[0].tensor, runs[0].axis, side, (), Positions.of(at), node=node)
            found.append((order[node], runs[0].axis, (layout, place)))
    for name, value in context.outputs:
        for array in value.arrays:
            if len(array.dims) == 1 and not array.pinned:
                for layout, at in addresses.layouts(classes.of[array.labels.ravel()]):
                    place = Place(name, array.dims[0], "output", (), Positions.of(at), node="output")
                    found.append((len(order), array.dims[0], (layout, place)))
    return [f for _, _, f in sorted(found, key=lambda row: row[:2])]


def _placed(run: Origin, side: str, at: Labels, shape: tuple[int, ...], node: str) -> list[Place]:
    """A place per run; points of an axis with an order in each slice or block are split by where they hold."""
    tensor, axis, count, size = run.tensor, run.axis, run.stop - run.start, shape[run.axis]
    if count == size:
        return [Place(tensor, axis, side, (), Positions.of(at), node=node)]
    if (at < 0).any():
        raise RowsMixed(tensor, axis)
    height = shape[run.rows] // (count // size)
    block, column = at // size, at % size
    first = block.reshape(-1, at.shape[-1])[0]  # members correspond, so the first unit speaks for all
    places = []
    for b in np.unique(first):
        mine = first == b
        rows = block[..., mine][..., :1] * height + np.arange(height)
        if (block[..., mine] != block[..., mine][..., :1]).any():
            raise RowsMixed(tensor, axis)
        positions = Positions.of(column[..., mine])
        places.append(Place(tensor, axis, side, (), positions, Positions.of(rows), run.rows, node))
    return places
