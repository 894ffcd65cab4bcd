"""Stable Diffusion 1.5's U-Net and autoencoder (Rombach et al., 2022), with the tensor names of its checkpoints."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """A residual block that adds a projection of the time embedding between its convolutions."""

    def __init__(self, a: int, b: int, embedding: int = 1280) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, b))
        last = nn.Conv2d(b, b, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, b), nn.SiLU(), nn.Dropout(), last)
        self.skip_connection = nn.Identity() if a == b else nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        y = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(y)


class CrossAttention(nn.Module):
    """8 heads; keys and values from the context, or from the queries' own sequence."""

    def __init__(self, width: int, context: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(context, width, bias=False), nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """The value half times the GELU of the gate half."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = CrossAttention(width, width), CrossAttention(width, context)
        self.ff = nn.ModuleDict(
            {"net": nn.Sequential(GEGLU(width, 4 * width), nn.Dropout(), nn.Linear(4 * width, width))}
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff["net"](self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width: int, context: int = 768) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width)
        self.proj_in, self.proj_out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context)])

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        y = self.proj_in(self.norm(x))
        b, c, h, w = y.shape
        y = self.transformer_blocks[0](y.flatten(2).transpose(1, 2), context)
        return x + self.proj_out(y.transpose(1, 2).reshape(b, c, h, w))


class Resize(nn.Module):
    """Halve by a strided convolution (`op`), or double and convolve (`conv`)."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__()
        self.doubles = name == "conv"
        setattr(self, name, nn.Conv2d(width, width, 3, 1 if self.doubles else 2, padding=1))

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0)) if self.doubles else self.op(x)


class UNet(nn.Module):
    """Four levels of 320, 640, 1280, 1280 channels; attention in the first three."""

    def __init__(self) -> None:
        super().__init__()
        widths = (320, 640, 1280, 1280)
        self.time_embed = nn.Sequential(nn.Linear(320, 1280), nn.SiLU(), nn.Linear(1280, 1280))
        before, stack = 320, [320]
        inputs: list[nn.Module] = [nn.ModuleList([nn.Conv2d(4, 320, 3, padding=1)])]
        for level, width in enumerate(widths):
            for _ in range(2):
                inputs.append(self.block(before, width, level < 3))
                before = width
                stack.append(before)
            if level < 3:
                inputs.append(nn.ModuleList([Resize(width, "op")]))
                stack.append(before)
        self.input_blocks: Any = nn.ModuleList(inputs)
        self.middle_block = nn.ModuleList(
            [ResBlock(1280, 1280), SpatialTransformer(1280), ResBlock(1280, 1280)]
        )
        outputs = []
        for level, width in reversed(list(enumerate(widths))):
            for i in range(3):
                block = self.block(before + stack.pop(), width, level < 3)
                before = width
                outputs.append(block.append(Resize(width, "conv")) if level and i == 2 else block)
        self.output_blocks: Any = nn.ModuleList(outputs)
        self.out = nn.Sequential(nn.GroupNorm(32, 320), nn.SiLU(), nn.Conv2d(320, 4, 3, padding=1))

    def block(self, a: int, b: int, attends: bool) -> nn.ModuleList:
        return nn.ModuleList([ResBlock(a, b), *([SpatialTransformer(b)] if attends else [])])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        embedding = self.time_embed(time)
        x, kept = self.input_blocks[0][0](x), []
        kept.append(x)
        for block in self.input_blocks[1:]:
            for layer in block:
                x = layer(x, embedding, context)
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, embedding, context)
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], 1)
            for layer in block:
                x = layer(x, embedding, context)
        return self.out(x)


class VaeBlock(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, a), nn.GroupNorm(32, b)
        self.conv1, self.conv2 = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        if a != b:
            self.nin_shortcut = nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VaeAttention(nn.Module):
    """One head over all places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).flatten(2) for part in (self.q, self.k, self.v))
        weights = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(-1)
        return x + self.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))


class VaeResize(nn.Module):
    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(width, width, 3, 1 if up else 2, padding=int(up))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else F.pad(x, (0, 1, 0, 1)))


class VaeHalf(nn.Module):
    """The encoder, or with `up` the decoder."""

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        widths = (128, 256, 512, 512)
        self.up_, width = up, 512 if up else 128
        self.conv_in = nn.Conv2d(inputs, width, 3, padding=1)
        levels = []
        for level in reversed(range(4)) if up else range(4):
            blocks = []
            for _ in range(3 if up else 2):
                blocks.append(VaeBlock(width, widths[level]))
                width = widths[level]
            stage = nn.ModuleDict({"block": nn.ModuleList(blocks)})
            if level != (0 if up else 3):
                stage["upsample" if up else "downsample"] = VaeResize(width, up)
            levels.append(stage)
        setattr(self, "up" if up else "down", nn.ModuleList(levels[::-1] if up else levels))
        middle = (VaeBlock(512, 512), VaeAttention(512), VaeBlock(512, 512))
        self.mid = nn.ModuleDict(zip(("block_1", "attn_1", "block_2"), middle, strict=True))
        self.norm_out = nn.GroupNorm(32, 128 if up else 512)
        self.conv_out = nn.Conv2d(128 if up else 512, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        x = self.middle(x) if self.up_ else x
        for stage in reversed(self.up) if self.up_ else self.down:
            for block in stage["block"]:
                x = block(x)
            for name in ("upsample", "downsample"):
                x = stage[name](x) if name in stage else x
        x = x if self.up_ else self.middle(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def middle(self, x: Tensor) -> Tensor:
        for layer in self.mid.values():
            x = layer(x)
        return x


class AutoencoderKL(nn.Module):
    """Image to the mean of its latent, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = VaeHalf(3, 8, False), VaeHalf(4, 3, True)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.quant_conv(self.encoder(x)).chunk(2, dim=1)[0]
        return self.decoder(self.post_quant_conv(mean))
