"""The benchmark of inference prints one row per network, from a process of its own."""

from __future__ import annotations

import pytest
from bench_infer import LARGE, main

from permgraph.frontend.capture import capture
from permgraph.frontend.sources import load_source
from permgraph.symmetry.infer import infer


def test_the_table_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    main(("hubert",))
    head, row = capfd.readouterr().out.splitlines()
    columns = "model parameters nodes points trace infer plan infer/trace memory"
    assert head.split() == columns.split()
    name, millions, _, _, points, trace, inferred, _, ratio, memory, _ = row.split()
    assert (name, millions, points) == ("hubert", "94", "300,621")
    assert abs(float(inferred[:-1]) / float(trace[:-1]) - float(ratio)) < 0.05
    assert 0 < float(memory) < 4


@pytest.mark.slow
def test_llama_70b_is_planned_without_weights() -> None:
    source = load_source(LARGE)
    assert all(p.is_meta for p in source.module.parameters())
    spec = infer(capture(source.module, source.args, source.kwargs, source.name))
    assert {(g.size, g.copies) for g in spec.groups} == {(8, 1), (8, 8), (128, 8), (8192, 1), (28672, 1)}
    assert not spec.unknown_ops and not spec.frozen
