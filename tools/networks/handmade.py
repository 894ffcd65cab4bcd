"""Hand-made nets: one structure each, as small as shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.randomise import noise, randomise

Made = tuple[nn.Module, tuple[Any, ...]]


def made(build: Callable[[], nn.Module], *shape: int) -> Callable[[], Made]:
    """A factory: `build()` with random weights, and noise of `shape` as its input."""
    return lambda: (randomise(build()), (noise(*shape),))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 11), nn.Tanh(), nn.Linear(11, 3))


class ShuffleNet(nn.Module):
    """Two grouped 1×1 convolutions with a channel shuffle by view, transpose, reshape between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.first = nn.Conv2d(12, 18, 1, groups=3)
        self.depthwise = nn.Conv2d(18, 18, 3, groups=18)
        self.second = nn.Conv2d(18, 18, 1, groups=3)
        self.head = nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffle(F.relu(self.first(F.relu(self.stem(x)))))
        x = F.relu(self.second(self.depthwise(x)))
        return self.head(x.mean((2, 3)))

    def shuffle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)


class IndexShuffleNet(ShuffleNet):
    """The same shuffle, and nothing but a table says so: `index_select` by a constant buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(18).view(3, 6).T.reshape(-1), persistent=False)

    def shuffle(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order)


class DenseNet(nn.Module):
    """Each of three layers reads the concatenation of the input of the block and all layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(7 + 5 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(7 + 5 * i, 5, 3, padding=1) for i in range(3))
        self.head = nn.Linear(22, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            parts.append(conv(F.relu(norm(torch.cat(parts, 1)))))
        return self.head(torch.cat(parts, 1).mean((2, 3)))


class GLU(nn.Module):
    """A gated linear unit, in three spellings: `F.glu`, `chunk`, and separate gate and up projections."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        if spelling == "pair":
            self.gate, self.up = nn.Linear(5, 9), nn.Linear(5, 9)
        else:
            self.fused = nn.Linear(5, 18)
        self.down = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "pair":
            return self.down(F.silu(self.gate(x)) * self.up(x))
        if self.spelling == "chunk":
            gate, up = self.fused(x).chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)
        return self.down(F.glu(self.fused(x), dim=-1))


class ConvNet(nn.Module):
    """Layers over (1, 3, 8, 8), then the mean over space and a linear head."""

    def __init__(self, channels: int, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


def grouped_conv() -> nn.Module:
    """The middle convolution has 3 groups, of 4 channels in and 6 out."""
    layers = (nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 18, 3, groups=3), nn.ReLU(), nn.Conv2d(18, 10, 1))
    return ConvNet(10, *layers, nn.ReLU())


def depthwise_conv() -> nn.Module:
    """Depthwise separable, once with one and once with two outputs per channel."""
    layers = (nn.Conv2d(3, 9, 1), nn.Conv2d(9, 9, 3, groups=9), nn.ReLU(), nn.Conv2d(9, 11, 1), nn.ReLU())
    return ConvNet(10, *layers, nn.Conv2d(11, 22, 3, groups=11), nn.ReLU(), nn.Conv2d(22, 10, 1), nn.ReLU())


def transposed_conv(groups: int) -> nn.Module:
    layers = (
        nn.Conv2d(3, 12, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 18, 2, stride=2, groups=groups),
        nn.ReLU(),
    )
    return ConvNet(10, *layers, nn.Conv2d(18, 10, 3), nn.ReLU())


def group_norm() -> nn.Module:
    """GroupNorm over 3 groups of 4 channels: S3 ≀ S4."""
    return ConvNet(10, nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.ReLU())


def batch_norm() -> nn.Module:
    layers = (nn.Conv2d(3, 9, 3, bias=False), nn.BatchNorm2d(9), nn.ReLU(), nn.MaxPool2d(2))
    return ConvNet(11, *layers, nn.Conv2d(9, 11, 3, bias=False), nn.BatchNorm2d(11), nn.ReLU())


class FusedAttention(nn.Module):
    """Self-attention whose q, k, v come from one projection, read in one of four layouts."""

    def __init__(self, layout: str, width: int = 10, heads: int = 3, channels: int = 4) -> None:
        super().__init__()
        self.layout, self.heads, self.channels = layout, heads, channels
        self.qkv = nn.Linear(width, 3 * heads * channels)
        self.out = nn.Linear(heads * channels, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (part.transpose(1, 2) for part in self.split(self.qkv(x)))
        weights = (q @ k.transpose(-1, -2) * self.channels**-0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, self.heads * self.channels))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k and v, each (b, t, h, d)."""
        b, t, _ = x.shape
        h, d = self.heads, self.channels
        if self.layout == "3hd":  # ViT
            return x.reshape(b, t, 3, h, d).unbind(2)
        if self.layout == "h3d":  # GPT-NeoX
            return x.reshape(b, t, h, 3 * d).chunk(3, dim=-1)
        if self.layout == "hd3":
            return x.reshape(b, t, h, d, 3).unbind(-1)
        return tuple(part.reshape(b, t, h, d) for part in x.chunk(3, dim=-1))


class PackedAttention(nn.Module):
    """`nn.MultiheadAttention`: one in_proj_weight for q, k and v, inside a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.norm(x + mixed))


class TiedLanguageModel(nn.Module):
    """The embedding table is also the matrix of the head: one parameter, two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 8)
        self.up, self.down = nn.Linear(8, 11), nn.Linear(11, 8)
        self.head = nn.Linear(8, 13, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.down(F.gelu(self.up(x))))


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder transposed: `weight` is read under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(7, 9)
        self.decoder_weight = self.encoder.weight
        self.decoder_bias = nn.Parameter(torch.zeros(7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x)) @ self.decoder_weight + self.decoder_bias


