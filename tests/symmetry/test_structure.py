"""Expected structure: which groups there are, how large, and where. Their truth is tested in tests/properties."""

from __future__ import annotations

from collections import Counter
from math import lgamma, log

import pytest
import torch
from networks.handmade import ConvNet
from networks.pretrained import CifarNet
from networks.randomise import noise, randomise
from networks.small import audio
from networks.traced import spec
from torch import Tensor, nn

from permgraph.frontend.capture import capture
from permgraph.ir.spec import Group, PermSpec
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


def factorial(n: int) -> float:
    """log10 of n!"""
    return lgamma(n + 1) / log(10)


def shapes(found: PermSpec, *roles: str) -> Counter[tuple[str, int, int, str]]:
    """(role, size, copies, role of the group it lives within) → how many; of some roles or of all."""
    by_name = found.by_name
    return Counter(
        (g.role, g.size, g.copies, by_name[g.within].role if g.within else "")
        for g in found.groups
        if not roles or g.role in roles
    )


def inner(found: PermSpec, group: Group) -> dict[str, Group]:
    """What lives within a group, by the last part of its role."""
    return {g.role.rsplit("/", 1)[-1]: g for g in found.groups if g.within == group.name}


def places(group: Group) -> set[tuple[str, int]]:
    return {(p.tensor, p.axis) for p in group.places}


def of_role(found: PermSpec, role: str) -> list[Group]:
    return [g for g in found.groups if g.role == role]


def group_at(found: PermSpec, tensor: str, axis: int) -> Group:
    """The innermost group of the only place on an axis."""
    (place,) = (p for p in found.places if (p.tensor, p.axis) == (tensor, axis))
    return found.by_name[place.layout[-1]]


# -- HuBERT ----------------------------------------------------------------------------------------------


def test_hubert_base() -> None:
    found = spec("alias:hubert")
    assert shapes(found) == {
        ("cnn", 512, 1, ""): 7,
        ("heads", 12, 1, ""): 12,
        ("heads/qk", 64, 12, "heads"): 12,
        ("heads/v", 64, 12, "heads"): 12,
        ("ffn", 3072, 1, ""): 12,
    }
    # 7 + 12 (1 + 12 + 12 + 1) = 319 elementary groups; the residual stream would be one more
    assert sum(g.copies for g in found.groups) == 319
    expected = 7 * factorial(512) + 12 * (factorial(12) + 24 * factorial(64) + factorial(3072))
    assert found.log10_order == pytest.approx(expected)
    assert found.unused == ("masked_spec_embed",)
    assert found.unknown_ops == () and found.frozen == 0
    held = {(p.tensor, p.axis): p for p in found.pinned}
    for tensor, axis in [("encoder.layers.3.attention.q_proj.weight", 1), ("encoder.layer_norm.weight", 0)]:
        assert (held[tensor, axis].reason, held[tensor, axis].count) == ("output", 768)


def test_hubert_base_with_its_output_freed() -> None:
    found = spec("alias:hubert", free_output=True)
    assert shapes(found, "residual", "residual/inner") == {
        ("residual", 16, 1, ""): 1,  # the positional convolution has 16 groups
        ("residual/inner", 48, 16, "residual"): 1,
    }
    assert found.log10_order == pytest.approx(
        spec("alias:hubert").log10_order + factorial(16) + 16 * factorial(48)
    )
    (stream,) = of_role(found, "residual/inner")
    assert ("output:0", 2) in places(stream)
    rows = [p for p in stream.places if p.rows is not None]  # the input channels, ordered in each group apart
    assert [(p.tensor, p.axis) for p in rows] == [
        ("encoder.pos_conv_embed.conv.parametrizations.weight.original1", 1)
    ]


