"""The encoder (a HuBERT in miniature), its prediction head, and the folder it is saved to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from permgraph.atomic_write import replacing
from permgraph.errors import UsageError
from permgraph.inputs.synthetic import RATE

RECIPE = "recipe.json"
CODE = 64  # width of the space in which features meet the clusters' codes
TEMPERATURE = 0.1


KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of HuBERT's seven convolutions
FEWER_KERNELS, FEWER_STRIDES = (10, 5, 4, 3, 3), (5, 4, 4, 2, 2)  # as many samples a frame in five


def small_config(
    hidden: int = 128, layers: int = 3, channels: int = 64, convs: Sequence[int] = (), ffn: int = 0
) -> HubertConfig:
    """hubert-base in miniature: the same kinds of layers, 50 frames a second.

    convs   channels of each of HuBERT's seven convolutions; without them there are five of `channels` each
    ffn     units between the two linear layers of a block; 0 for three times `hidden`
    """
    if convs and len(convs) != len(KERNELS):
        raise UsageError(f"convs: {len(convs)} numbers; HuBERT has {len(KERNELS)} convolutions.")
    return HubertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=ffn or 3 * hidden,
        conv_dim=tuple(convs) or (channels,) * 5,
        conv_kernel=KERNELS if convs else FEWER_KERNELS,
        conv_stride=STRIDES if convs else FEWER_STRIDES,
        conv_bias=False,
        feat_extract_norm="group",
        feat_proj_dropout=0.0,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
    )


@dataclass(frozen=True)
class Predicted:
    """logits of clusters, (batch, frames, clusters); vectors, (batch, frames, width), from the last layer, and early ones
    from the convolutions."""

    logits: list[Tensor]
    vectors: list[Tensor]
    early: list[Tensor]


class Predictor(nn.Module):
    """The encoder, and a head for each thing that is predicted. The encoder's weights are drawn first, and so are a
    function of the random state alone, whatever is predicted.

    clusters   number of clusters of each target that is one (HuBERT, Eq. 3)
    widths     width of each target that is a vector
    """

    def __init__(self, config: HubertConfig, clusters: Sequence[int], widths: Sequence[int] = ()) -> None:
        super().__init__()
        self.encoder = HubertModel(config)
        self.codes = nn.ModuleList(Codes(config.hidden_size, count) for count in clusters)
        self.vectors = nn.ModuleList(nn.Linear(config.hidden_size, width) for width in widths)
        self.early = nn.ModuleList(nn.Linear(config.hidden_size, width) for width in widths)

    def forward(self, audio: Tensor, mask: Tensor) -> Predicted:
        """(batch, samples), (batch, frames) bool → what each head says."""
        front, last = self.hidden(audio, mask)
        return Predicted(
            [head(last) for head in self.codes],
            [head(last) for head in self.vectors],
            [head(front) for head in self.early],
        )

    def hidden(self, audio: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolutions give, projected and not masked, and the last layer: (batch, frames, hidden) each.

        As the encoder's own forward, which does not give the first.
        """
        front = self.encoder.feature_projection(self.encoder.feature_extractor(audio).transpose(1, 2))
        masked = torch.where(mask[..., None], self.encoder.masked_spec_embed, front)
        return front, self.encoder.encoder(masked).last_hidden_state


class Codes(nn.Module):
    """Cosine similarity of the projected features to one code per cluster."""

    def __init__(self, hidden: int, clusters: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden, CODE)
        self.codes = nn.Parameter(torch.randn(clusters, CODE))

    def forward(self, hidden: Tensor) -> Tensor:
        features = nn.functional.normalize(self.project(hidden), dim=-1)
        return features @ nn.functional.normalize(self.codes, dim=-1).T / TEMPERATURE


def save_encoder(encoder: HubertModel, out: Path, recipe: dict[str, Any], half: bool, force: bool) -> None:
    """Write a Hugging Face folder, whole or not at all: config, weights, preprocessor, recipe.

    half   store the weights in 16 bits; the config still says float32, so they are computed with in 32
    Raises FileError when `out` is there and `force` is not set, or holds something else.
    """
    encoder = encoder.cpu().eval()
    state = encoder.state_dict()
    if half:
        state = {name: tensor.half() for name, tensor in state.items()}
    with replacing(out, folder=True, force=force, mark=RECIPE) as partial:
        logging.disable_progress_bar()
        encoder.save_pretrained(partial, state_dict=state)
        for file in partial.iterdir():
            shutil.copymode(partial, file)  # safetensors makes its files readable to their owner alone
            file.chmod(file.stat().st_mode & 0o666)
        Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True).save_pretrained(partial)
        (partial / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")
