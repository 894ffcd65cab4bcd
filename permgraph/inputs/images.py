"""Images, prepared as each of the two models receives them: by the image processor in its folder, or by a plain default.

The processor is a class of transformers with the settings in the folder; no code of the folder is run, nothing is
downloaded. Images are prepared one by one, and only those that come out in one shape share a batch: nothing is padded.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from permgraph.errors import FileError, MatchError
from permgraph.frontend.batches import Pair
from permgraph.inputs.batches import Batches
from permgraph.inputs.clips import spread
from permgraph.inputs.sources import expand, shown

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FILES = ("preprocessor_config.json", "processor_config.json")
NEEDED = "--images needs Pillow: pip install 'permgraph[images]'."
MASKS = ("pixel_mask", "pixel_attention_mask")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per channel

Prepared = dict[str, "Tensor"]


class BadImage(Exception):
    """One file that cannot be used, and why."""


@dataclass(frozen=True)
class Plain:
    """The default: the shorter side resized, the centre cut out, 0 to 255 brought to ImageNet's mean and deviation.

    size  (height, width) in pixels
    """

    size: tuple[int, int]
    channels: int = 3

    def __call__(self, images: Any, return_tensors: str = "pt") -> Prepared:
        import torch
        from PIL import ImageOps

        small = ImageOps.fit(images, self.size[::-1])
        pixels = np.asarray(small, dtype=np.float32).reshape(*self.size, -1) / 255
        mean, std = (np.array(v, np.float32) if self.channels == 3 else np.mean(v) for v in (MEAN, STD))
        scaled = ((pixels - mean) / std).astype(np.float32)
        return {"pixel_values": torch.from_numpy(scaled.transpose(2, 0, 1).copy())[None]}


@dataclass(frozen=True)
class ImageProcessor:
    """An image in, arguments of the model's forward out.

    prepare   the object of transformers, or the default
    channels  3, or 1 for grey
    assumed   what no file says, in words; "" when all is known
    """

    name: str
    prepare: Any
    channels: int = 3
    assumed: str = ""

    def __call__(self, image: Any) -> Prepared:
        """Tensors with the image in the first dim. Masks that mask nothing are left out. Raises MatchError."""
        try:
            found = self.prepare(
                images=image.convert("RGB" if self.channels == 3 else "L"), return_tensors="pt"
            )
        except Exception as error:  # whatever transformers does with its settings
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MatchError(
                f"{self.name}: its image processor, {type(self.prepare).__name__}, fails: {line}"
            ) from error
        tensors = {k: v for k, v in found.items() if hasattr(v, "shape")}
        return {k: v for k, v in tensors.items() if not (k in MASKS and bool(v.all()))}


def image_processor(
    folder: Path | None, config: Mapping[str, Any], module: nn.Module, name: str
) -> ImageProcessor:
    """The image processor of a model; the default when no file describes one, which is said.

    Raises MatchError when the model takes no images or the folder's processor cannot be used.
    """
    argument = next(iter(inspect.signature(module.forward).parameters))
    if argument != "pixel_values":
        raise MatchError(f"{name}: its first input is {argument}, so it does not take images alone.")
    channels = config.get("num_channels") or 3
    if channels not in (1, 3):
        raise MatchError(
            f"{name}: images of {channels} channels. Give --data file.py:batches, which yields them."
        )
    if folder is not None and any((folder / file).is_file() for file in FILES):
        return ImageProcessor(name, _from_folder(folder, name), channels)
    size = config.get("image_size") or 224
    sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    assumed = (
        f"no file says how its images are prepared ({', '.join(FILES)}); assumed: resized and cut to "
        f"{sides[0]} × {sides[1]}, mean and deviation of ImageNet"
    )
    return ImageProcessor(name, Plain(sides, channels), channels, assumed)


def _from_folder(folder: Path, name: str) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever transformers makes of a folder
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MatchError(f"{name}: its image processor cannot be built: {line}") from error


class ImageBatches(Batches):
    """Batches of images as A and B receive them, read anew on every pass."""

    def __init__(
        self,
        images: Sequence[str],
        a: ImageProcessor,
        b: ImageProcessor,
        batch: int = 4,
        limit: int | None = 200,
        max_bad: float = 0.01,
    ) -> None:
        """Find the files.

        images   folders (searched whole), globs, files
        batch    images per batch
        limit    at most so many images, evenly spread
        max_bad  share of files that may be unusable

        Raises FileError for an argument that stands for nothing.
        """
        self.files = gather(images)
        if limit is not None:
            self.files = spread(self.files, limit)
        self.a, self.b, self.batch, self.max_bad = a, b, batch, max_bad
        self.bad: dict[str, str] = {}
        said = [_content(file) for file in self.files]
        told = f"{said} {a.prepare!r} {b.prepare!r}"
        super().__init__(self._batches, hashlib.sha256(told.encode()).hexdigest())

    def _batches(self) -> Iterator[Pair]:
        waiting: dict[Any, list[tuple[Prepared, Prepared]]] = defaultdict(list)
        self.bad, used = {}, 0
        for file in self.files:
            try:
                image = read(file)
            except BadImage as error:
                self._skip(file, error)
                continue
            both = self.a(image), self.b(image)
            same = waiting[tuple(tuple((k, tuple(t.shape)) for k, t in one.items()) for one in both)]
            same.append(both)
            used += 1
            if len(same) == self.batch:
                yield _together(same)
                same.clear()
        yield from (_together(same) for same in waiting.values() if same)
        self.notes = (
            f"{used} images",
            *dict.fromkeys(f"{p.name}: {p.assumed}" for p in (self.a, self.b) if p.assumed),
            *(f"skipped {file}: {why}" for file, why in self.bad.items()),
        )

    def _skip(self, file: Path, error: BadImage) -> None:
        """Note a bad file. Raises FileError when there are too many."""
        self.bad[shown(file)] = str(error)
        if len(self.bad) > self.max_bad * len(self.files):
            some = [f"{path}: {why}" for path, why in list(self.bad.items())[:10]]
            raise FileError(
                f"{len(self.bad)} of {len(self.files)} images cannot be used, more than --max-bad {self.max_bad:g} allows. "
                f"Remove or correct them, or raise --max-bad:",
                some,
            )


def _content(file: Path) -> str:
    """Digest of a file's bytes; "" for one that cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _together(same: list[tuple[Prepared, Prepared]]) -> Pair:
    import torch

    return Pair(
        *({k: torch.cat([one[k] for one in side]) for k in side[0]} for side in zip(*same, strict=True))
    )


def gather(arguments: Sequence[str]) -> list[Path]:
    """The image files that folders, globs and file names stand for, sorted, each once. Raises FileError."""
    found: dict[str, Path] = {}
    for argument in arguments:
        paths = list(expand(argument, SUFFIXES))
        if not paths:
            raise FileError(f"{shown(argument)}: no images (looked for {' '.join(SUFFIXES)}).")
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    return sorted(found.values(), key=os.fsencode)


def refuse_missing(arguments: Sequence[str]) -> None:
    """What can be told of images before a model is built. Raises FileError; MatchError when Pillow is not installed."""
    if find_spec("PIL") is None:
        raise MatchError(NEEDED)
    gather(arguments)


def read(file: Path) -> Any:
    """An image, upright. Raises BadImage; MatchError when Pillow is not installed."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise MatchError(NEEDED) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise BadImage(str(error).strip() or type(error).__name__) from error