LAYER = "encoder.layers.5"
HUBERT = {  # what each kind of group moves: ../shared/known_symmetries.md, section 1
    "first conv": (
        "cnn.0",
        {
            ("feature_extractor.conv_layers.0.conv.weight", 0),
            ("feature_extractor.conv_layers.0.layer_norm.weight", 0),
            ("feature_extractor.conv_layers.0.layer_norm.bias", 0),
            ("feature_extractor.conv_layers.1.conv.weight", 1),
        },
    ),
    "a conv": (
        "cnn.3",
        {
            ("feature_extractor.conv_layers.3.conv.weight", 0),
            ("feature_extractor.conv_layers.4.conv.weight", 1),
        },
    ),
    "last conv": (
        "cnn.6",
        {
            ("feature_extractor.conv_layers.6.conv.weight", 0),
            ("feature_projection.layer_norm.weight", 0),
            ("feature_projection.layer_norm.bias", 0),
            ("feature_projection.projection.weight", 1),
        },
    ),
    "ffn": (
        "ffn.5",
        {
            (f"{LAYER}.feed_forward.intermediate_dense.weight", 0),
            (f"{LAYER}.feed_forward.intermediate_dense.bias", 0),
            (f"{LAYER}.feed_forward.output_dense.weight", 1),
        },
    ),
    "qk": (
        "heads.5/qk",
        {(f"{LAYER}.attention.{x}_proj.{kind}", 0) for x in "qk" for kind in ("weight", "bias")},
    ),
    "v": (
        "heads.5/v",
        {
            (f"{LAYER}.attention.v_proj.weight", 0),
            (f"{LAYER}.attention.v_proj.bias", 0),
            (f"{LAYER}.attention.out_proj.weight", 1),
        },
    ),
}
HUBERT["heads"] = ("heads.5", HUBERT["qk"][1] | HUBERT["v"][1])


@pytest.mark.parametrize("kind", HUBERT)
def test_hubert_places(kind: str) -> None:
    name, expected = HUBERT[kind]
    group = spec("alias:hubert").by_name[name]
    assert places(group) == expected
    consumers = {(p.tensor, p.axis) for p in group.places if p.side == "un-permute"}
    assert consumers == {(t, a) for t, a in expected if a == 1}


def test_every_place_of_a_head_is_a_block() -> None:
    """Head h, channel d is row 64 h + d, on every axis of the layer."""
    for place in spec("alias:hubert").by_name["heads.5"].places:
        assert place.layout[0] == "heads.5"
        assert place.positions.strides is not None and place.positions.strides[:2] == (64, 1)


# -- transformers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2", "ast", "whisper_encoder", "hubert", "wav2vec2"])
def test_a_layer_has_heads_and_an_ffn(name: str) -> None:
    """S_h ≀ (S_d × S_d) and S_ffn per layer, and nothing else beside convolutions."""
    found = spec(name)
    assert shapes(found, *{g.role for g in found.groups} - {"cnn"}) == {
        ("heads", 3, 1, ""): 2,
        ("heads/qk", 8, 3, "heads"): 2,
        ("heads/v", 8, 3, "heads"): 2,
        ("ffn", 40, 1, ""): 2,
    }


def test_t5_has_one_order_of_heads() -> None:
    """All layers add the position bias of the first one, which has a value per head."""
    found = spec("t5_encoder")
    assert shapes(found, "heads", "heads/qk", "heads/v") == {
        ("heads", 3, 1, ""): 1,
        ("heads/qk", 10, 3, "heads"): 2,
        ("heads/v", 10, 3, "heads"): 2,
    }


def test_grouped_query_attention() -> None:
    """S_kv ≀ (S_rep × S_d): query heads move inside their key head, which has one order of value channels.

    Rotary positions leave no order of the query and key channels (frequencies differ).
    """
    found = spec("llama_gqa")
    assert shapes(found) == {
        ("heads", 2, 1, ""): 2,
        ("heads/queries", 3, 2, "heads"): 2,
        ("heads/v", 8, 2, "heads"): 2,
        ("ffn", 40, 1, ""): 2,
    }
    (output,) = (p for p in found.by_name["heads.0"].places if p.axis == 1)
    assert set(output.layout) == {"heads.0", "heads.0/queries", "heads.0/v"}
    layer = "layers.0.self_attn"
    assert (f"{layer}.k_proj.weight", 0) not in places(found.by_name["heads.0/queries"])
    assert (f"{layer}.q_proj.weight", 0) not in places(found.by_name["heads.0/v"])


