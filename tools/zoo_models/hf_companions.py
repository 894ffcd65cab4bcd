"""Inputs that follow from others: masks, boxes, positions, a decoder's start, by their names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zoo_models.hf_facts import Facts

Given = dict[str, Tensor]
_Maker = Callable[[Given, Facts], list[Tensor]]

# Optional parameters that some networks do not run without.
OPTIONAL = (
    r"bbox|visual_feats|visual_pos|is_longer|image_embeds_position_mask|image_attention_mask|noise|noise_sequence"
    r"|input_features_mask|image_sizes|pixel_attention_mask|decoder_input_ids|padding_mask_videos|padding_mask"
    r"|feature_attention_mask|image_grid_thw|decoder_input_values|lang_ids|image|encoder_hidden_states"
)


def companions(names: list[str], main: Given, facts: Facts, blind: bool = False) -> list[Given]:
    """Values for all the names, given the main inputs; none when a name is not known.

    `blind` only asks whether the names are known.
    """
    makers = [next((make for pattern, make in _MAKERS if re.fullmatch(pattern, n)), None) for n in names]
    if any(make is None for make in makers):
        return []
    if blind:
        return [{}]
    torch.manual_seed(2)
    made = [make(main, facts) for make in makers if make is not None]
    return [dict(zip(names, values, strict=True)) for values in itertools.islice(_mixed(made), 8)]


def _mixed(made: list[list[Tensor]]) -> Iterator[tuple[Tensor, ...]]:
    yield from itertools.product(*made)


def _ids(main: Given) -> Tensor:
    return main.get("input_ids", torch.arange(3, 15)[None])


def _text_mask(main: Given, facts: Facts) -> list[Tensor]:
    return [torch.ones_like(_ids(main))]


def _boxes(main: Given, facts: Facts) -> list[Tensor]:
    """Boxes around words, as fractions and as whole numbers."""
    count = _ids(main).shape[1]
    places = torch.arange(count)[None, :, None] / count
    fractions = torch.cat([places * 0.5, places * 0.4, places * 0.5 + 0.3, places * 0.4 + 0.5], dim=-1)
    return [fractions, (fractions * 90).long()]


def _frames(main: Given) -> list[int]:
    """Possible numbers of frames of the sound that is given."""
    sound = next((v for n, v in main.items() if re.search(r"feature|audio|input_values", n)), None)
    return list(dict.fromkeys(sound.shape[1:])) if sound is not None else [16]


def _frame_mask(main: Given, facts: Facts) -> list[Tensor]:
    return [torch.ones(1, n, dtype=torch.long) for n in _frames(main)]


def _hidden(main: Given, facts: Facts) -> list[Tensor]:
    layers = len(facts.numbers("target_layer_ids", "layer_ids"))
    return [torch.randn(1, 8, width * n) for width in facts.widths() for n in dict.fromkeys((1, layers or 1))]


def _encoded(main: Given, facts: Facts) -> list[Tensor]:
    width = facts.get("encoder_hidden_size", "cross_attention_hidden_size", "hidden_size") or 32
    return [torch.randn(1, 9, width)]


def _pixels(main: Given) -> Tensor:
    return next((v for n, v in main.items() if "pixel" in n), torch.zeros(1, 3, 64, 64))


def _patch_mask(main: Given, facts: Facts) -> list[Tensor]:
    shape = _pixels(main).shape
    return [
        torch.ones(shape[0], shape[1], dtype=torch.long),
        torch.ones(shape[0], *shape[-2:], dtype=torch.long),
    ]


def _noise(main: Given, facts: Facts) -> list[Tensor]:
    if "input_features" in main:
        width = facts.get("model_in_channels") or 64
        return [torch.randn(1, n, width) for n in _frames(main)]
    patch = facts.get("patch_size") or 16
    shape = _pixels(main).shape
    return [torch.rand(1, (shape[-1] // patch) * (shape[-2] // patch))]


def _image_marks(main: Given, facts: Facts) -> list[Tensor]:
    """Where in the text the image goes."""
    ids = _ids(main)
    count = min(facts.get("latent_query_num", "image_seq_length", "num_query_tokens") or 1, ids.shape[1])
    return [(torch.arange(ids.shape[1])[None] < count).long()]


def _decoder(main: Given, facts: Facts) -> list[Tensor]:
    ids = torch.arange(3, 10)[None]
    channels = facts.get("num_channels", "num_codebooks")
    return [ids] + ([ids[..., None].repeat(1, 1, channels)] if channels else [])


def _visual(main: Given, facts: Facts) -> list[Tensor]:
    return [torch.randn(1, 6, facts.get("visual_feat_dim") or 32)]


def _image(main: Given, facts: Facts) -> list[Tensor]:
    return [torch.randn(shape) for shape in itertools.islice(facts.image_shapes(), 3)]


_MAKERS: tuple[tuple[str, _Maker], ...] = (
    (r"attention_mask|text_attention_mask|qformer_attention_mask", _text_mask),
    (r"tasks_(input_ids|attention_mask)", lambda main, facts: [torch.ones(1, 6, dtype=torch.long)]),
    (r"classes_(input_ids|attention_mask)", lambda main, facts: [torch.ones(3, 5, dtype=torch.long)]),
    (r"classes_structure", lambda main, facts: [torch.tensor([3])]),
    (r"bbox", _boxes),
    (r"qformer_input_ids|text_input_ids|input_ids", lambda main, facts: [_ids(main)]),
    (r"decoder_input_ids", _decoder),
    (r"task_inputs", lambda main, facts: [torch.arange(3, 3 + (facts.get("task_seq_len") or 12))[None]]),
    (r"visual_feats", _visual),
    (r"visual_pos", lambda main, facts: [torch.rand(1, 6, facts.get("visual_pos_dim") or 4)]),
    (r"is_longer", lambda main, facts: [torch.zeros(1, 1, dtype=torch.bool)]),
    (r"audio_mel_mask", lambda main, facts: [m.bool().logical_not() for m in _frame_mask(main, facts)]),
    (r"input_features_mask|feature_attention_mask|padding_mask", _frame_mask),
    (r"past_values_padding", lambda main, facts: [torch.zeros(main["past_values"].shape[:2])]),
    (r"freq", lambda main, facts: [torch.zeros(1, 1, dtype=torch.long)]),
    (r"pixel_attention_mask|pixel_mask", _patch_mask),
    (r"padding_mask_videos", lambda main, facts: [torch.ones(_pixels(main).shape[:2], dtype=torch.long)]),
    (r"prompt_pixel_values|prompt_masks", lambda main, facts: [torch.randn_like(_pixels(main))]),
    (r"image_sizes", lambda main, facts: [torch.tensor([list(_pixels(main).shape[-2:])])]),
    (r"image_embeds_position_mask", _image_marks),
    (r"image_attention_mask", lambda main, facts: [torch.ones(1, _ids(main).shape[1], 1, dtype=torch.long)]),
    (r"noise|noise_sequence", _noise),
    (r"encoder_hidden_states", _encoded),
    (r"lang_ids", lambda main, facts: [torch.zeros(1, dtype=torch.long)]),
    (r"image", _image),
    (r"(context_hidden_states|action_embeds|query_embeds|decoder_input_values)", _hidden),
)
