"""Tables and lines fit the terminal, and no word is broken."""

from __future__ import annotations

import numpy as np
import pytest

from permgraph.reporting.columns import table, terminal_width, width_of, wrapped


@pytest.mark.parametrize("seed", range(5))
def test_wrapped_lines_fit_and_hold_every_word(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("ab.é"), rng.integers(1, 30))) for _ in range(60)]
    for width in (40, 57, 80):
        lines = wrapped(" ".join(words), width)
        assert max(map(width_of, lines)) <= width
        assert " ".join(lines).split() == words


def test_a_name_longer_than_a_line_breaks_after_a_dot() -> None:
    name = ".".join(["encoder", "layers", "attention"] * 6)
    lines = wrapped(f"see {name} there", 50)
    assert max(map(len, lines)) <= 50
    assert "".join(lines).replace(" ", "") == f"see{name}there"
    assert all(line.endswith(".") for line in lines[:-1] if not line.startswith("see"))


@pytest.mark.parametrize("seed", range(5))
def test_a_table_shows_every_cell_at_every_width(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [["x" * int(n) for n in rng.integers(1, 25, 6)] for _ in range(5)]
    for width in (60, 80, 200):
        for below in (None, 5):
            lines = table(rows, right=(1, 2), below=below, width=width)
            assert max(map(len, lines)) <= width
            shown = " ".join(lines).split()
            assert all(cell in shown for row in rows for cell in row)


def test_wide_letters_count_twice() -> None:
    assert width_of("编码器") == 6
    assert width_of("e\u0301") == 1
    lines = table([("a", "b"), ("编码", "c"), ("xxxx", "d")], width=40)
    assert [width_of(line) for line in lines[1:]] == [7, 7]


def test_the_terminal_says_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, width in (("120", 120), ("7", 40), ("x", None)):
        monkeypatch.setenv("COLUMNS", said)
        assert terminal_width() == width or width is None
