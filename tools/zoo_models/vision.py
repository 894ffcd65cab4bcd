"""torchvision (classification, segmentation, detection backbones, video) and timm, with small images."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from zoo_models import Made

# torchvision's own operators, declared where its compiled library cannot load (a CPU build of torch beside a
# wheel of another build): enough to import it, and to run every network that does not call them.
_BOXES = "Tensor {x}, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
_GRAD = ", int batch_size, int channels, int height, int width"
_DEFORM = (
    "int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, "
    "int groups, int offset_groups, bool use_mask"
)
_SAMPLES = ", int sampling_ratio"
_OPERATORS = {
    "nms": ("Tensor dets, Tensor scores, float iou_threshold", 1),
    "qnms": ("Tensor dets, Tensor scores, float iou_threshold", 1),
    "roi_align": (_BOXES.format(x="input") + _SAMPLES + ", bool aligned", 1),
    "roi_pool": (_BOXES.format(x="input"), 2),
    "ps_roi_align": (_BOXES.format(x="input") + _SAMPLES, 2),
    "ps_roi_pool": (_BOXES.format(x="input"), 2),
    "deform_conv2d": ("Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, " + _DEFORM, 1),
    "_roi_align_backward": (_BOXES.format(x="grad") + _GRAD + _SAMPLES + ", bool aligned", 1),
    "_roi_pool_backward": (_BOXES.format(x="grad").replace("rois", "rois, Tensor argmax") + _GRAD, 1),
    "_ps_roi_align_backward": (
        _BOXES.format(x="grad").replace("rois", "rois, Tensor channel_mapping") + _SAMPLES + _GRAD,
        1,
    ),
    "_ps_roi_pool_backward": (
        _BOXES.format(x="grad").replace("rois", "rois, Tensor channel_mapping") + _GRAD,
        1,
    ),
    "_deform_conv2d_backward": (
        "Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, " + _DEFORM,
        5,
    ),
}
_kept: list[Any] = []  # the operators live as long as the library object does


def declare_operators() -> None:
    """Make `import torchvision` work where its compiled library does not load."""
    if _kept:
        return
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _kept.append(library)
    for name, (arguments, count) in _OPERATORS.items():
        result = "Tensor" if count == 1 else "(" + ", ".join(["Tensor"] * count) + ")"
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}({arguments}) -> {result}")


_HUGE = re.compile(
    r"(convnext|swin|vit).*_(base|large|[bshl]|l_\d+|h_\d+)$|(16|32|128)gf|152|_b[4-7]$|_v2_[ml]$|vgg.*[369]$|_101_?64|wide_resnet101"
)
_SIZES = {"inception_v3": 96, "maxvit_t": 224, "googlenet": 64, "alexnet": 64}


def torchvision_names() -> list[str]:
    declare_operators()
    from torchvision import models

    return [n for n in models.list_models() if not _HUGE.search(n) and not n.startswith("quantized")]


def torchvision_model(name: str) -> Made:
    declare_operators()
    from torchvision import models

    module = models.get_model_builder(name).__module__
    options: dict[str, Any] = {"weights": None}
    if ".detection" in module or ".segmentation" in module:
        options["weights_backbone"] = None
    size = _SIZES.get(name, 64)
    if name.startswith("vit"):
        options["image_size"] = size
    net = models.get_model(name, **options)
    if ".detection" in module:
        return net.backbone, (torch.rand(1, 3, 96, 96),), {}
    if ".video" in module:
        frames = {"s3d": 16, "mvit_v1_b": 16, "mvit_v2_s": 16}.get(name, 8)
        size = 224 if name.startswith(("mvit", "s3d")) else 64
        return net, (torch.rand(1, 3, frames, size, size),), {}
    if ".optical_flow" in module:
        return net, (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)), {"num_flow_updates": 2}
    return net, (torch.rand(1, 3, size, size),), {}


LARGEST = 100_000_000  # parameters of a network that is verified in float64 here
_SMALL = [
    "test",
    "atto",
    "femto",
    "pico",
    "nano",
    "zepto",
    "mini",
    "xxs",
    "xxtiny",
    "xtiny",
    "tiny",
    "xs",
    "x_small",
    "small",
    "18",
    "26",
    "s0",
    "b0",
    "s",
    "nf",
    "050",
    "035",
]


def timm_names() -> list[str]:
    """All of timm: first a few variants of every family (a module of timm), then the rest, the smallest promised first."""
    declare_operators()
    import timm
    from timm.models._registry import _module_to_models

    names = set(timm.list_models())
    chosen: list[str] = []
    for module in sorted(_module_to_models):
        mine = sorted(names & set(_module_to_models[module]), key=_promise)
        stems: set[str] = set()
        for name in mine:
            stem = re.split(r"[_\d]", name)[0]
            if stem not in stems and len(stems) < 6 and (name.startswith("test_") or _promise(name)[0] < 30):
                stems.add(stem)
                chosen.append(name)
        if mine and not stems:
            chosen.append(mine[0])
    return chosen + sorted(names - set(chosen), key=_promise)


def _promise(name: str) -> tuple[int, int, str]:
    parts = name.split("_")
    ranks = [i for i, word in enumerate(_SMALL) if word in parts or any(p.endswith(word) for p in parts)]
    large = any(w in name for w in ("large", "huge", "giant", "xlarge", "gigantic", "enormous"))
    return (min(ranks, default=25) + (50 if large else 0), len(name), name)


def timm_model(name: str) -> Made:
    declare_operators()
    import timm

    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False, num_classes=10)
    count = sum(p.numel() for p in net.parameters())
    if count > LARGEST:
        raise RuntimeError(
            f"{count / 1e6:.0f} million parameters, more than the {LARGEST / 1e6:.0f} verified here"
        )
    default = timm.get_pretrained_cfg(name)
    channels, side = (default.input_size[0], default.input_size[-1]) if default else (3, 224)
    for size in (64, 96, 128, 160, side):
        for options in ({"img_size": size}, {}):
            try:
                net = timm.create_model(name, pretrained=False, num_classes=10, **options)
            except (TypeError, RuntimeError, AssertionError, ValueError, KeyError):
                continue
            image = torch.rand(1, channels, size, size)
            if _runs(net, image):
                return net, (image,), {}
    raise RuntimeError(f"no image size from 64 to {side} runs")


def _runs(net: nn.Module, image: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            net.eval()(image)
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError, ZeroDivisionError):
        return False
    return True