class SharedTwice(nn.Module):
    """One linear layer, called twice: its output units are its input units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = nn.Linear(5, 9), nn.Linear(9, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.shared(F.relu(self.shared(x)))))


class WeightNorm(nn.Module):
    """Weight norm over outputs, and over taps (as in HuBERT); as two tensors or as parametrizations."""

    def __init__(self, apply: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.stem = apply(nn.Conv1d(3, 9, 3), dim=0)
        self.taps = apply(nn.Conv1d(9, 12, 3, groups=3), dim=2)
        self.head = apply(nn.Linear(12, 4), dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.taps(F.relu(self.stem(x)))).mean(-1))


class Block(nn.Module):
    """A CIFAR residual block; the shortcut halves space by striding and pads the channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            before = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """ResNet-20 for CIFAR (He et al., 2016, §4.2, option A), 6, 10, 16 channels wide, two blocks a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.layer1 = nn.Sequential(Block(6, 6, 1), Block(6, 6, 1))
        self.layer2 = nn.Sequential(Block(6, 10, 2), Block(10, 10, 1))
        self.layer3 = nn.Sequential(Block(10, 16, 2), Block(16, 16, 1))
        self.linear = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class MatrixProduct(nn.Module):
    """Weights used as `x @ W`: rows are inputs, columns outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.empty(5, 9)), nn.Parameter(torch.empty(9))
        self.w2, self.w3 = nn.Parameter(torch.empty(9, 11)), nn.Parameter(torch.empty(4, 11))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x @ self.w1 + self.b1)
        return F.relu(torch.matmul(x, self.w2)) @ self.w3.T


class FlattenHead(nn.Module):
    """Channels × space, flattened into a linear layer: a channel owns 16 columns there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 7, 3), nn.Conv2d(7, 9, 3)
        self.hidden, self.head = nn.Linear(9 * 16, 11), nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.head(F.relu(self.hidden(x.flatten(1))))


def tied_language_model() -> Made:
    return randomise(TiedLanguageModel()), (torch.tensor([[3, 1, 4, 12, 5]]),)


IMAGE = (1, 3, 8, 8)
SEQUENCE = (1, 6, 10)

HANDMADE: dict[str, Callable[[], Made]] = {
    "mlp": made(mlp, 2, 5),
    "shufflenet": made(ShuffleNet, *IMAGE),
    "shuffle_by_index": made(IndexShuffleNet, *IMAGE),
    "densenet": made(DenseNet, *IMAGE),
    "glu": made(lambda: GLU("glu"), 2, 5),
    "glu_chunk": made(lambda: GLU("chunk"), 2, 5),
    "glu_pair": made(lambda: GLU("pair"), 2, 5),
    "grouped_conv": made(grouped_conv, *IMAGE),
    "depthwise_conv": made(depthwise_conv, *IMAGE),
    "transposed_conv": made(lambda: transposed_conv(1), *IMAGE),
    "transposed_grouped_conv": made(lambda: transposed_conv(3), *IMAGE),
    "group_norm": made(group_norm, *IMAGE),
    "batch_norm": made(batch_norm, *IMAGE),
    "qkv_3hd": made(lambda: FusedAttention("3hd"), *SEQUENCE),
    "qkv_h3d": made(lambda: FusedAttention("h3d"), *SEQUENCE),
    "qkv_hd3": made(lambda: FusedAttention("hd3"), *SEQUENCE),
    "qkv_chunk": made(lambda: FusedAttention("chunk"), *SEQUENCE),
    "multihead_attention": made(PackedAttention, 1, 6, 5),
    "tied_language_model": tied_language_model,
    "tied_autoencoder": made(TiedAutoencoder, 2, 7),
    "shared_twice": made(SharedTwice, 2, 5),
    "weight_norm": made(lambda: WeightNorm(nn.utils.weight_norm), 1, 3, 12),
    "weight_norm_parametrized": made(lambda: WeightNorm(nn.utils.parametrizations.weight_norm), 1, 3, 12),
    "cifar_resnet": made(CifarResNet, *IMAGE),
    "matrix_product": made(MatrixProduct, 2, 5),
    "flatten_head": made(FlattenHead, *IMAGE),
}