def test_gated_ffn_shares_one_group() -> None:
    assert {t.split(".mlp.")[1] for t, _ in places(spec("llama_gqa").by_name["ffn.0"])} == {
        "gate_proj.weight",
        "up_proj.weight",
        "down_proj.weight",
    }
    (fused,) = (p for p in spec("glu").places if p.tensor == "fused.weight" and p.axis == 0)
    assert fused.positions.array().tolist() == [[i, i + 9] for i in range(9)]  # two windows, one group


def test_wavlm_ties_head_order_to_the_residual_stream() -> None:
    """Its gate reads head h's share of the residual channels, so heads move only where those may."""
    found = spec("wavlm")
    assert not of_role(found, "heads")
    assert shapes(found, "qk", "v") == {("qk", 8, 1, ""): 6, ("v", 8, 1, ""): 6}
    # the residual channels freed, and a positional convolution whose groups are the shares of the heads
    module, inputs = audio("WavLM", num_buckets=8, max_bucket_distance=12, num_conv_pos_embedding_groups=3)()
    freed = infer(capture(module, inputs), free_output=True)
    query = "encoder.layers.{}.attention.q_proj.weight"
    order = {
        freed.by_name[p.layout[0]]
        for p in freed.places
        for i in (0, 1)
        if p.tensor == query.format(i) and p.axis == 0
    }
    (heads,) = order  # one group for the order of heads in both layers,
    assert heads.size == 3
    assert ("feature_projection.projection.weight", 0) in places(heads)  # and of the residual channels
    assert verify(module, inputs, freed) <= 1e-9


def test_wavlm_with_groups_across_heads_may_only_be_mirrored() -> None:
    """4 groups of 6 across 3 heads of 8: pairs of channels that no border parts may be exchanged, and all mirrored.

    A mirror image exchanges the first head with the last one, and the two pairs of each; the middle head stays.
    """
    found = spec("wavlm", free_output=True)
    assert found.frozen == 0
    assert shapes(found, "heads", "heads/inner", "heads/qk", "heads/v", "qk", "v") == {
        ("heads", 2, 1, ""): 1,
        ("heads/inner", 2, 2, "heads"): 2,
        ("heads/qk", 8, 2, "heads"): 2,  # one in each layer
        ("heads/v", 8, 2, "heads"): 2,
        ("qk", 8, 1, ""): 2,
        ("v", 8, 1, ""): 2,
    }


