"""The order of the inferred group is that of the automorphism group, which nauty computes from the points alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from networks import MODELS
from networks.traced import spec, trace
from oracles.automorphisms import TooLarge, log10_order

from permgraph.axes.points import Points
from permgraph.symmetry import infer as inference
from permgraph.symmetry.coloured_graph import Classes, classify


def agree(name: str, free_output: bool = False) -> None:
    try:
        order = log10_order(trace(name), free_output)
    except TooLarge as problem:
        pytest.skip(f"too large for nauty: {problem}")
    found = spec(name, free_output)
    assert found.frozen == 0
    assert found.log10_order == pytest.approx(order, abs=1e-6)


@pytest.mark.sampled(16)
@pytest.mark.parametrize("name", MODELS)
def test_the_order_is_that_of_nauty(name: str) -> None:
    agree(name)


@pytest.mark.parametrize("name", ["wavlm", "hubert", "shufflenet", "llama_gqa"])
def test_with_the_output_freed(name: str) -> None:
    agree(name, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_with_every_output_freed(name: str) -> None:
    agree(name, True)


def test_a_reader_that_forgets_links_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_links(points: Points) -> Classes:
        classes = classify(points)
        return replace(classes, edges=classes.edges.select(classes.edges.kind < 0))

    monkeypatch.setattr(inference, "classify", without_links)
    network = trace("qkv_chunk")
    assert inference.infer(network).log10_order != pytest.approx(log10_order(network), abs=1e-3)
