"""Whatever the reader says, a group that does not keep the coloured graph is held in place, and reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks.random_networks import random_network
from oracles.law import law

import permgraph as pg
from permgraph.symmetry import wreath
from permgraph.symmetry.coloured_graph import Edges
from permgraph.symmetry.kept import find_broken
from permgraph.symmetry.layout import Addresses
from permgraph.symmetry.reductions import Twins
from permgraph.symmetry.wreath import Family, Reading

SQUARE = Edges(
    np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0]), np.zeros(4, dtype=np.int64)
)  # directed, 0 to 3


def broken(units: list[list[int]], edges: Edges, colour: list[int] | None = None) -> list[int]:
    reading = Reading([Family(np.array(units))])
    addresses = Addresses(4, reading)
    found = find_broken(addresses, np.array(colour or [0, 0, 0, 0]), edges, np.ones(4, dtype=bool))
    return sorted(found.tolist())


def test_half_a_turn_of_a_directed_square_is_a_symmetry() -> None:
    assert broken([[0, 1], [2, 3]], SQUARE) == []


def test_a_reflection_of_a_directed_square_is_none() -> None:
    assert broken([[0], [2]], SQUARE) == [0, 1, 2, 3]
    assert broken([[0, 1], [3, 2]], SQUARE) == [0, 1, 2, 3]


def test_vertices_of_two_colours_do_not_change_places() -> None:
    assert broken([[0, 1], [2, 3]], SQUARE, [0, 0, 1, 0]) == [2]


@pytest.mark.parametrize("seed", [3, 12, 58])
def test_a_reader_that_invents_twins_stays_sound(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell is said to be exchangeable: the law holds all the same, and what is lost is counted."""

    def invented(cell: np.ndarray, vertices: np.ndarray, edges: Edges) -> list[Twins]:
        cells = [vertices[cell[vertices] == c] for c in np.unique(cell[vertices])]
        return [Twins(c[None, :]) for c in cells if c.size > 1]

    module, inputs = random_network(seed)
    trace = pg.trace(module, inputs)
    monkeypatch.setattr(wreath, "find_twins", invented)
    spec = pg.infer(trace)
    if spec.groups:
        assert law(module, inputs, spec)[0] < 1e-9
    assert torch.is_tensor(inputs[0])