class NormedAttention(nn.Module):
    """Attention whose queries and keys are normalised over the channels of a head, with one scale for all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(*s) for s in [(10, 12), (10, 12), (10, 12), (12, 10)])
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(1, 6, 3, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = (self.norm(q) @ self.norm(k).transpose(-1, -2)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(1, 6, 12))


def test_a_norm_shared_by_all_heads_gives_them_one_order_of_channels() -> None:
    module, inputs = randomise(NormedAttention()), (noise(1, 6, 10),)
    found = infer(capture(module, inputs))
    qk = group_at(found, "norm.weight", 0)
    assert (qk.size, qk.copies) == (4, 1)
    value = group_at(found, "v.weight", 0)
    assert (value.size, value.copies) == (4, 3)
    assert found.log10_order == pytest.approx(factorial(3) + factorial(4) + 3 * factorial(4))
    assert verify(module, inputs, found) <= 1e-9


@pytest.mark.parametrize("layout", ["3hd", "h3d", "hd3", "chunk"])
def test_fused_projections_in_any_layout(layout: str) -> None:
    found = spec(f"qkv_{layout}")
    assert shapes(found) == {
        ("heads", 3, 1, ""): 1,
        ("heads/qk", 4, 3, "heads"): 1,
        ("heads/v", 4, 3, "heads"): 1,
    }
    keys = inner(found, found.by_name["heads.0"])["qk"]
    rows = {p.tensor: p.positions.array() for p in keys.places}["qkv.weight"]
    head, channel, part = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(2), indexing="ij")
    expected = {
        "3hd": part * 12 + head * 4 + channel,
        "chunk": part * 12 + head * 4 + channel,
        "h3d": head * 12 + part * 4 + channel,
        "hd3": head * 12 + channel * 3 + part,
    }[layout]
    assert rows.tolist() == expected.tolist()


# -- convolutional networks ------------------------------------------------------------------------------


def test_a_basic_block_has_one_group_and_a_stage_one_residual() -> None:
    """14 and 14 inside the blocks of stage one, 18 and 18 in stage two, 22 in the one block of stage three."""
    found = spec("resnet_basic")
    assert shapes(found) == {
        ("residual", 14, 1, ""): 1,
        ("cnn", 14, 1, ""): 2,
        ("cnn", 18, 1, ""): 2,
        ("residual", 18, 1, ""): 1,
        ("cnn", 22, 1, ""): 1,  # the last residual stream is the output
    }
    freed = spec("resnet_basic", free_output=True)
    assert shapes(freed) - shapes(found) == {("residual", 22, 1, ""): 1}


def test_running_statistics_move_and_counters_do_not() -> None:
    kinds = {p.tensor.rsplit(".", 1)[-1] for p in spec("batch_norm").places}
    assert {"running_mean", "running_var"} <= kinds
    assert "num_batches_tracked" not in kinds


def test_zero_padded_shortcuts_add_new_channels_in_the_middle_of_nowhere() -> None:
    """CIFAR ResNet-20, option A: 16 channels, then 8 + 8 zeros around them, then 16 + 16."""
    found = infer(capture(randomise(CifarNet()), (noise(1, 3, 32, 32),)))
    assert shapes(found, "residual") == {("residual", 16, 1, ""): 2, ("residual", 32, 1, ""): 1}
    first, second, third = (
        sorted(p.positions.array().ravel().tolist())
        for p in found.places
        if (p.tensor, p.axis) == ("convs.8.conv2.weight", 0)
    )
    assert first == list(range(24, 40))  # the oldest channels, padded around twice
    assert second == [*range(16, 24), *range(40, 48)]
    assert third == [*range(16), *range(48, 64)]
    assert shapes(found, "cnn") == {("cnn", 16, 1, ""): 3, ("cnn", 32, 1, ""): 3, ("cnn", 64, 1, ""): 3}


def test_a_shuffle_of_groups_that_nothing_restricts_costs_nothing() -> None:
    """A shuffle between two ordinary convolutions: still every order of the 18 channels."""

    class Shuffle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(1, 3, 6, *x.shape[2:]).transpose(1, 2).reshape(x.shape)

    def order(*between: nn.Module) -> float:
        layers = nn.Conv2d(3, 18, 3), nn.ReLU(), *between, nn.Conv2d(18, 10, 1), nn.ReLU()
        found = infer(capture(randomise(ConvNet(10, *layers)), (noise(1, 3, 8, 8),)))
        assert Counter(g.size for g in found.groups) == {18: 1, 10: 1}
        return found.log10_order

    assert order(Shuffle()) == order() == order(nn.ChannelShuffle(3))


@pytest.mark.parametrize("name", ["shufflenet", "shuffle_by_index"])
def test_a_shuffle_between_grouped_convolutions(name: str) -> None:
    """Channel (g, c) of the first conv's 3 groups of 6 goes to group c // 2 of the second: 2 at each crossing."""
    found = spec(name)
    assert sorted((g.size, g.copies) for g in found.groups) == [(2, 9), (3, 1), (3, 1), (4, 3), (6, 3)]
    (crossing,) = (g for g in found.groups if g.size == 2)
    assert len(crossing.ancestors) == 2


def test_group_norm() -> None:
    """As many groups as channels: every order. A few groups: blocks, and orders inside them."""
    assert shapes(spec("group_norm")) == {
        ("cnn", 3, 1, ""): 1,
        ("cnn/inner", 4, 3, "cnn"): 1,
        ("cnn", 10, 1, ""): 1,
    }
    assert group_at(spec("hubert"), "feature_extractor.conv_layers.0.layer_norm.weight", 0).size == 10


