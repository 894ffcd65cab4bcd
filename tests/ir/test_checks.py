"""Checks at the hand-overs: each contradiction is refused in words that name where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import MODELS
from networks.traced import spec, trace

from permgraph import infer
from permgraph.errors import PlanError, TraceError
from permgraph.ir.check_plan import MODES, check_permutations, check_plan
from permgraph.ir.check_spec import check_spec
from permgraph.ir.check_trace import MAX_COORDINATES, check_trace
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec, Pin, Positions
from permgraph.ir.trace import Node, Ref, StateTensor, TensorMeta, Trace
from permgraph.planning.compile import compile_plan

FLOAT = "float32"


def meta(*shape: int) -> tuple[TensorMeta, ...]:
    return (TensorMeta(shape, FLOAT),)


TINY = Trace(
    "tiny",
    (
        Node("w", "state", {}, {"tensor": "w"}, meta(3, 4)),
        Node("x", "input", results=meta(1, 4)),
        Node("y", "aten.linear.default", {"input": Ref("x"), "weight": Ref("w")}, {}, meta(1, 3)),
        Node("top", "aten.topk.default", {"self": Ref("y")}, {"k": 1}, meta(1, 1) * 2, multiple=True),
        Node("first", "getitem", {"source": Ref("top")}, {"index": 0}, meta(1, 1)),
        Node("output", "output", {"outputs": (Ref("first"),)}),
    ),
    {"w": StateTensor("w", (3, 4), FLOAT, "parameter"), "m": StateTensor("m", (4,), FLOAT, "buffer")},
    ("m",),
)


def with_node(index: int, **changes: Any) -> Trace:
    nodes = list(TINY.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(TINY, nodes=tuple(nodes))


def with_state(**changes: Any) -> Trace:
    return replace(TINY, state={**TINY.state, "w": replace(TINY.state["w"], **changes)})


WRONG_TRACES: dict[str, tuple[Trace, str]] = {
    "name twice": (with_node(1, name="w"), "nodes[1] (w, input): another node has this name."),
    "not yet": (
        with_node(2, operands={"input": Ref("first"), "weight": Ref("w")}),
        "reads 'first', which no node before it computes.",
    ),
    "itself": (with_node(2, operands={"input": Ref("y")}), "reads 'y', which no node before it computes."),
    "nested": (
        with_node(2, operands={"input": [(Ref("z"),)]}),
        "reads 'z', which no node before it computes.",
    ),
    "shape": (
        with_node(2, results=meta(1, -3)),
        "nodes[2] (y, aten.linear.default): (1, -3) is not a shape.",
    ),
    "axes": (with_node(2, results=meta(*[1] * 65)), "is not a shape."),
    "state shape": (with_node(0, results=meta(4, 3)), "shape (4, 3), the tensor 'w' has (3, 4)."),
    "no state": (
        with_node(0, options={"tensor": "ww"}),
        "reads 'ww', which is no tensor of the state. Did you mean w?",
    ),
    "state of a number": (with_node(0, options={"tensor": 3}), "reads 3, which is no tensor of the state."),
    "getitem": (with_node(4, options={"index": 2}), "top has 2 results, there is no number 2."),
    "getitem of nothing": (with_node(4, options={}), "are not a node and the number of a result."),
    "no number": (with_node(4, options={"index": Ref("top")}), "are not a node and the number of a result."),
    "outputs": (with_node(5, operands={"outputs": (1,)}), "`outputs` is not a list of nodes."),
    "no outputs": (with_node(5, operands={}), "`outputs` is not a list of nodes."),
    "getitem shape": (with_node(4, results=meta(1, 2)), "shape (1, 2), result 0 of top has another."),
    "no output": (replace(TINY, nodes=TINY.nodes[:-1]), "the last one is not the output of the network."),
    "empty": (replace(TINY, nodes=(), unused=("w", "m")), "the last one is not the output of the network."),
    "two outputs": (
        replace(TINY, nodes=(*TINY.nodes, replace(TINY.nodes[-1], name="o"))),
        "is not the last node.",
    ),
    "state name": (with_state(name="v"), "state['w']: its name is 'v'."),
    "state kind": (with_state(kind="thing"), "kind 'thing' is neither 'parameter' nor 'buffer'."),
    "alias": (with_state(aliases=("m",)), "state['m']: another tensor is named 'm' too."),
    "too large": (with_state(shape=(2**40, 4)), f"more than can be labelled ({MAX_COORDINATES:,})."),
    "unused": (replace(TINY, unused=()), "unused: lists other tensors than those that no node reads: m."),
    "unused, but read": (replace(TINY, unused=("m", "w")), "than those that no node reads: w."),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG_TRACES.values(), ids=WRONG_TRACES.keys())
def test_a_trace_that_contradicts_itself_is_refused(wrong: Trace, message: str) -> None:
    check_trace(TINY)
    for check in (check_trace, infer):
        with pytest.raises(TraceError) as error:
            check(wrong)
        assert message in str(error.value)


@pytest.mark.sampled(16)
@pytest.mark.parametrize("name", MODELS)
def test_what_permgraph_makes_itself_passes_every_check(name: str) -> None:
    check_trace(trace(name))
    for free in (False, True):
        found = spec(name, free)
        check_spec(found)
        for mode in MODES:
            if found.groups:
                check_plan(compile_plan(found, "all", mode=mode))


NETWORK = "hubert_layer"


def with_group(name: str, **changes: Any) -> PermSpec:
    found = spec(NETWORK)
    return replace(found, groups=tuple(replace(g, **changes) if g.name == name else g for g in found.groups))


def with_place(index: int, **changes: Any) -> PermSpec:
    found = spec(NETWORK)
    places = list(found.places)
    places[index] = replace(places[index], **changes)
    return replace(found, places=tuple(places)).completed()


def with_spec(**changes: Any) -> PermSpec:
    return replace(spec(NETWORK), **changes)


def ffn() -> int:
    """Number of a place whose units fill its axis."""
    return next(i for i, p in enumerate(spec(NETWORK).places) if p.layout == ("ffn.0",))


def positions(**changes: Any) -> PermSpec:
    return with_place(ffn(), positions=replace(spec(NETWORK).places[ffn()].positions, **changes))


def wrong_specs() -> dict[str, tuple[Callable[[], PermSpec], str]]:
    at = ffn()
    ordinary = spec(NETWORK).places[at]
    return {
        "group twice": (lambda: with_spec(groups=spec(NETWORK).groups * 2), "is defined twice."),
        "size 0": (lambda: with_group("ffn.0", size=0), "group 'ffn.0' has 0 units."),
        "within nothing": (
            lambda: with_group("ffn.0", ancestors=("x",)),
            "group 'ffn.0' lives within 'x', which is not defined before it.",
        ),
        "within itself": (
            lambda: with_group("ffn.0", ancestors=("ffn.0",)),
            "which is not defined before it.",
        ),
        "copies": (
            lambda: with_group("ffn.0", copies=2),
            "group 'ffn.0': 2 copies, its ancestors have 1 units.",
        ),
        "place of another size": (lambda: with_group("ffn.0", size=7), "the groups need (7, '…')."),
        "no such group": (lambda: with_place(at, layout=("x",)), f"{ordinary}: group 'x' is not defined."),
        "no layout": (lambda: with_place(at, layout=()), "its layout names no group."),
        "without its ancestor": (
            lambda: with_place(at, layout=("heads.0/v",)),
            "units of heads.0/v are placed without heads.0, which they live within.",
        ),
        "axis": (lambda: with_place(at, axis=5), "on axis 5, the tensor has shape"),
        "negative axis": (lambda: with_place(at, axis=-1), "on axis -1, the tensor has shape"),
        "tensor": (lambda: with_place(at, tensor="x"), "the plan does not know this tensor's shape."),
        "side": (
            lambda: with_place(at, side="left"),
            "side 'left'; one of permute, un-permute, output can be.",
        ),
        "offset": (lambda: positions(offset=1), "positions from 1 up to"),
        "below": (lambda: positions(offset=-1), "positions from -1 up to"),
        "stride 0": (lambda: positions(strides=(0, 0)), "a coordinate belongs to two units."),
        "stride missing": (lambda: positions(strides=(1,)), "positions need one stride per axis"),
        "no positions": (lambda: positions(strides=None), "positions need one stride per axis"),
        "both": (lambda: positions(flat=(1,)), "positions need one stride per axis"),
        "huge": (lambda: positions(shape=(2**40, 2**40)), "the groups need"),
        "huge per unit": (
            lambda: positions(shape=(ordinary.positions.shape[0], 2**40)),
            f"from 1 to {2**28:,} can be.",
        ),
        "rows": (
            lambda: with_place(at, rows=Positions((1,), 0, (1,))),
            "rows and rows_axis belong together.",
        ),
        "place twice": (
            lambda: with_spec(places=(*spec(NETWORK).places, ordinary)),
            "appears twice with the same units.",
        ),
        "place missing": (
            lambda: with_spec(places=tuple(p for p in spec(NETWORK).places if p != ordinary)),
            f"{ordinary} is missing: it holds units of ffn.0, and moving the others without it would change the function.",
        ),
        "group without a place": (
            lambda: with_group("ffn.0", places=()),
            f"{ordinary}: group ffn.0 does not list it among its places.",
        ),
        "overlap": (
            lambda: with_spec(
                places=(*spec(NETWORK).places, replace(ordinary, node="elsewhere"))
            ).completed(),
            f"{ordinary}: its places overlap: a coordinate belongs to two units.",
        ),
        "unused": (
            lambda: with_spec(unused=("x",)),
            "x: listed as unused, tied or of known values, and no tensor of the network.",
        ),
        "aliases": (
            lambda: with_spec(aliases={ordinary.tensor: (ordinary.tensor,)}),
            f"{ordinary.tensor}: two tensors have this name.",
        ),
        "pin": (
            lambda: with_spec(pinned=(Pin(ordinary.tensor, 9, 1, "x"),)),
            "1 pinned coordinates, its shape is",
        ),
        "shape": (
            lambda: with_spec(tensors={**spec(NETWORK).tensors, "x": (-1,)}),
            "x: (-1,) is not a shape.",
        ),
    }


@pytest.mark.parametrize("name", wrong_specs())
def test_a_spec_that_contradicts_itself_is_refused(name: str) -> None:
    wrong, message = wrong_specs()[name]
    for check in (check_spec, lambda s: check_plan(Plan(s, ())), lambda s: compile_plan(s, "all")):
        with pytest.raises(PlanError) as error:
            check(wrong())
        assert message in str(error.value)


WRONG_PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "selected": ({"selected": ("ffn.9",)}, "group 'ffn.9' is selected and not defined. Did you mean ffn."),
    "twice": ({"selected": ("ffn.0", "ffn.0")}, "selected: a group is selected twice."),
    "mode": ({"mode": "evil"}, "mode 'evil': one of exact, one-sided, untied, untied-qkv can be."),
    "tap": ({"taps": {"ffn.0": "sideways"}}, "taps: 'ffn.0' is observed 'sideways'"),
    "tap of another": ({"taps": {"heads.0": "entering"}}, "it is not selected"),
    "exact, broken": ({"broken": ("x",)}, "mode 'exact' keeps the function"),
    "exact, changed": ({"change": 0.1}, "mode 'exact' keeps the function"),
    "negative": ({"mode": "one-sided", "change": -1.0}, "change: -1.0 is below 0."),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_PLANS.values(), ids=WRONG_PLANS.keys())
def test_a_plan_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        check_plan(replace(compile_plan(spec(NETWORK), "ffn.0"), **changes))
    assert message in str(error.value)


def test_permutations_of_another_plan_are_refused_and_both_are_named() -> None:
    mine, other = compile_plan(spec(NETWORK), "ffn.0"), compile_plan(spec(NETWORK), "heads")
    with pytest.raises(PlanError) as error:
        check_permutations(mine, random_permutations(other))
    for part in (other.digest[:12], mine.digest[:12], mine.fingerprint[:12], "ffn.0"):
        assert part in str(error.value)


def test_permutations_by_hand_are_held_against_groups_and_shapes() -> None:
    plan = compile_plan(spec(NETWORK), "ffn.0")
    arrays = random_permutations(plan).arrays
    check_permutations(plan, Permutations(arrays))
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "unknown": (
            {"ffn.9": arrays["ffn.0"]},
            "permutation for group 'ffn.9': no such group. Did you mean ffn.",
        ),
        "not selected": ({"heads.0": np.arange(2)}, "'heads.0': the plan (ffn.0) does not move it."),
        "shape": ({"ffn.0": arrays["ffn.0"][:-1]}, "'ffn.0': shape"),
        "dtype": (
            {"ffn.0": arrays["ffn.0"].astype(float)},
            "'ffn.0': dtype float64, indices must be integers.",
        ),
        "twice": ({"ffn.0": np.zeros_like(arrays["ffn.0"])}, "every index must appear exactly once."),
    }
    for changed, message in wrong.values():
        with pytest.raises(PlanError) as error:
            check_permutations(plan, Permutations(changed))
        assert message in str(error.value)


def test_distinct_positions_are_told_without_making_the_array() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        shape = tuple(rng.integers(1, 5, rng.integers(1, 4)))
        strides = tuple(int(s) for s in rng.integers(-8, 9, len(shape)))
        affine = Positions(tuple(map(int, shape)), int(rng.integers(50)), strides)
        array = affine.array()
        assert affine.distinct == (np.unique(array).size == array.size)
        assert affine.bounds() == (array.min(), array.max())
        flat = Positions(affine.shape, flat=tuple(array.ravel().tolist()))
        assert (flat.distinct, flat.bounds()) == (affine.distinct, affine.bounds())
