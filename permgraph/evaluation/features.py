"""Features of clips: mean and standard deviation of every layer of a frozen encoder over the frames of a clip, kept on disk.

One pass over the audio per encoder, one clip at a time: nothing is padded. An array is named by the digest of the
weights, the configuration and the audio files, so that it is never read for anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permgraph.atomic_write import replacing, sweep
from permgraph.errors import FileError, UsageError
from permgraph.inputs import clips as c
from permgraph.inputs.audio import Preprocess
from permgraph.inputs.clips import BadAudio, Samples
from permgraph.inputs.sources import Source, shown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from permgraph.weights.encoder import Encoder

FORMAT = 2  # of what the arrays hold

Array = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """Of every file: (files, layers, 2 · width), in the order of `files`: means, then standard deviations over its frames.
    The digest of each file's content."""

    files: tuple[Path, ...]
    array: Array
    digests: tuple[str, ...]

    def rows(self, files: Sequence[Path], deviations: bool = True) -> Array:
        """(files, layers, 2 · width) of these files, read into memory; the means alone, (files, layers, width)."""
        where = {path: i for i, path in enumerate(self.files)}
        found = self.array[[where[path] for path in files]]
        return np.asarray(found if deviations else found[..., : found.shape[-1] // 2])


class FrozenEncoder:
    """A module in eval mode that gives all its layers.

    Layers are those that s3prl takes: the input of every transformer layer, and the encoder's output.

    notes   what of the network is run, and what of its audio no file says
    """

    def __init__(self, encoder: Encoder, device: str = "cpu") -> None:
        rate = usable_rate(encoder)
        self.name, self.device = encoder.name, usable(device)
        self.notes = tuple(note for note in (encoder.source.note, encoder.audio.assumed) if note)
        self.preprocess = Preprocess(rate, encoder.do_normalize)
        whole: Any = encoder.module(device)
        self.module: nn.Module = whole.base_model  # without the head, where the class has one
        self.shortest = receptive_field(encoder.config)
        self.digest = _digest_of(encoder, self.module)

    def layers(self, samples: Samples) -> Array:
        """(layers, frames, width) of one clip at the encoder's own rate, (samples,)."""
        import torch

        with torch.inference_mode():
            audio = torch.from_numpy(np.ascontiguousarray(samples))[None].to(self.device)
            out: Any = self.module(audio, output_hidden_states=True, return_dict=True)
        hidden: Sequence[Tensor] | None = getattr(out, "hidden_states", None)
        if not hidden:
            raise UsageError(f"{self.name}: this model does not give its layers (hidden_states).")
        last = out.last_hidden_state
        if last.shape != hidden[-1].shape:  # an adapter after the encoder changes the frame rate
            last = hidden[-1]
        return np.stack([layer[0].float().cpu().numpy() for layer in (*hidden[:-1], last)])

    def of_file(self, path: Path) -> Iterator[Array]:
        """(layers, frames, width) of a file, in pieces of at most half a minute. Raises BadAudio."""
        for samples in pieces(path, self.preprocess, self.shortest):
            yield self.layers(samples)


def usable_rate(encoder: Encoder) -> int:
    """The sampling rate of an encoder that takes raw audio and whose weights fit its configuration. Raises UsageError,
    FileError."""
    if encoder.sampling_rate is None:
        raise UsageError(
            f"{encoder.name}: its input is not raw audio, so its features cannot be evaluated here."
        )
    _ = encoder.stored
    return encoder.sampling_rate


def usable(device: str) -> str:
    """A device that torch has here. Raises UsageError."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise UsageError(f"--device {device}: torch cannot use it: {reason}.") from error
    return device


def pieces(path: Path, preprocess: Preprocess, shortest: int = 1) -> Iterator[Samples]:
    """A file as a model wants it, (samples,), whole or in pieces of half a minute. Raises BadAudio."""
    source = Source(path, str(path))
    head = c.header(source)
    parts = [
        clip for clip in c.pieces(source, head, None, None) if clip.length_at(preprocess.rate) >= shortest
    ]
    if not parts:
        raise BadAudio(
            f"{head.frames} samples at {head.rate} Hz are too short: less than one frame ({shortest} samples at "
            f"{preprocess.rate} Hz)"
        )
    for clip in parts:
        yield preprocess(c.read(clip), clip)


def receptive_field(config: dict[str, Any]) -> int:
    """Samples that one frame of a convolutional front end needs; 1 where the configuration has none."""
    field, step = 1, 1
    for kernel, stride in zip(config.get("conv_kernel", ()), config.get("conv_stride", ()), strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field


def encoder_features(
    encoder: FrozenEncoder, files: Sequence[Path], cache: Path, progress: Progress | None = None
) -> Features:
    """Of every layer, memory-mapped. Raises FileError for a file that cannot be used."""

    def of_file(path: Path) -> Array:
        return statistics(encoder.of_file(path))

    return cached(encoder.name, encoder.digest, of_file, files, cache, progress)


def side_by_side(
    encoders: Sequence[FrozenEncoder], files: Sequence[Path], cache: Path, progress: Progress | None = None
) -> Features:
    """Layer by layer, the features of several encoders one after the other: what a probe can have that has all of them.
    Raises UsageError where they have not as many layers."""
    parts = [encoder_features(encoder, files, cache, progress) for encoder in encoders]
    if len(parts) == 1:  # stays on disk
        return parts[0]
    layers = {encoder.name: part.array.shape[1] for encoder, part in zip(encoders, parts, strict=True)}
    if len({*layers.values()}) > 1:
        told = ", ".join(f"{name} {count}" for name, count in layers.items())
        raise UsageError(f"side by side, encoders need as many layers as each other: {told}.")
    halves = [np.split(np.asarray(part.array), 2, axis=-1) for part in parts]
    means, deviations = zip(*halves, strict=True)
    return Features(tuple(files), np.concatenate([*means, *deviations], axis=-1), parts[0].digests)


def statistics(pieces: Iterable[NDArray[Any]]) -> Array:
    """Mean and standard deviation over the frames of a file, of whose pieces (layers, frames, width) one is held at a time:
    (layers, 2 · width)."""
    count, mean, squares = 0, np.zeros(()), np.zeros(())  # squares: of what the frames are away from the mean
    for piece in pieces:
        new, centre = piece.shape[1], piece.mean(axis=1, dtype=np.float64)
        away = centre - mean
        squares = (
            squares + ((piece - centre[:, None]) ** 2).sum(axis=1) + away**2 * count * new / (count + new)
        )
        count, mean = count + new, mean + away * new / (count + new)
    return np.concatenate([mean, np.sqrt(squares / count)], axis=1).astype(np.float32)


def cached(
    name: str,
    digest: str,
    of_file: Callable[[Path], Array],
    files: Sequence[Path],
    cache: Path,
    progress: Progress | None = None,
) -> Features:
    """What `of_file` gives for every file, (layers, 2 · width) each, from the cache when it is there."""
    stem, digests = cache_name(name, [FORMAT, digest], files)
    out = cache / f"{stem}.npy"
    if out.exists():
        sweep(out)
    else:
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(out, folder=False, force=True) as partial:
            _write(partial, of_each_file(of_file, files, progress), len(files))
    return Features(tuple(files), _opened(out, len(files)), digests)


def cache_name(name: str, what: Sequence[object], files: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """Of what is kept about these files as they are now; and their digests. Raises FileError."""
    digests = tuple(_checked(path) for path in files)
    times = [
        path.stat().st_mtime_ns for path in files
    ]  # a digest knows size and ends of a file, not its middle
    key = hashlib.sha256(json.dumps([*what, digests, times]).encode()).hexdigest()[:24]
    return f"{''.join(x if x.isalnum() or x in '-_.' else '_' for x in name)}-{key}", digests


def of_each_file(
    of_file: Callable[[Path], Array], files: Sequence[Path], progress: Progress | None
) -> Iterator[Array]:
    """What `of_file` gives for each file, in order. Raises FileError for bad audio and for numbers that are not finite."""
    for i, path in enumerate(files):
        try:
            row = of_file(path)
        except BadAudio as error:
            raise FileError(f"{shown(path)}: {error}.") from error
        if not np.isfinite(row).all():
            raise FileError(f"{shown(path)}: the features are not finite.")
        yield row
        if progress:
            progress(i + 1, len(files))


def _write(partial: Path, rows: Iterator[Array], count: int) -> None:
    array: Any = None
    for i, row in enumerate(rows):
        if array is None:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(count, *row.shape))
        array[i] = row
    array.flush()


def _opened(path: Path, count: int) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path}: damaged features: {error}. Remove the file to compute them anew."
        ) from error
    if array.ndim != 3 or len(array) != count or array.dtype != np.float32:
        raise FileError(f"{path}: damaged features, {array.shape}. Remove the file to compute them anew.")
    return array


def _checked(path: Path) -> str:
    try:
        return c.header(Source(path, str(path))).digest
    except BadAudio as error:
        raise FileError(f"{shown(path)}: {error}.") from error


def _digest_of(encoder: Encoder, module: nn.Module) -> str:
    digest = hashlib.sha256(
        json.dumps([encoder.config, encoder.sampling_rate, encoder.do_normalize], sort_keys=True).encode()
    )
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
