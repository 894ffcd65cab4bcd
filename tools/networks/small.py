"""Small configurations of the architectures in transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from networks.randomise import noise, randomise, tokens

Made = tuple[nn.Module, tuple[Any, ...]]
Factory = Callable[[], Made]

VOCABULARY = 31

ENCODER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layerdrop": 0.0,
}
AUDIO = ENCODER | {
    "conv_dim": (10, 14, 18),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "feat_proj_dropout": 0.0,
    "feat_quantizer_dropout": 0.0,
    "final_dropout": 0.0,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# dropped where a config class has no such field
OPTIONAL = {*AUDIO, "use_cache", "image_size"}


def config(name: str, **fields: Any) -> Any:
    """A transformers config; shared fields that this class does not know are left out."""
    cls = getattr(transformers, f"{name}Config")
    known = cls()
    fields = {k: v for k, v in fields.items() if k not in OPTIONAL or hasattr(known, k)}
    return cls(**fields)


def build(name: str, suffix: str = "Model", **fields: Any) -> nn.Module:
    """`{name}{suffix}` with random weights."""
    torch.manual_seed(0)
    return randomise(getattr(transformers, name + suffix)(config(name, **fields)))


def audio(name: str, **fields: Any) -> Factory:
    """A speech encoder over a raw waveform of 400 samples, about 18 frames."""
    return lambda: (build(name, **(AUDIO | fields)), (noise(1, 400),))


def text(name: str, suffix: str = "Model", **fields: Any) -> Factory:
    shared = {"vocab_size": VOCABULARY, "use_cache": False}
    return lambda: (
        build(name, suffix, **(ENCODER | shared | fields)),
        (tokens(1, 7, vocabulary=VOCABULARY),),
    )


def vision(name: str, size: int = 32, **fields: Any) -> Factory:
    return lambda: (build(name, image_size=size, **fields), (noise(1, 3, size, size),))


def wav2vec2_bert() -> Made:
    fields = {
        "feature_projection_input_dim": 20,
        "conv_depthwise_kernel_size": 5,
        "left_max_position_embeddings": 4,
        "right_max_position_embeddings": 3,
        "conformer_conv_dropout": 0.0,
    }
    return build("Wav2Vec2Bert", **(AUDIO | fields)), (noise(1, 11, 20),)


def whisper_encoder() -> Made:
    model = build(
        "Whisper",
        d_model=24,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        num_mel_bins=20,
        max_source_positions=11,
        max_target_positions=8,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
        dropout=0.0,
    )
    return model.encoder, (noise(1, 20, 22),)


def ast() -> Made:
    fields = {"num_mel_bins": 20, "max_length": 26, "patch_size": 8, "time_stride": 6, "frequency_stride": 6}
    return build("AST", **(ENCODER | fields)), (noise(1, 26, 20),)


def t5_encoder() -> Made:
    sizes = {"d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 2, "num_heads": 3, "vocab_size": VOCABULARY}
    model = build("T5", "EncoderModel", **sizes, relative_attention_num_buckets=8, dropout_rate=0.0)
    return model, (tokens(1, 7, vocabulary=VOCABULARY),)


def resnet(layer_type: str, hidden_sizes: list[int]) -> Factory:
    return vision(
        "ResNet", layer_type=layer_type, embedding_size=14, hidden_sizes=hidden_sizes, depths=[2, 2, 1]
    )


GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 16, "n_inner": 40}
GPT2 |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "hidden_size": 36}

SMALL: dict[str, Factory] = {
    "hubert": audio("Hubert"),
    "hubert_layer": audio("Hubert", **STABLE),
    "wav2vec2": audio("Wav2Vec2"),
    "wav2vec2_layer": audio("Wav2Vec2", **STABLE),
    "wavlm": audio("WavLM", num_buckets=8, max_bucket_distance=12),
    "data2vec_audio": audio("Data2VecAudio", conv_pos_kernel_size=5, num_conv_pos_embeddings=2),
    "unispeech_sat": audio("UniSpeechSat"),
    "sew": audio("SEW", squeeze_factor=2),
    "wav2vec2_conformer_relative": audio(
        "Wav2Vec2Conformer", position_embeddings_type="relative", conv_depthwise_kernel_size=5
    ),
    "wav2vec2_conformer_rotary": audio(
        "Wav2Vec2Conformer", position_embeddings_type="rotary", conv_depthwise_kernel_size=5
    ),
    "wav2vec2_bert": wav2vec2_bert,
    "whisper_encoder": whisper_encoder,
    "ast": ast,
    "bert": text("Bert", max_position_embeddings=16),
    "gpt2": text("GPT2", **GPT2),
    "gpt2_lm": text("GPT2", "LMHeadModel", **GPT2),  # embedding and head are one tensor
    "llama_gqa": text("Llama", **LLAMA, max_position_embeddings=16),
    "llama_gqa_lm": text("Llama", "ForCausalLM", **LLAMA, max_position_embeddings=16),
    "t5_encoder": t5_encoder,
    "vit": vision("ViT", **ENCODER, patch_size=8),
    "swin": vision(
        "Swin", patch_size=4, window_size=4, embed_dim=24, depths=[2, 2], num_heads=[3, 4], drop_path_rate=0.0
    ),
    "resnet_basic": resnet("basic", [14, 18, 22]),
    "resnet_bottleneck": resnet("bottleneck", [16, 24, 32]),
    "convnext": vision(
        "ConvNext",
        patch_size=4,
        hidden_sizes=[12, 16, 20],
        depths=[1, 2, 1],
        num_stages=3,
        drop_path_rate=0.0,
    ),
    "mobilenet_v2": vision("MobileNetV2", depth_multiplier=0.25, expand_ratio=3, tf_padding=True),
    "efficientnet": vision(
        "EfficientNet",
        in_channels=[32, 16, 24],
        out_channels=[16, 24, 40],
        kernel_sizes=[3, 3, 5],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 2],
        expand_ratios=[1, 3, 3],
        depthwise_padding=[],
        depth_divisor=4,
        width_coefficient=0.25,
        depth_coefficient=1.0,
        hidden_dim=320,
        drop_connect_rate=0.0,
        dropout_rate=0.0,
    ),
}
