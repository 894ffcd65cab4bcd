"""What is not a symmetry: permutations that others take for one must be seen to change the function."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from networks.traced import network, spec

from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place, Positions
from permgraph.planning.gather import Gather, gathers
from permgraph.verification.function_check import left_out, verify

ATTENTION = "encoder.layers.0.attention"


def change(name: str, tensors: Iterable[tuple[str, int]], positions: np.ndarray, free: bool = False) -> float:
    """How much turning the order of units by one changes the function, when they lie at `positions` of these axes.

    `positions` has one row per unit, as in a Place.
    """
    found = spec(name, free)
    group = Group("claim", "claim", len(positions))
    layout = (group.name,)
    placed = tuple(Place(t, a, "permute", layout, Positions.of(positions)) for t, a in tensors)
    claim = PermSpec("", "", (group,), placed, tensors=found.tensors).completed()
    turned = Permutations({group.name: np.roll(np.arange(group.size), 1)})
    return verify(*network(name), Plan(claim, (group.name,)), perms=turned, explain=False).change


def rows(*kinds: str) -> list[tuple[str, int]]:
    """Weight rows and biases of projections, and the columns of the output projection for "out"."""
    made = [(f"{ATTENTION}.{k}_proj.{x}", 0) for k in kinds if k != "out" for x in ("weight", "bias")]
    return made + [(f"{ATTENTION}.out_proj.weight", 1)] * ("out" in kinds)


HEADS = np.arange(24).reshape(3, 8)  # a head owns eight rows
ALL = np.arange(24).reshape(24, 1)
INSIDE = np.arange(8).reshape(8, 1)  # the channels of head 0


@pytest.mark.parametrize("name", ["hubert", "hubert_layer", "wav2vec2"])
@pytest.mark.parametrize(
    ("kinds", "units"),
    [
        (("q", "k", "v", "out"), HEADS),
        (("q", "k"), INSIDE),
        (("v", "out"), INSIDE),
    ],
    ids=["heads", "qk", "v"],
)
def test_true_claims(name: str, kinds: tuple[str, ...], units: np.ndarray) -> None:
    """The claims are made as the false ones below are, so that those fail for the right reason."""
    assert change(name, rows(*kinds), units) <= 1e-9


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", ["hubert", "hubert_layer", "wav2vec2"])
@pytest.mark.parametrize(
    ("kinds", "units"),
    [
        (("v", "out"), HEADS),  # head order is shared by queries and keys
        (("q", "k"), HEADS),
        (("q", "k"), ALL),  # no order across heads
        (("v", "out"), ALL),
        (("q", "k", "v", "out"), ALL),
        (("q",), INSIDE),
        (("k", "v"), INSIDE),
        (("out",), INSIDE),  # one side only
    ],
    ids=["heads-vo", "heads-qk", "qk", "vo", "qkvo", "q-alone", "kv", "out-alone"],
)
def test_false_claims(name: str, kinds: tuple[str, ...], units: np.ndarray) -> None:
    assert change(name, rows(*kinds), units) > 1e-4


def test_rotary_positions_hold_query_and_key_channels() -> None:
    """Not even whole planes (i, i + d/2) may move."""
    pair = [("layers.0.self_attn.q_proj.weight", 0), ("layers.0.self_attn.k_proj.weight", 0)]
    found = spec("llama_gqa")
    assert not [g for g in found.groups if g.role.endswith("qk")]
    planes = np.stack([np.arange(4), np.arange(4) + 4], axis=1)
    for units in (INSIDE, planes):
        assert change("llama_gqa", pair, units) > 1e-6


def test_the_residual_stream_needs_the_inner_axis_of_the_grouped_convolution() -> None:
    found = spec("hubert", free_output=True)
    names = tuple(g.name for g in found.groups if g.role.startswith("residual"))
    plan = Plan(found, names)
    assert verify(*network("hubert"), plan) <= 1e-9
    (inner,) = (i for i, step in enumerate(plan.steps) if step.rows is not None)
    assert verify(*network("hubert"), left_out(plan, inner), explain=False) > 1e-4
    moved: list[Gather] = gathers(plan, random_permutations(plan))
    assert any(g.rows_axis == 0 for g in moved)


def test_the_residual_stream_has_no_order_across_the_groups_of_the_convolution() -> None:
    found = spec("hubert", free_output=True)
    stream = {
        (p.tensor, p.axis) for g in found.groups if g.role == "residual" for p in g.places if p.rows is None
    }
    assert len(stream) > 20
    assert change("hubert", sorted(stream), ALL, free=True) > 1e-4


def test_positions_are_not_channels() -> None:
    """Rows of a table of positions, taps of a kernel."""
    assert change("vit", [("embeddings.position_embeddings", 1)], np.arange(17).reshape(17, 1)) > 1e-4
    kernel = [("feature_extractor.conv_layers.1.conv.weight", 2)]
    assert change("hubert", kernel, np.arange(3).reshape(3, 1)) > 1e-4
