"""Example inputs for any network of transformers, by the names in the signature of its `forward`.

One or two names carry the data (text, an image, sound, …); what else `forward` requires follows from these.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo_models.hf_companions import OPTIONAL, companions
from zoo_models.hf_facts import Facts

Inputs = dict[str, Tensor]
_MODALITIES = ("pixel_values", "pixel_values_videos", "input_values", "input_features")


def inputs(net: nn.Module) -> Iterator[Inputs]:
    """Keyword inputs to try."""
    parameters = [
        p
        for p in inspect.signature(net.forward).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    names = [p.name for p in parameters]
    required = [p.name for p in parameters if p.default is p.empty]
    facts = Facts(net.config)
    optional = [n for n in names if re.fullmatch(OPTIONAL, n) and companions([n], {}, facts, blind=True)]
    mains = list(_mains(net, names, required, facts))
    for wanted in ([], optional) if optional else ([],):
        for main in mains:
            missing = [n for n in dict.fromkeys((*required, *wanted)) if n not in main]
            if wanted and not set(missing) & set(wanted):
                continue  # tried before
            for more in companions(missing, main, facts):
                yield main | more


def with_tokens(found: Inputs, config: Any, error: str) -> Inputs | None:
    """The same with as many placeholder tokens in the text as the error says an image, video or sound has."""
    told = re.search(r"(Image|Video|Audio)\w* features .*tokens: 0, features:? (\d+)", error, re.I)
    if not told or "input_ids" not in found:
        return None
    what, count = told[1].lower(), int(told[2])
    marks = [getattr(config, f"{what}_token{end}", None) for end in ("_id", "_index")]
    mark = next((m for m in marks if isinstance(m, int)), None)
    if mark is None or count > 2000:
        return None
    ids = found["input_ids"]
    longer = torch.cat([ids[:, :2], torch.full((1, count), mark), ids[:, 2:]], dim=1)
    changed = {"input_ids": longer}
    if "attention_mask" in found:
        changed["attention_mask"] = torch.ones_like(longer)
    return found | changed


def _mains(net: nn.Module, names: list[str], required: list[str], facts: Facts) -> Iterator[Inputs]:
    """The inputs that carry the data."""
    ids = torch.arange(3, 15).remainder(90)[None]
    groups: list[list[Inputs]] = [list(_patches(names, facts)), _text(names, ids, facts)]
    groups += [_tried(n, names, facts) for n in _MODALITIES]
    known = {n for group in groups for found in group for n in found}
    main = getattr(net, "main_input_name", "")
    others = [*([main] if isinstance(main, str) else main), *required]
    for name in dict.fromkeys(others):
        if name in names and name not in known and not companions([name], {}, facts, blind=True):
            groups.append(_tried(name, names, facts))
    groups = [g for g in groups if g]
    yield from _series(names, facts)
    more: Inputs = {"decoder_input_ids": ids[:, :7]} if "decoder_input_ids" in names else {}
    for group in groups:  # one modality alone
        for found in group:
            yield found
            if more and "decoder_input_ids" not in found:
                yield found | more
    for first, second in itertools.combinations(groups, 2):  # two together
        for a, b in itertools.product(first, second):
            yield a | b
    if not groups:
        yield {}


def _text(names: list[str], ids: Tensor, facts: Facts) -> list[Inputs]:
    if "input_ids" not in names:
        return []
    text: list[Inputs] = [{"input_ids": ids}]
    if "decoder_input_ids" in names:
        channels = facts.get("num_channels", "num_codebooks")
        text = [{"input_ids": ids, "decoder_input_ids": ids[:, :7]}]
        if "attention_mask" in names:
            text = [t | {"attention_mask": torch.ones_like(ids)} for t in text] + text
        if channels:
            text.append({"input_ids": ids, "decoder_input_ids": ids[:, :7, None].repeat(1, 1, channels)})
    elif channels := facts.get("num_codebooks"):
        text += [{"input_ids": ids[:, :, None].repeat(1, 1, channels + n)} for n in (0, 1)]
    return text


def _series(names: list[str], facts: Facts) -> Iterator[Inputs]:
    """A series in time, or a trajectory of states and actions."""
    if "states" in names:
        sizes = {"states": facts.get("state_dim"), "actions": facts.get("act_dim")}
        yield {
            **{n: torch.randn(1, 5, size or 4) for n, size in sizes.items()},
            "rewards": torch.randn(1, 5, 1),
            "returns_to_go": torch.randn(1, 5, 1),
            "timesteps": torch.arange(5)[None],
        }
    if "past_values" in names:
        length = facts.get("context_length", "prediction_length") or 32
        lags = max(facts.numbers("lags_sequence") or [0])
        channels = facts.get("num_input_channels", "input_size") or 1
        if "past_time_features" not in names:
            yield {"past_values": torch.randn(1, length, channels)}
            yield {"past_values": torch.randn(1, length)}
        else:
            ahead = facts.get("prediction_length") or 6
            width = facts.get("num_time_features") or 0
            yield {
                "past_values": torch.randn(1, length + lags),
                "past_time_features": torch.randn(1, length + lags, width),
                "past_observed_mask": torch.ones(1, length + lags),
                "future_values": torch.randn(1, ahead),
                "future_time_features": torch.randn(1, ahead, width),
            }


def _patches(names: list[str], facts: Facts) -> Iterator[Inputs]:
    """An image as its flattened patches, beside the grid they fill."""
    grid = next((n for n in names if n.endswith("grid_thw")), None)
    places = next((n for n in names if re.search(r"pixel_position_ids|spatial_shapes|target_sizes", n)), None)
    data = next((n for n in ("pixel_values", "hidden_states") if n in names), None)
    if data is None or (grid is None and places is None):
        return
    for side in dict.fromkeys((2 * facts.merge(), 4, 8)):
        sides = torch.tensor([[side, side]])
        told: Inputs = {} if grid is None else {grid: torch.tensor([[1, side, side]])}
        if "merge_sizes" in names:
            told["merge_sizes"] = torch.tensor([facts.merge()])
        if places == "pixel_position_ids":
            told[places] = torch.cartesian_prod(torch.arange(side), torch.arange(side))[None].flip(-1)
        elif places:
            told[places] = sides
        for shape in facts.patch_shapes(side * side, batched=grid is None):
            yield {data: torch.randn(shape)} | told


def _tried(name: str, names: list[str], facts: Facts) -> list[Inputs]:
    if name not in names:
        return []
    torch.manual_seed(1)
    return [{name: torch.randn(*shape)} for shape in dict.fromkeys(_shapes(name, facts))]


def _shapes(name: str, facts: Facts) -> Iterator[tuple[int, ...]]:
    if "pixel" in name or "image" in name:
        yield from facts.image_shapes()
    elif name == "latents" or name.endswith("embeds") or name.endswith("states"):
        for width in facts.widths():
            yield (1, 8, width)
            yield (1, width, 8)
        yield from facts.sound_shapes(name)
    else:
        yield from facts.sound_shapes(name)