def test_grouped_and_depthwise_convolutions() -> None:
    grouped = spec("grouped_conv")
    assert sorted((g.size, g.copies) for g in grouped.groups) == [(3, 1), (4, 3), (6, 3), (10, 1)]
    (columns,) = (p for p in grouped.places if p.tensor == "layers.2.weight" and p.axis == 1)
    assert columns.rows is not None and columns.rows_axis == 0  # a different order in every block of rows
    depthwise = spec("depthwise_conv")
    weight = [p for p in depthwise.places if p.tensor == "layers.1.weight"]
    assert [(p.axis, p.positions.array().size) for p in weight] == [(0, 9)]  # one axis: in is out
    assert sorted((g.size, g.copies) for g in depthwise.groups) == [(2, 11), (9, 1), (10, 1), (11, 1)]
    assert shapes(spec("transposed_grouped_conv")) == shapes(grouped)


def test_flattened_channels_own_blocks_of_columns() -> None:
    found = spec("flatten_head")
    (columns,) = (p for p in found.places if p.tensor == "hidden.weight" and p.axis == 1)
    assert columns.positions.array().tolist() == [[16 * c + i for i in range(16)] for c in range(9)]


def test_concatenation_gives_an_axis_windows_of_several_groups() -> None:
    found = spec("densenet")
    assert sorted(g.size for g in found.groups) == [5, 5, 5, 7]
    windows = [
        p.positions.array().ravel().tolist() for p in found.places if (p.tensor, p.axis) == ("head.weight", 1)
    ]
    assert sorted(windows) == [[*range(7)], [*range(7, 12)], [*range(12, 17)], [*range(17, 22)]]


# -- tensors that belong -------------------------------------------------------------------------------


def test_one_group_on_both_axes_of_a_tensor() -> None:
    (group,) = spec("shared_twice").groups
    assert {a for t, a in places(group) if t == "shared.weight"} == {0, 1}


@pytest.mark.parametrize(
    ("name", "tensor", "alias"),
    [
        ("tied_language_model", "embed.weight", "head.weight"),
        ("gpt2_lm", "transformer.wte.weight", "lm_head.weight"),
        ("tied_autoencoder", "decoder_weight", "encoder.weight"),
    ],
)
def test_a_tied_tensor_is_one_tensor(name: str, tensor: str, alias: str) -> None:
    found = spec(name)
    assert found.aliases == {tensor: (alias,)}
    moved = [p.axis for p in found.places if p.tensor == tensor]
    assert len(moved) == 1
    assert not [p for p in found.places if p.tensor == alias]


def test_odd_parameters_belong_to_the_residual_stream() -> None:
    (stream,) = of_role(spec("vit", free_output=True), "residual")
    assert {("embeddings.cls_token", 2), ("embeddings.position_embeddings", 2)} <= places(stream)
    scales = {
        t for t, _ in places(of_role(spec("convnext"), "residual")[0]) if t.endswith("layer_scale_parameter")
    }
    assert scales


@pytest.mark.parametrize("name", ["weight_norm", "weight_norm_parametrized"])
def test_the_norms_of_weight_norm_move_only_where_they_have_the_axis(name: str) -> None:
    kinds = ("weight_g", "parametrizations.weight.original0")
    norms = {p.tensor.split(".")[0] for p in spec(name).places if p.tensor.endswith(kinds)}
    assert norms == {"stem"}  # `taps` has one norm per tap; `head` makes the output


def test_rows_that_the_example_does_not_reach_stay() -> None:
    """Positions beyond the length of the example are read by longer inputs."""
    found = spec("bert")
    assert not [p for p in found.places if "position_embeddings" in p.tensor]
    held = {
        p.reason for p in found.pinned if p.tensor == "embeddings.position_embeddings.weight" and p.axis == 0
    }
    assert held == {"input", "not reached by the example input"}


def test_attention_to_a_memory_has_heads() -> None:
    """nn.Transformer's decoder: values stand beside positions of the memory, which stand beside keys."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.net = nn.Linear(3, 8), nn.Transformer(8, 2, 1, 1, 5, batch_first=True)
            self.down = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.net(self.up(x), self.up(x) + 1))  # type: ignore[no-any-return]

    groups = infer(capture(Both(), (torch.randn(2, 5, 3),))).groups
    assert sum(g.role == "heads" for g in groups) == 3
    assert Counter(g.role for g in groups if g.ancestors) == {"heads/qk": 3, "heads/v": 3}
