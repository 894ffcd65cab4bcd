"""Networks of the gallery that have no alias: factories on the meta device, `tools/networks/gallery.py:vit`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Made = tuple[nn.Module, tuple[Any, ...]]


def _transformers(name: str, *inputs: Tensor, suffix: str = "Model", **fields: Any) -> Made:
    """A model of transformers at the sizes of its configuration's defaults."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**fields)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}{suffix}")(config).eval()
    return model, tuple(x.to("meta") for x in inputs)


def resnet50() -> Made:
    return _transformers("ResNet", torch.zeros(1, 3, 224, 224), suffix="ForImageClassification")


def vit() -> Made:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig()).eval(), (torch.zeros(1, 3, 224, 224),)


def swin() -> Made:
    from transformers import SwinConfig, SwinModel

    return SwinModel(SwinConfig()).eval(), (torch.zeros(1, 3, 224, 224),)


def llama_7b() -> Made:
    tokens = torch.zeros(1, 8, dtype=torch.long)
    return _transformers("Llama", tokens, suffix="ForCausalLM", use_cache=False)


class _Block(nn.Module):
    """GroupNorm, SiLU and a convolution, twice, beside a shortcut."""

    def __init__(self, width_in: int, width: int, groups: int = 8) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, width_in), nn.GroupNorm(groups, width)
        self.conv1, self.conv2 = (
            nn.Conv2d(width_in, width, 3, padding=1),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(functional.silu(self.norm2(y)))


class GroupNormUNet(nn.Module):
    """A denoising U-Net without attention: three resolutions, blocks with GroupNorm, skips concatenated."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip((width, *widths[:-1]), widths, strict=True))
        self.middle = _Block(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            _Block(a + b, b) for a, b in zip((widths[-1], *widths[:0:-1]), widths[::-1], strict=True)
        )
        self.norm = nn.GroupNorm(8, width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, kept = self.first(x), []
        for block in self.down:
            x = block(x)
            kept.append(x)
            x = functional.avg_pool2d(x, 2)
        x = self.middle(x)
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, kept.pop()], 1))
        return self.last(functional.silu(self.norm(x)))


class Attention(nn.Module):
    """One layer of self-attention between an input and an output projection: 4 heads of 8 channels."""

    def __init__(self, width: int = 24, heads: int = 4, size: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(10, width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, heads * size) for _ in range(3))
        self.out_proj = nn.Linear(heads * size, width)
        self.read = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.read(x + self.out_proj(mixed.transpose(1, 2).flatten(2)))


def attention() -> Made:
    return Attention().eval(), (torch.zeros(1, 5, 10),)


def unet() -> Made:
    return GroupNormUNet().eval(), (torch.zeros(1, 3, 32, 32),)


class OnsetDetector(nn.Module):
    """Three bidirectional recurrent layers over spectra, one probability per frame (madmom's onset detectors)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(266, 25, num_layers=3, nonlinearity="tanh", bidirectional=True)
        self.out = nn.Linear(50, 1)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.rnn(frames)[0]))


def onsets() -> Made:
    return OnsetDetector().eval(), (torch.zeros(7, 266),)
