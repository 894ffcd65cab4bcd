"""Small values by the names of attributes, and values that go together made to agree."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, TypeGuard

VOCAB = 99
DEPTH = 2
_FACTOR = 8  # what widths are divided by when they keep their proportions

# (pattern of an attribute's name, small value); the first that matches counts. Sizes differ from each other
# where architectures allow, so that axes are not mixed up by accident.
_INTEGERS: tuple[tuple[str, int], ...] = (
    (
        r"(image|audio|video|vision|pad|eos|bos|sep|cls|mask|unk|start|end|token).*(token_id|token_index|_id)s?$",
        -1,
    ),
    (r".*codebook_size", 64),
    (r".*vocab(ulary)?.*size.*|.*_vocab", VOCAB),
    (r"(mamba_n_heads|mamba_num_heads)", 8),  # heads of 8 fill twice the width of 32
    (r"(rotary_dim|rotary_ndims)", 4),
    (r"type_vocab_size", 2),
    (r"num_kv_shared_layers", 0),
    (r".*(kv_heads|key_value_heads|num_kv_attention_heads)$", 2),
    (r".*(num_attention_heads|attention_heads|n_heads?|num_heads|n_head|n_q_head|heads)$", 4),
    (r"(qk_head_dim)", 16),
    (r"(.*mamba_d_head|.*mamba_head_dim|mamba_headdim)", 8),
    (r".*(head_dim|d_kv|head_size|kv_channels|attention_head_size)$", 8),
    (r"(q_lora_rank|kv_lora_rank)", 12),
    (r"(qk_nope_head_dim|qk_rope_head_dim|v_head_dim)", 8),
    (
        r".*(num_hidden_layers|n_layers?|num_layers|.*encoder_layers|.*decoder_layers|n_layer|depth|num_blocks)$",
        DEPTH,
    ),
    (r".*(moe_intermediate_size|moe_ffn_hidden_size)$", 24),
    (
        r".*(intermediate_size|ffn_dim|d_ff|ffn_hidden_size|inner_dim|n_inner|d_inner|mlp_dim|dim_feedforward)$",
        56,
    ),
    (r".*(num_experts|n_routed_experts|num_local_experts|n_experts)$", 4),
    (r".*(experts_per_tok|top_k_experts|num_selected_experts|moe_topk|moe_top_k|moe_k)$", 2),
    (r"(n_group|topk_group)", 1),
    (r".*(hidden_size|d_model|n_embd|hidden_dim|embed_dim|embedding_size|embedding_dim|emb_dim)$", 32),
    (r".*(projection_dim|hidden_size_per_layer_input|d_embed|proj_size|out_hidden_size)$", 32),
    (r"(dim|width|model_dim|channels|base_channels)$", 32),
    (r".*(mamba_expand|expand)$", 2),
    (r".*(mamba_d_state|state_size|ssm_state_size)$", 8),
    (r".*(num_mel_bins|feature_size|mel_bins)$", 16),
    (r".*(max_position_embeddings|n_positions|max_source_positions|max_target_positions|max_seq.*)$", 128),
    (r".*image_size$", 64),
    (r".*patch_size$", 16),
    (r"num_self_attends_per_block", 2),
    (r".*n_shared_experts|.*num_shared_experts", 1),
    (r"d_latents", 32),
    (r"(num|n)_filters", 8),
    (r"max_img_size", 64),
    (r"merge_index|insert_layer_id", 0),
    (r"sliding_window|attention_window", 8),
    (r"label_length", 3),
    (r"latent_query_num", 10),
    (r"(num_queries|num_query_tokens|num_latents|n_queries)", 10),
    (r"(prediction_length)", 6),
)

# What stays small even where widths keep their default.
_SHALLOW = re.compile(
    r"layers?$|merge_index|insert_layer_id|self_attends_per_block|depth|vocab|num_blocks|experts$|position|token_id|_id$|prediction_length"
)
_DEEP = re.compile(r"layer|depth|num_blocks")
# Widths that may be divided by one factor.
_WIDTHS = re.compile(
    r".*(size|dim|dims|d_model|d_ff|d_kv|n_embd|inner|width|widths|channels|rank|hidden_sizes|d_embed|rotary_ndims|conv_dim|size_global|filters)$"
)
_NO_WIDTH = re.compile(
    r".*(image|patch|vocab|window|kernel|chunk|stride|codebook|merge|tile|grid|mel|feature|batch|queue|block|num_channels"
    r"|in_channels|out_channels|in_chans|input|state|label|pool|memory|crop|group|cache|max|pos).*"
)


def number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def attribute(config: Any, name: str) -> Any:
    """An attribute, or None where it is missing or differs from layer to layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # what differs from layer to layer raises
        return None


