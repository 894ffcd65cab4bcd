"""What a config tells of the shapes of its network's inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo_models.hf_shrink import nested
from zoo_models.hf_sizes import attribute, number

Shape = tuple[int, ...]


class Facts:
    """The attributes of a config and of the configs in it."""

    def __init__(self, config: Any) -> None:
        self.configs = list(nested(config))

    def get(self, *keys: str) -> int | None:
        """The first number under one of these names."""
        return next((int(v) for c in self.configs for k in keys if number(v := attribute(c, k))), None)

    def numbers(self, *keys: str) -> list[int]:
        """The first list of numbers under one of these names."""
        for c in self.configs:
            for k in keys:
                value = attribute(c, k)
                if isinstance(value, (list, tuple)) and value and all(number(v) for v in value):
                    return list(value)
        return []

    def merge(self) -> int:
        """How many patches each way become one token."""
        keys = (
            "spatial_merge_size",
            "merge_size",
            "merge_kernel_size",
            "pooling_kernel_size",
            "downsample_factor",
        )
        return self.get(*keys) or (self.numbers(*keys) or [2])[0]

    def channels(self) -> int:
        return self.get("num_channels", "in_channels", "in_chans") or 3

    def widths(self) -> list[int]:
        """Widths that an embedding may have."""
        keys = (
            "hidden_size",
            "d_model",
            "embed_dim",
            "codebook_dim",
            "latent_dim",
            "n_embd",
            "vae_latent_dim",
        )
        found = [int(v) for c in self.configs for k in keys if number(v := attribute(c, k))]
        return list(dict.fromkeys(found)) or [32]

    def image_shapes(self) -> Iterator[Shape]:
        """Images, then videos (and pairs of images), of several sizes."""
        channels = self.channels()
        both = self.numbers("image_size", "img_size", "input_size")
        if len(both) >= 2:
            yield (1, channels, both[-2], both[-1])
            yield (1, channels, both[-2] // 2, both[-1])  # two of them on top of each other
        sides = [s for s in (self.get("image_size", "img_size", "max_img_size"), 64, 96, 128, 224, 256) if s]
        sides = list(dict.fromkeys(sides))
        for side in sides:
            yield (1, channels, side, side)
        frames = self.get("num_frames", "frames_per_clip") or 4
        for count in dict.fromkeys((frames, 2, 1)):
            for side in sides[:3]:
                yield (1, count, channels, side, side)

    def patch_shapes(self, count: int, batched: bool) -> Iterator[Shape]:
        """So many patches of one image: flattened, as small images, side by side."""
        channels = self.channels()
        sides = [v for c in self.configs if number(v := attribute(c, "patch_size"))]
        sides += [v[-1] for c in self.configs if isinstance(v := attribute(c, "patch_size"), (list, tuple))]
        times = self.get("temporal_patch_size") or (self.numbers("temporal_patch_size") or [1])[0]
        shapes: list[Shape] = []
        for side in dict.fromkeys(sides):
            for width in dict.fromkeys(channels * side * side * n for n in (times, 1, 2)):
                both: list[Shape] = [(count, width), (1, count, width)]
                shapes += reversed(both) if batched else both
            block = side * self.merge()
            shapes += [
                (count, channels, side, side),
                (1, channels, side, side * count),
                (count, block, block, channels),
            ]
        yield from shapes
        for width in self.widths():
            yield (count, width)

    def sound_shapes(self, name: str) -> Iterator[Shape]:
        """Features of sound in both orders, then samples, then a sequence of embeddings."""
        keys = (
            "num_mel_bins",
            "input_feat_per_channel",
            "feature_size",
            "mel_bins",
            "input_dim",
            "feat_in",
            "n_mels",
            "input_feat_size",
            "feature_projection_input_dim",
            "input_size",
        )
        told = [int(v) for k in keys for c in self.configs if number(v := attribute(c, k))]
        mels = next(iter(told), None)
        length = self.get("max_source_positions")
        window = self.get("n_window")
        hop = self.get("hop_length", "frame_size", "hop_size")
        for width in dict.fromkeys(w for w in (*told, 80, 128, 160) if w):
            if width == mels or name == "input_features":
                yield (1, 2 * (length or 32), width)
                yield (1, width, 2 * (length or 32))
        if mels and window:
            yield (1, 2 * window, mels)
            yield (1, mels, 2 * window)
        if mels:
            yield (1, self.get("max_length") or 128, mels)
            yield (1, 128, mels)
            yield (1, 1, self.get("spec_size", "max_length") or 64, mels)
        for samples in (2000, 8000, 16000, 3840, *((4 * hop, 16 * hop) if hop else ())):
            yield (1, samples)
            yield (1, 1, samples)
        for width in self.widths():
            yield (1, 16, width)
