"""The reference networks of specs/known, small in words and of full size: they live on the meta device.

`NETWORKS[name]()` returns (module, example inputs). Structures and tensor names follow the published
definitions: torchvision's names for its networks, and one's own where the source is written for another framework.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from tests.linter.diffusion import AutoencoderKL, UNet

Made = tuple[nn.Module, tuple[Any, ...]]


def on_meta(build: Callable[[], nn.Module], *shape: int) -> Callable[[], Made]:
    """`build()` without weights, and an input of `shape`."""

    def made() -> Made:
        with torch.device("meta"):
            return build().eval(), (torch.zeros(shape),)

    return made


# -- plain networks --------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    """Git Re-Basin's: three hidden layers of 512."""
    widths = (784, 512, 512, 512, 10)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an image, as flax does it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ReBasinVGG16(nn.Module):
    """13 convolutions with LayerNorm; 32 × 32 images are 1 × 1 before the dense layers."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *(w for w in VGG16 if w))
        pairs = list(itertools.pairwise(widths))
        self.conv = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.norm = nn.ModuleList(ChannelNorm(b) for _, b in pairs)
        self.dense = nn.ModuleList((nn.Linear(512, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 10)))

    def forward(self, x: Tensor) -> Tensor:
        index = 0
        for width in VGG16:
            if not width:
                x = F.max_pool2d(x, 2)
                continue
            x = F.relu(self.norm[index](self.conv[index](x)))
            index += 1
        x = x.flatten(1)
        return self.dense[2](F.relu(self.dense[1](F.relu(self.dense[0](x)))))


class VGG(nn.Module):
    """torchvision's features; the classifier is one linear layer (ZipIt) or torchvision's three."""

    def __init__(self, widths: tuple[int, ...], norm: bool, classifier: nn.Module, pool: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            if not width:
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(before, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers.append(nn.ReLU())
            before = width
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(pool)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def dense(inputs: int) -> nn.Module:
    dropped = (
        nn.Linear(inputs, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
    )
    return nn.Sequential(*dropped, nn.Linear(4096, 1000))


class AlexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = (nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2))
        second = (nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        third = (nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU())
        last = (nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.features = nn.Sequential(*first, *second, *third, *last)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        wide = (nn.Linear(256 * 36, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(), *wide, nn.Linear(4096, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


# -- residual networks -----------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """Basic (two 3×3) or bottleneck (1×1, 3×3, 1×1) block; a projection where the shape changes."""

    def __init__(
        self, widths: tuple[int, ...], stride: int, norm: type[nn.Module], names: tuple[str, str]
    ) -> None:
        super().__init__()
        self.count, self.names = len(widths) - 1, names
        for i, (a, b) in enumerate(itertools.pairwise(widths), 1):
            size = 3 if len(widths) == 3 or i == 2 else 1
            step = stride if i == (1 if len(widths) == 3 else 2) else 1
            setattr(self, f"conv{i}", nn.Conv2d(a, b, size, step, padding=size // 2, bias=False))
            setattr(self, f"{names[0]}{i}", norm(b))
        short = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
        changes = widths[0] != widths[-1] or stride > 1
        setattr(self, names[1], nn.Sequential(short, norm(widths[-1])) if changes else None)

    def forward(self, x: Tensor) -> Tensor:
        short = getattr(self, self.names[1])
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"{self.names[0]}{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if short is None else short(x)))


class ResNet(nn.Module):
    """torchvision's ResNet for images, or with `small` the one for CIFAR: three stages, 3×3 stem, no pooling."""

    def __init__(
        self,
        depths: tuple[int, ...],
        width: int = 64,
        bottleneck: int = 0,
        small: bool = False,
        norm: type[nn.Module] = nn.BatchNorm2d,
        names: tuple[str, str] = ("bn", "downsample"),
        head: str = "fc",
    ) -> None:
        super().__init__()
        self.small, self.head, self.names = small, head, names
        self.conv1 = nn.Conv2d(
            3, width, 3 if small else 7, 1 if small else 2, padding=1 if small else 3, bias=False
        )
        setattr(self, f"{names[0]}1", norm(width))
        before = width
        for stage, depth in enumerate(depths):
            out = width * 2**stage
            inner = (bottleneck * 2**stage,) * 2 if bottleneck else (out,)
            after = 4 * out if bottleneck else out
            blocks = []
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(ResidualBlock((before, *inner, after), stride, norm, names))
                before = after
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        setattr(self, head, nn.Linear(before, 1000))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(getattr(self, f"{self.names[0]}1")(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head)(x.mean((2, 3)))


def re_basin_resnet20() -> nn.Module:
    """LayerNorm in the place of BatchNorm, as Git Re-Basin trains it."""
    return ResNet((3, 3, 3), 16, small=True, norm=ChannelNorm, names=("norm", "shortcut"), head="dense")


def zipit_resnet20() -> nn.Module:
    return ResNet((3, 3, 3), 16, small=True, names=("bn", "shortcut"), head="linear")


# -- networks that Torch-Pruning and PLeaS agree on ------------------------------------------------------


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1, self.expand3x3 = (
            nn.Conv2d(squeeze, expand, 1),
            nn.Conv2d(squeeze, expand, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((64, 16, 64), (128, 16, 64), 0, (128, 32, 128), (256, 32, 128), 0)
        more = ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256))
        fires = [Fire(*s) if s else nn.MaxPool2d(3, 2, ceil_mode=True) for s in (*sizes, *more)]
        stem = (nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        self.features = nn.Sequential(*stem, *fires)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)


class ConvNorm(nn.Sequential):
    def __init__(
        self, a: int, b: int, size: int, stride: int, groups: int, act: type[nn.Module] | None
    ) -> None:
        conv = nn.Conv2d(a, b, size, stride, padding=size // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(b), *([act()] if act else []))


class Squeeze(nn.Module):
    """Squeeze and excitation: a gate of the channels, from their mean."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Inverted(nn.Module):
    """Inverted residual: widen 1×1, depthwise, (squeeze and excite), narrow 1×1."""

    def __init__(
        self, a: int, b: int, widen: int, size: int, stride: int, act: type[nn.Module], gate: bool = False
    ) -> None:
        super().__init__()
        inner = a * widen
        layers: list[nn.Module] = [ConvNorm(a, inner, 1, 1, 1, act)] if widen > 1 else []
        layers.append(ConvNorm(inner, inner, size, stride, inner, act))
        layers += [Squeeze(inner, a // 4)] if gate else []
        self.layers = nn.Sequential(*layers, ConvNorm(inner, b, 1, 1, 1, None))
        self.skip = stride == 1 and a == b

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skip else self.layers(x)


Stage = tuple[int, int, int, int, int]  # widen, kernel, stride, channels, repeats


def inverted(
    stem: int, stages: list[Stage], last: int, act: type[nn.Module], gate: bool = False
) -> nn.Module:
    """A network of inverted residual blocks: stem, stages, 1×1 convolution, mean, linear."""
    layers: list[nn.Module] = [ConvNorm(3, stem, 3, 2, 1, act)]
    before = stem
    for widen, size, stride, channels, repeats in stages:
        for i in range(repeats):
            layers.append(Inverted(before, channels, widen, size, stride if not i else 1, act, gate))
            before = channels
    layers.append(ConvNorm(before, last, 1, 1, 1, act))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 1000))


MOBILE = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 3, 2, 32, 3), (6, 3, 2, 64, 4)]
MOBILE += [(6, 3, 1, 96, 3), (6, 3, 2, 160, 3), (6, 3, 1, 320, 1)]
EFFICIENT = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)]
EFFICIENT += [(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]
MNAS = [(1, 3, 1, 8, 1), (3, 3, 2, 16, 3), (3, 5, 2, 24, 3), (6, 5, 2, 40, 3)]  # MNASNet 0.5
MNAS += [(6, 3, 1, 48, 2), (6, 5, 2, 96, 4), (6, 3, 1, 160, 1)]


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = (
            nn.BatchNorm2d(4 * growth),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


def densenet121() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, depth in enumerate((6, 12, 24, 16)):
        layers += [DenseLayer(channels + 32 * i, 32) for i in range(depth)]
        channels += 32 * depth
        if stage < 3:
            half = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), half, nn.AvgPool2d(2)]
            channels //= 2
    tail = (
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 1000),
    )
    return nn.Sequential(*layers, *tail)


class ConvNextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.scale * self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)


def convnext_tiny() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96)]
    width = 96
    for stage, depth in enumerate((3, 3, 9, 3)):
        if stage:
            layers += [ChannelNorm(width), nn.Conv2d(width, 2 * width, 2, 2)]
            width *= 2
        layers += [ConvNextBlock(width) for _ in range(depth)]
    tail = (nn.AdaptiveAvgPool2d(1), ChannelNorm(width), nn.Flatten(), nn.Linear(width, 1000))
    return nn.Sequential(*layers, *tail)


# -- transformers ----------------------------------------------------------------------------------------


def pretrained(name: str, *shape: int, ids: bool = False, **fields: Any) -> Callable[[], Made]:
    """A class of transformers at the size of its published checkpoint (the defaults of its config)."""

    def made() -> Made:
        config = getattr(transformers, fields.pop("config", "") or f"{name.removesuffix('Model')}Config")(
            **fields
        )
        with torch.device("meta"):
            module = getattr(transformers, name)(config).eval()
            return module, (torch.zeros(shape, dtype=torch.long if ids else torch.float32),)

    return made


class OpenClipBlock(nn.Module):
    """open_clip's residual block: q, k and v in one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class OpenClipText(nn.Module):
    """The text tower of open_clip's bigG: 32 layers, 1280 wide, 20 heads."""

    def __init__(self, layers: int = 32, width: int = 1280, heads: int = 20) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(49408, width)
        self.positional_embedding = nn.Parameter(torch.empty(77, width))
        blocks = nn.ModuleList(OpenClipBlock(width, heads) for _ in range(layers))
        self.transformer: Any = nn.ModuleDict({"resblocks": blocks})
        self.ln_final = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        for block in self.transformer["resblocks"]:
            x = block(x)
        return self.ln_final(x)


def open_clip() -> Made:
    with torch.device("meta"):
        return OpenClipText().eval(), (torch.zeros((1, 77), dtype=torch.long),)


def unet() -> Made:
    with torch.device("meta"):
        return UNet().eval(), (torch.zeros(1, 4, 32, 32), torch.zeros(1, 320), torch.zeros(1, 77, 768))


IMAGE = (1, 3, 224, 224)
LLAMA = {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1376, "vocab_size": 1000}

NETWORKS: dict[str, Callable[[], Made]] = {
    "mlp": on_meta(mlp, 1, 784),
    "re_basin_vgg16": on_meta(ReBasinVGG16, 1, 3, 32, 32),
    "re_basin_resnet20": on_meta(re_basin_resnet20, 1, 3, 32, 32),
    "zipit_resnet20": on_meta(zipit_resnet20, 1, 3, 32, 32),
    "zipit_vgg11": on_meta(lambda: VGG(VGG11, False, nn.Linear(512, 10), 1), 1, 3, 32, 32),
    "zipit_vgg16": on_meta(lambda: VGG(VGG16, False, nn.Linear(512, 10), 1), 1, 3, 32, 32),
    "resnet18": on_meta(lambda: ResNet((2, 2, 2, 2)), *IMAGE),
    "resnet50": on_meta(lambda: ResNet((3, 4, 6, 3), bottleneck=64), *IMAGE),
    "wide_resnet50_2": on_meta(lambda: ResNet((3, 4, 6, 3), bottleneck=128), *IMAGE),
    "alexnet": on_meta(AlexNet, *IMAGE),
    "vgg11_bn": on_meta(lambda: VGG(VGG11, True, dense(512 * 49), 7), *IMAGE),
    "squeezenet1_1": on_meta(SqueezeNet, *IMAGE),
    "mobilenet_v2": on_meta(lambda: inverted(32, MOBILE, 1280, nn.ReLU6), *IMAGE),
    "mnasnet0_5": on_meta(lambda: inverted(16, MNAS, 1280, nn.ReLU), *IMAGE),
    "efficientnet_b0": on_meta(lambda: inverted(32, EFFICIENT, 1280, nn.SiLU, gate=True), *IMAGE),
    "densenet121": on_meta(densenet121, *IMAGE),
    "convnext_tiny": on_meta(convnext_tiny, *IMAGE),
    "hubert": pretrained("HubertModel", 1, 4000),
    "bert": pretrained("BertForMaskedLM", 1, 8, ids=True, config="BertConfig"),
    "vit": pretrained("ViTForImageClassification", *IMAGE, config="ViTConfig"),
    "llama": pretrained(
        "LlamaForCausalLM",
        1,
        8,
        ids=True,
        config="LlamaConfig",
        use_cache=False,
        num_attention_heads=8,
        **LLAMA,
    ),
    "clip_l": pretrained(
        "CLIPTextModel",
        1,
        77,
        ids=True,
        config="CLIPTextConfig",
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
    ),
    "clip_g": open_clip,
    "sd15_unet": unet,
    "sd15_vae": on_meta(AutoencoderKL, 1, 3, 64, 64),
}
