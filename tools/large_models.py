"""Networks too large for most machines, as factories on the meta device: a plan needs no weights.

permgraph trace tools/large_models.py:llama_70b
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def llama_70b() -> tuple[nn.Module, tuple[Any, ...]]:
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
