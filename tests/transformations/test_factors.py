"""Laws of factors: any value keeps the function, none is missed on numbers, and a wrong row of the table is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import MODELS
from networks.randomise import randomise
from networks.traced import network, spec, trace
from oracles.exponents import Exponents
from oracles.numbers import OnNumbers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map_only

import permgraph as pg
from permgraph.transformations.call import ROWS
from permgraph.transformations.find import find_factors
from permgraph.transformations.transformation import Factor

QUICK = {
    "hubert_layer",
    "llama_gqa",
    "glu",
    "gru",
    "lstm_projected",
    "shufflenet",
    "weight_norm",
    "qkv_hd3",
}
NETS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


def outputs(name: str, state: dict[str, Tensor]) -> Tensor:
    """Of a network made anew, in float64, with these weights loaded as a user would."""
    module, inputs = MODELS[name]()
    module = module.double().eval()
    module.load_state_dict(state, strict=True)
    wide = tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, inputs)
    with torch.no_grad():
        leaves = [x for x in tree_leaves(module(*wide)) if isinstance(x, Tensor)]
    return torch.cat([x.double().reshape(-1) for x in leaves])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NETS)
def test_any_value_keeps_the_function(name: str) -> None:
    """Judged by loading the multiplied weights, and without the library's own check."""
    module, _ = network(name)
    state = {k: v.double() if v.is_floating_point() else v for k, v in module.state_dict().items()}
    before = outputs(name, state)
    found = pg.find_factors(trace(name), spec(name))
    done = pg.random_factors(spec(name), [factor for factor in found if not factor.ones])
    for some in (*([one] for one in done), done):
        after = outputs(name, pg.multiply(spec(name), some, state))
        assert (after - before).abs().max() < 1e-5 * before.abs().max(), [str(one.factor) for one in some]
    assert pg.verify_factors(
        *network(name), spec(name), done
    ).kept  # to 1e-9: float32 inside is float64 there


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "glu_chunk",
        "depthwise_conv",
        "group_norm",
        "matrix_product",
        "shared_twice",
        "gru",
    ],
)
def test_none_is_missed(name: str) -> None:
    """As many as numbers allow."""
    module, inputs = network(name)
    judge = Exponents(module, inputs, spec(name))
    found = pg.find_factors(trace(name), spec(name))
    for group in spec(name).groups:
        if any(group.name in other.ancestors for other in spec(name).groups):
            continue
        ours = [sum(f.group == group.name and f.kind == kind for f in found) for kind in ("scales", "signs")]
        signs = judge.signs(group)
        assert ours == [judge.scales(group), ours[1] if signs is None else signs], group.name


class Net(nn.Module):
    """Two layers, and what is between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.second = nn.Linear(4, 6), between, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.first(x)))
        return out


class Applied(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator, no-any-return]


def kinds(net: nn.Module, *inputs: Tensor) -> set[str]:
    return {factor.kind for factor in pg.find_factors(pg.trace(net.eval(), inputs))}


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (torch.relu, {"scales"}),
        (lambda x: functional.leaky_relu(x, 0.2), {"scales"}),
        (torch.abs, {"scales", "signs"}),
        (torch.tanh, {"signs"}),
        (lambda x: functional.hardtanh(x, -2, 2), {"signs"}),
        (torch.square, {"scales", "signs"}),
        (lambda x: x, {"signs", "scales", "rotations"}),
        (functional.gelu, set()),
        (torch.sigmoid, set()),
        (lambda x: functional.hardtanh(x, -1, 2), set()),
        (lambda x: x + 1, set()),
        (lambda x: x.masked_fill(x > 0, 0.0), {"scales"}),
    ],
)
def test_functions_of_one_number(function: object, wanted: set[str]) -> None:
    found = kinds(Net(Applied(function)), torch.randn(2, 4))
    assert found <= wanted
    assert found == wanted or (
        function is not None and wanted == {"scales"}
    )  # a mask by comparison is held, not followed


def test_bias_that_is_added_later_does_not_scale() -> None:
    """x + 1 knows the size of x; x + b does too, unless b is multiplied alike."""
    found = pg.find_factors(pg.trace(Net(nn.ReLU()), (torch.randn(2, 4),)))
    (factor,) = found
    assert {str(p.place): p.exponents for p in factor.powers} == {
        "first.weight[0]": (1,),
        "first.bias[0]": (1,),
        "second.weight[1]": (-1,),
    }


def test_rotary_positions_leave_signs_of_pairs_and_no_rotation() -> None:
    """Of Llama's heads v may be rotated; q and k may not, since rotary positions turn them two by two."""
    found = pg.find_factors(trace("llama_gqa"), spec("llama_gqa"))
    rotated = {spec("llama_gqa").by_name[f.group].role for f in found if f.kind == "rotations"}
    assert rotated == {"heads/v"}


def test_the_residual_stream_is_rotated_past_rms_norms() -> None:
    """SliceGPT and QuaRot: the scales of norms are folded into what reads them, then the whole stream may be turned."""
    name = "llama_gqa_lm"
    found = pg.find_factors(trace(name), spec(name))
    (stream,) = [f for f in found if f.kind == "rotations" and spec(name).by_name[f.group].role == "residual"]
    assert len(stream.ones) == 5
    assert {p.place.tensor for p in stream.powers} >= {"model.embed_tokens.weight", "lm_head.weight"}
    state = {k: v.double() for k, v in network(name)[0].state_dict().items()}
    for norm in stream.ones:  # a scale that is not positive is not folded
        state[norm] = state[norm].abs() + 0.1
    turned = pg.random_factors(spec(name), [stream], 3)
    with pytest.raises(pg.PermgraphError, match="Fold them"):
        pg.multiply(spec(name), turned, state)
    folded = pg.multiply(spec(name), pg.fold_factors(spec(name), found, state), state)
    assert all((folded[norm] - 1).abs().max() < 1e-12 for norm in stream.ones)
    before = outputs(name, state)
    after = outputs(name, pg.multiply(spec(name), turned, folded))
    assert (after - before).abs().max() < 1e-5 * before.abs().max()
    assert pg.verify_factors(*network(name), spec(name), turned) < 1e-9


