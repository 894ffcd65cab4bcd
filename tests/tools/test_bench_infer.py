"""The benchmark of inference prints one row per network and checkout, each from a process of its own."""

from __future__ import annotations

from pathlib import Path

import large_models
import pytest
from bench_infer import main

import permgraph as pg


def numbers(row: str) -> list[float]:
    return [
        float(word.rstrip("s,"))
        for word in row.split()
        if word[0].isdigit() and word.rstrip("s,")[-1].isdigit()
    ]


def test_the_table_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    main(["hubert_base"])
    head, row = capfd.readouterr().out.splitlines()
    assert head.split() == [
        "model",
        "checkout",
        "parameters",
        "trace",
        "infer",
        "plan",
        "infer/trace",
        "memory",
    ]
    millions, trace, inferred, _, ratio, memory = numbers(row)
    assert row.split()[:2] == ["hubert_base", "this"] and millions == 94
    assert abs(inferred / trace - ratio) < 0.05 and 0 < memory < 4


def test_two_checkouts_are_measured_in_turn(capfd: pytest.CaptureFixture[str]) -> None:
    main(["hubert_base", "--against", str(Path(__file__).parents[2])])
    _, *rows, last = capfd.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows] == ["other", "this"] * 3
    assert numbers(last)[-1] == pytest.approx(1, abs=0.2)  # the memory of one code


def test_what_is_no_network_and_no_checkout_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["hubertbase"], "hubertbase: no such network"),
        (
            ["--against", str(tmp_path)],
            "no checkout of permgraph",
        ),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_llama_70b_is_planned_without_weights() -> None:
    module, args = large_models.llama_70b()
    assert all(p.is_meta for p in module.parameters())
    spec = pg.infer(pg.trace(module, args))
    assert {(g.size, g.copies) for g in spec.groups} == {(8, 1), (8, 8), (128, 8), (8192, 1), (28672, 1)}
    assert not spec.unknown_ops and not spec.frozen