def integer(name: str, known_as: str, value: int | None, effort: int, layers: int = DEPTH) -> int | None:
    """A small value for an integer attribute, also known by another name; None leaves it as it is."""
    if value is not None and value <= 0 and not re.search(r"_id$", name):
        return None
    for pattern, small in _INTEGERS:
        if not (re.fullmatch(pattern, name) or re.fullmatch(pattern, known_as)):
            continue
        if small == -1:
            return _token(name, value)
        small = layers if small == DEPTH and _DEEP.search(name) else small
        if effort > 3 or _SHALLOW.search(name):
            return small if value is None else min(value, small)
        break
    return _proportional(name, value) if effort == 3 else None


def _token(name: str, value: int | None) -> int | None:
    """An id inside the vocabulary; where there was none, one for padding and for what is not text."""
    if value is None:
        return (
            0
            if name.startswith("pad")
            else _token(name, VOCAB)
            if re.search("image|video|audio", name)
            else None
        )
    return value if value < VOCAB else VOCAB - 1 - sum(map(ord, name)) % 20


def _proportional(name: str, value: int | None) -> int | None:
    if value is None or value < 2 * _FACTOR or value % _FACTOR or not _WIDTHS.fullmatch(name):
        return None
    return None if _NO_WIDTH.fullmatch(name) else value // _FACTOR


def listed(name: str, value: Any, before: int, after: int, effort: int) -> Any:
    """A list attribute made to fit fewer layers and smaller widths; the same list when it says nothing known."""
    kind = type(value)
    whole = all(number(v) for v in value)
    if whole and re.search(r"token_ids?$|_token_id", name):
        return kind(_token(name, v) for v in value)
    if re.search(r"layer_types|layers_block_type|mlp_layer_types|attention_types", name):
        return kind(some_of_each(value, after or 2))
    if before > after and len(value) == before:  # one entry for each layer
        value = kind(some_of_each(value, after))
    elif whole and before > after and re.search(r"hook_ids|layer_ids|out_ind(ex|ic)es$", name):
        return kind(_layers(value, after))
    elif whole and before > after and re.search(r"ind(ex|ic)e?s|idxs?$|(global|local).*layers", name):
        return kind(sorted({min(v, after - 1) for v in value}))
    if not whole:
        return value
    if re.search(r"depths|num_blocks|layers_per|encoder_layers", name):
        return kind(min(v, 1) for v in value)
    if effort == 3:
        return kind(_proportional(name, v) or v for v in value)
    if effort == 4 and re.search(
        r"hidden_sizes|embed_dims|hidden_dims|conv_dim|encoder_hidden|embedding_dims|widths", name
    ):
        return kind(min(v, 16 * (i + 1)) for i, v in enumerate(value))
    if effort == 4 and re.search(r"num_heads|num_attention_heads|heads", name):
        return kind(min(v, 2) for v in value)
    if effort == 4 and re.search(r"intermediate_size|ffn_dim", name):
        return kind(min(v, 56) for v in value)
    return value


def _layers(value: Any, after: int) -> list[int]:
    """As many layers of the first `after`; some of them repeated when they are too few."""
    if len(value) <= after:
        return list(range(after - len(value), after))
    return [min(v, after - 1) for v in value]


# What else a network may need where its config says nothing.
_OPEN: dict[str, Any] = {
    "backbone": "resnet18",
    "clip_qkv": 8.0,
    "deepstack_layer_map": [[0, 0]],
    "downsample_rate": "1/2",
    "dropout": 0.0,
    "dropout_rate": 0.0,
    "model_args": {"depth": DEPTH, "embed_dim": 64, "num_heads": 4, "img_size": 64},
    "projector_scale_factors": [1.0],
    "rope_theta": 10_000.0,
    "vocabulary_map": {"<image>": VOCAB - 4, "<|extra_200|>": VOCAB - 5},
}


