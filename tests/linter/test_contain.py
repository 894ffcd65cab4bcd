"""Containment is exact: it says yes to a claim if and only if the claim keeps the function."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from networks import MODELS
from torch import nn

from permgraph.frontend.capture import capture
from permgraph.ir.spec import PermSpec
from permgraph.linter.claims import Claim, ClaimPlace
from permgraph.linter.containment import contain
from permgraph.linter.foreign import ForeignGroup, ForeignPlace, resolve
from permgraph.linter.notations import spelt_places
from permgraph.linter.report import claim_spec
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import TOLERANCE, verify
from tests.linter.reference import spec_of


def claim(spec: PermSpec, size: int, *places: str, copies: int = 1) -> Claim:
    """A claim in our notation; every place fits."""
    found = tuple(p for text in places for p in spelt_places(text, {}, {"l": 12}))
    made, findings = resolve(ForeignGroup("claim", found, size, copies), spec)
    assert findings == []
    return made


def own_claims(spec: PermSpec) -> list[Claim]:
    """Our outermost groups without nested ones or rows, as a stranger would write them."""
    claims = []
    for group in spec.groups:
        if any(len(p.layout) > 1 or p.rows is not None for p in group.places):
            continue
        mine = [p for p in group.places if not p.tensor.startswith("output:")]
        places = tuple(ClaimPlace(p.tensor, p.axis, p.positions.array()[None]) for p in mine)
        claims.append(Claim(group.name, group.size, places))
    return claims


PLAIN = ["mlp", "batch_norm", "flatten_head", "shared_twice", "matrix_product"]
LARGER = ["densenet", "glu_chunk", "tied_autoencoder", "cifar_resnet", "depthwise_conv"]


@pytest.fixture(
    scope="module", params=[*PLAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)]
)
def model(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[object, ...], PermSpec]:
    module, inputs = MODELS[request.param]()
    return module, inputs, infer(capture(module, inputs))


def test_our_own_groups_are_contained(model: tuple[nn.Module, tuple[object, ...], PermSpec]) -> None:
    spec = model[2]
    claims = own_claims(spec)
    assert claims
    assert [(v.contained, v.groups) for v in contain(spec, claims)] == [(True, (c.name,)) for c in claims]


def test_a_claim_without_one_of_its_places_is_refused_and_the_place_named(
    model: tuple[nn.Module, tuple[object, ...], PermSpec],
) -> None:
    spec = model[2]
    for made in own_claims(spec):
        for i, left_out in enumerate(made.places):
            rest = made.places[:i] + made.places[i + 1 :]
            if any((p.tensor, p.axis) == (left_out.tensor, left_out.axis) for p in rest):
                continue  # another window of the same axis: named as torn, not as missing
            (verdict,) = contain(spec, [replace(made, places=rest)])
            assert not verdict.contained and verdict.missing == (str(left_out),)


def test_contained_if_and_only_if_the_function_is_kept(
    model: tuple[nn.Module, tuple[object, ...], PermSpec],
) -> None:
    """Every pair of axes of equal length, and every group of ours, broken or not: measured in float64."""
    module, inputs, spec = model
    axes = [(n, a, s) for n, shape in spec.tensors.items() for a, s in enumerate(shape) if s > 1]
    pairs = [(x, y) for x, y in itertools.combinations(axes, 2) if x[2] == y[2]]
    rng = np.random.default_rng(0)
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:12]]
    claims = own_claims(spec)
    for i, pair in enumerate(chosen):
        places = tuple(ClaimPlace(n, a, np.arange(s).reshape(1, s, 1)) for n, a, s in pair)
        claims.append(Claim(f"pair.{i}", pair[0][2], places))
    verdicts = contain(spec, claims)
    for made, verdict in zip(claims, verdicts, strict=True):
        change = verify(module, inputs, claim_spec(made, module), explain=False)
        assert (change <= TOLERANCE) == verdict.contained, (made.name, verdict, change)


def test_units_in_another_order_are_refused(model: tuple[nn.Module, tuple[object, ...], PermSpec]) -> None:
    """The same coordinates, numbered differently on one axis, are another permutation."""
    spec = model[2]
    for made in own_claims(spec):
        if len(made.places) < 2 or made.size < 4:
            continue
        turned = replace(made.places[0], units=np.roll(made.places[0].units, 1, axis=1))
        (verdict,) = contain(spec, [replace(made, places=(turned, *made.places[1:]))])
        assert not verdict.contained


ATTENTION = "encoder.layers.0.attention."
RESIDUAL = [
    "feature_projection.projection.{weight,bias}[0]",
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1[0]",
    "encoder.pos_conv_embed.conv.bias[0]",
    "encoder.layer_norm.{weight,bias}[0]",
    "encoder.layers.{l}.attention.{q_proj,k_proj,v_proj}.weight[1]",
    "encoder.layers.{l}.attention.out_proj.{weight,bias}[0]",
    "encoder.layers.{l}.{layer_norm,final_layer_norm}.{weight,bias}[0]",
    "encoder.layers.{l}.feed_forward.intermediate_dense.weight[1]",
    "encoder.layers.{l}.feed_forward.output_dense.{weight,bias}[0]",
]
QK = [ATTENTION + "{q_proj,k_proj}.{weight,bias}[0]"]
VO = [ATTENTION + "v_proj.{weight,bias}[0]", ATTENTION + "out_proj.weight[1]"]


@pytest.mark.parametrize(
    ("size", "copies", "places"),
    [
        pytest.param(12, 1, [p + " = u 64" for p in VO], id="order of heads on value and output only"),
        pytest.param(768, 1, QK, id="any order of query and key"),
        pytest.param(768, 1, VO, id="any order of value and output"),
        pytest.param(768, 1, QK + VO, id="any order of all four"),
        pytest.param(64, 12, [p + " = c u" for p in [QK[0], VO[0]]], id="value without output"),
        pytest.param(
            3072, 1, ["encoder.layers.0.feed_forward.output_dense.weight[1]"], id="the consumer only"
        ),
    ],
)
def test_what_is_no_symmetry_of_hubert(size: int, copies: int, places: list[str]) -> None:
    """Measured to change the output by 0.9 to 1.3 of its size."""
    spec = spec_of("hubert")
    (verdict,) = contain(spec, [claim(spec, size, *places, copies=copies)])
    assert not verdict.contained and verdict.why


def test_the_residual_of_hubert_needs_the_blocks_of_its_positional_convolution() -> None:
    spec = spec_of("hubert", True)
    whole = claim(spec, 768, *RESIDUAL)
    without = claim(spec, 48, *(p + " = c u" for p in RESIDUAL), copies=16)
    assert [v.contained for v in contain(spec, [whole, without])] == [False, False]
    (verdict,) = contain(spec, [without])
    assert verdict.missing == ("encoder.pos_conv_embed.conv.parametrizations.weight.original1[1]",)


def test_pinned_coordinates_say_why() -> None:
    spec = spec_of("hubert")
    (verdict,) = contain(spec, [claim(spec, 768, *RESIDUAL)])
    assert "held in place (" in verdict.reason


def test_a_claim_that_tears_and_forgets_is_told_both() -> None:
    """The first two channels lie in one head; a cycle of all 768 takes the heads apart."""
    spec = spec_of("hubert")
    (verdict,) = contain(spec, [claim(spec, 768, ATTENTION + "v_proj.weight[0]", VO[1])])
    assert verdict.missing and "one unit of heads.0 would go to different units" in verdict.reason


@pytest.mark.slow
def test_rotary_embedding_holds_the_channels_of_queries_and_keys() -> None:
    spec = spec_of("llama")
    places = "model.layers.0.self_attn.{q_proj,k_proj}.weight[0] = c u"
    (verdict,) = contain(spec, [claim(spec, 64, places, copies=8)])
    assert not verdict.contained


def test_a_place_that_says_nothing_new_changes_nothing() -> None:
    spec = spec_of("mlp")
    (verdict,) = contain(spec, [claim(spec, 512, "0.{weight,bias}[0]", "0.weight[0]", "2.weight[1]")])
    assert verdict.contained and verdict.groups == ("ffn.0",)


def test_a_tied_tensor_counts_under_either_name() -> None:
    module, inputs = MODELS["tied_autoencoder"]()
    spec = infer(capture(module, inputs))
    for name in ("encoder.weight", "decoder_weight"):
        places = (ForeignPlace(name, 0), ForeignPlace("encoder.bias", 0))
        made, findings = resolve(ForeignGroup("hidden", places), spec)
        assert not findings and contain(spec, [made])[0].contained
