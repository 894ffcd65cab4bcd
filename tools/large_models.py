"""Networks as factories on the meta device, up to one that is too large for most machines: a plan needs no weights.

permgraph trace tools/large_models.py:llama_70b
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Source = tuple[nn.Module, tuple[Any, ...]]


def resnet50() -> Source:
    """ResNet-50, at 64 × 64 pixels."""
    from transformers import ResNetConfig, ResNetForImageClassification

    with torch.device("meta"):
        return ResNetForImageClassification(ResNetConfig(num_labels=1000)).eval(), (
            torch.zeros(1, 3, 64, 64),
        )


def hubert_base() -> Source:
    """HuBERT-base: 12 layers of 768; half a second of audio."""
    from transformers import HubertConfig, HubertModel

    with torch.device("meta"):
        return HubertModel(HubertConfig()).eval(), (torch.zeros(1, 8000),)


def hubert_xlarge() -> Source:
    """HuBERT-xlarge: 48 layers of 1280."""
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=48,
        num_attention_heads=16,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
    )
    with torch.device("meta"):
        return HubertModel(config).eval(), (torch.zeros(1, 8000),)


def whisper_large() -> Source:
    """The encoder of Whisper-large-v3: 32 layers of 1280, 128 mel channels."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, num_mel_bins=128
    )
    with torch.device("meta"):
        return WhisperEncoder(config).eval(), (torch.zeros(1, 128, 3000),)


def llama_7b() -> Source:
    """Llama 2 7B: 32 layers of 4096, 32 heads, 11008 feed-forward units."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(use_cache=False)).eval(), (torch.zeros(1, 8, dtype=torch.long),)


def llama_70b() -> Source:
    """Llama 3 70B: 80 layers of 8192, 64 query heads on 8 key heads, 28672 feed-forward units."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
        use_cache=False,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval(), (torch.zeros(1, 8, dtype=torch.long),)
