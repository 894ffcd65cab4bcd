"""Tied classes and ranks, beside the plain algorithms that they are faster than."""

from __future__ import annotations

import numpy as np
import pytest

from permgraph.axes.points import Points, components
from permgraph.axes.tied import tied_classes
from permgraph.symmetry.coloured_graph import mix, rank


def _random_points(generator: np.random.Generator) -> Points:
    """Runs of several sizes, tied whole, in part, reversed, in random order, and within themselves."""
    points = Points()
    runs = [points.fresh((int(n),)) for n in generator.choice([0, 1, 2, 5, 8], size=12)]
    for _ in range(int(generator.integers(1, 20))):
        a, b = (runs[i] for i in generator.choice(len(runs), size=2))
        size = min(a.size, b.size)
        start = int(generator.integers(0, b.size - size + 1))
        b = b[start : start + size]
        kind = generator.choice(["whole", "reversed", "shuffled", "one"])
        if kind == "reversed":
            b = b[::-1]
        elif kind == "shuffled":
            b = generator.permutation(b)
        elif kind == "one":
            b = np.broadcast_to(b[:1], size if b.size else 0)
        points.tie(a[:size], b) if generator.random() < 0.5 else points.tie(b, a[:size])
    return points


@pytest.mark.parametrize("seed", range(200))
def test_tied_classes_are_the_connected_components(seed: int) -> None:
    points = _random_points(np.random.default_rng(seed))
    count, of = tied_classes(points, [(a, b) for a, b, _ in points.tied])
    expected_count, expected = components(points.count, *points.ties())
    assert count == expected_count
    np.testing.assert_array_equal(of, expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("hashed", [False, True])
def test_ranks_number_values_by_their_first_appearance(seed: int, hashed: bool) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.choice([0, 1, 7, 1000, 40_000]))
    values = generator.integers(0, max(1, size // int(generator.choice([1, 10, 100, 1000]) or 1)) + 1, size)
    hashes = mix(values.astype(np.uint64)) if hashed else values.astype(np.uint64) << np.uint64(40)
    known: dict[int, int] = {}
    expected = [known.setdefault(v, len(known)) for v in hashes.tolist()]
    assert rank(hashes).tolist() == expected
