"""Tensors that only training reads are never silently out of step."""

import pytest

import permgraph as pg
from permgraph.planning.unread import beside
from permgraph.reporting.steps import steps_text


@pytest.fixture(scope="module")
def trace() -> pg.Trace:
    return pg.trace("hubert")


def test_the_mask_embedding_is_reported_beside_the_residual_stream_when_that_moves(trace: pg.Trace) -> None:
    spec = pg.infer(trace, free_output=True)
    assert "masked_spec_embed" in spec.unused
    assert beside(spec) == {"masked_spec_embed[0]": ("residual.0",)}
    assert "masked_spec_embed[0] is not read" in steps_text(pg.plan(spec, "residual.0"), width=1000)
    assert "masked_spec_embed" not in steps_text(pg.plan(spec, "ffn"))


def test_nothing_is_said_while_the_output_pins_the_stream(trace: pg.Trace) -> None:
    assert beside(pg.infer(trace)) == {}