def test_no_rotation_past_a_norm_with_a_mean() -> None:
    found = pg.find_factors(trace("gpt2_lm"), spec("gpt2_lm"))
    roles = {spec("gpt2_lm").by_name[f.group].role for f in found if f.kind == "rotations"}
    assert roles == {"heads/qk", "heads/v"}


@pytest.mark.slow
def test_hubert_full_size() -> None:
    """HuBERT-base: q with k and v with W_O in each of 12 layers; GELU leaves the hidden units none."""
    full = pg.trace("hubert")
    groups = pg.infer(full)
    found = pg.find_factors(full, groups)
    roles = [(groups.by_name[f.group].role, f.kind) for f in found]
    for kind in ("signs", "scales", "rotations"):
        assert roles.count(("heads/qk", kind)) == roles.count(("heads/v", kind)) == 12
    assert not any(role == "ffn" for role, _ in roles)


@pytest.mark.parametrize("op", sorted(ROWS))
def test_rows_are_ops(op: str) -> None:
    if op not in ("to", "contiguous", "identity", "tanhshrink", "adaptive_avg_pool"):
        assert hasattr(torch.ops.aten, op), op


@pytest.mark.parametrize(("op", "like"), [("gelu", "relu"), ("sigmoid", "tanh"), ("layer_norm", "relu")])
def test_a_wrong_row_is_caught(op: str, like: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function check, and the law, notice what the table claims too much."""
    between = {
        "gelu": nn.GELU(),
        "sigmoid": nn.Sigmoid(),
        "layer_norm": nn.LayerNorm(6, elementwise_affine=False),
    }[op]
    net = randomise(Net(between))
    x = torch.randn(5, 4)
    traced = pg.trace(net, (x,))
    assert not [f for f in pg.find_factors(traced) if f.kind != "rotations"]
    row = ROWS[like]
    monkeypatch.setitem(ROWS, op, lambda call: row(call) if "self" in call.patterns else call.of("input"))
    groups = pg.infer(traced)
    wrong = [f for f in pg.find_factors(traced, groups) if f.kind != "rotations"]
    assert wrong
    check = pg.verify_factors(net, (x,), groups, pg.random_factors(groups, wrong, 3))
    assert not check.kept
    assert check.groups == ("ffn.0",)


def test_an_exponent_too_many_is_caught() -> None:
    module, inputs = network("glu")
    groups = spec("glu")
    found = pg.find_factors(trace("glu"), groups, ["scales"])
    one = found[0]
    power = one.powers[-1]
    broken = replace(
        one, powers=(*one.powers[:-1], replace(power, exponents=tuple(2 * e for e in power.exponents)))
    )
    assert pg.verify_factors(module, inputs, groups, pg.random_factors(groups, found)).kept
    assert not pg.verify_factors(module, inputs, groups, pg.random_factors(groups, [broken])).kept


def test_the_check_notices_a_place_left_out() -> None:
    module, inputs = network("rnn_tanh")
    found = pg.find_factors(trace("rnn_tanh"), spec("rnn_tanh"))
    check = pg.verify_factors(module, inputs, spec("rnn_tanh"), pg.random_factors(spec("rnn_tanh"), found))
    assert check.kept
    assert check.control is not None
    assert check.control > 1e-6


class Experts(nn.Module):
    """Equal modules side by side: units of one place lie in several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(3)
        )
        self.router = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).softmax(-1)
        out: Tensor = sum(gates[:, i : i + 1] * e(x) for i, e in enumerate(self.experts))  # type: ignore[assignment]
        return out


def test_units_that_lie_in_several_tensors() -> None:
    net, x = randomise(Experts()), torch.randn(3, 4)
    traced = pg.trace(net, (x,))
    groups = pg.infer(traced)
    assert groups.joined
    found = pg.find_factors(traced, groups, ["scales"])
    assert {groups.by_name[f.group].copies for f in found} == {3}
    numbers = OnNumbers(net, (x,))
    after = pg.multiply(groups, pg.random_factors(groups, found), numbers.state)
    assert numbers.loaded_change(after) < 1e-12
    assert any(not torch.equal(after[k], numbers.state[k]) for k in after)


def test_dtypes_and_arrays_are_kept() -> None:
    module, _ = network("glu")
    found = pg.random_factors(spec("glu"), pg.find_factors(trace("glu"), spec("glu")))
    half = {k: v.bfloat16() for k, v in module.state_dict().items()}
    assert {v.dtype for v in pg.multiply(spec("glu"), found, half).values()} == {torch.bfloat16}
    arrays = {k: v.numpy() for k, v in module.state_dict().items()}
    made = pg.multiply(spec("glu"), found, arrays)
    assert {a.dtype for a in made.values()} == {np.dtype("float32")}
    assert all(not np.shares_memory(made[k], arrays[k]) for k in arrays)


def test_kinds_are_named() -> None:
    with pytest.raises(pg.PermgraphError, match="There are: signs, scales, rotations"):
        find_factors(trace("glu"), spec("glu"), ())
        pg.find_factors(trace("glu"), spec("glu"), ["sign"])


def test_a_factor_reads_as_text() -> None:
    (factor, *_) = pg.find_factors(trace("mlp"), spec("mlp"), ["scales"])
    assert isinstance(factor, Factor)
    assert str(factor).startswith("ffn.0 scales: ")