def filled(name: str, layers: int, kinds: list[str]) -> Any:
    """Something for an attribute that is None and no number; None when nothing is known."""
    if name == "layer_types":
        return ["full_attention"] * layers
    if name == "mlp_layer_types":
        return (["dense", "sparse"] * layers)[:layers]
    if name == "rope_parameters" and kinds:
        return {kind: {"rope_type": "default", "rope_theta": 10_000.0} for kind in kinds}
    return _OPEN.get(name)


def some_of_each(value: Any, count: int) -> list[Any]:
    """`count` entries with as many different ones as fit, in order of appearance."""
    kinds = [v for i, v in enumerate(value) if v not in value[:i]]
    return (kinds + list(value))[:count] if count >= len(kinds) else kinds[:count]


def agree(config: Any, small: dict[str, Any], effort: int) -> None:
    """Change values in `small` that others determine."""

    def now(*names: str) -> Any:
        return next((v for n in names if (v := small.get(n, attribute(config, n))) is not None), None)

    if "kv_lora_rank" in small and "num_key_value_heads" in small:
        small["num_key_value_heads"] = small["num_attention_heads"]  # latent attention: a key per query head
    if {"qk_rope_head_dim", "qk_nope_head_dim", "qk_head_dim"} <= set(small):
        small["qk_head_dim"] = small["qk_rope_head_dim"] + small["qk_nope_head_dim"]
    _state_space(small, now)
    for name in [n for n in vars(config) if re.search(r"_groups$", n)]:  # of channels, as many or fewer
        if number(groups := now(name)) and number(width := now("hidden_size")) and groups > 8:
            small[name] = math.gcd(groups, width)
    _rotary(config, small, now)


def _state_space(small: dict[str, Any], now: Any) -> None:
    """The heads of a state-space layer fill its inner width."""
    for heads, head, expand in (
        ("mamba_n_heads", "mamba_d_head", "mamba_expand"),
        ("n_mamba_heads", "mamba_headdim", "mamba_expand"),
        ("mamba_num_heads", "mamba_head_dim", "expand"),
        ("num_heads", "head_dim", "expand"),
    ):
        sizes = [now(heads), now(head), now(expand), now("hidden_size")]
        if not all(number(size) and size > 0 for size in sizes):
            continue
        inner = now("mamba_d_ssm") or sizes[2] * sizes[3]
        if "mamba_d_ssm" in small or number(now("mamba_d_ssm")):
            inner = small["mamba_d_ssm"] = sizes[2] * sizes[3]
        if heads in small and inner % sizes[1] == 0:
            small[heads] = inner // sizes[1]


def _rotary(config: Any, small: dict[str, Any], now: Any) -> None:
    """Sections of a rotary embedding over several axes fill half of what it turns of a head."""
    rope = now("rope_parameters", "rope_scaling")
    rope = dict(rope) if isinstance(rope, dict) else {}
    kinds = {k: v for k, v in rope.items() if isinstance(v, dict)} or {"": rope}  # one for each type of layer
    may = "mrope_section" in (getattr(config, "ignore_keys_at_rope_validation", None) or ())
    head = _head(config, small, now)
    if not head or not (may or any("mrope_section" in one for one in kinds.values())):
        return
    for name, one in kinds.items():
        turned = int(head * (one.get("partial_rotary_factor") or now("partial_rotary_factor") or 1.0)) // 2
        told = one.get("mrope_section") or ()
        parts = len(told) or 3
        sections = [turned // parts] * parts
        sections[-1 if len(set(told[:2])) < 2 else 0] += turned - sum(sections)
        kinds[name] = one | {"mrope_section": sections}
    small["rope_parameters"] = kinds[""] if "" in kinds else rope | kinds


def _head(config: Any, small: dict[str, Any], now: Any) -> int | None:
    """The width of a head: as declared, or what the hidden width leaves for each."""
    declared = {f.name for f in dataclasses.fields(config) if f.default is not None}
    if number(
        head := small.get("head_dim", attribute(config, "head_dim") if "head_dim" in declared else None)
    ):
        return int(head)
    heads, width = now("num_attention_heads"), now("hidden_size")
    return width // heads if number(heads) and number(width) else None
