"""Feature extractors: audio as a model of spectrogram features receives it (Whisper, AST, w2v-BERT and others).

The model's own feature extractor is used, a class of transformers with the settings in the model's folder. No code of the
folder is run, nothing is downloaded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from permgraph.errors import MatchError
from permgraph.inputs import clips as c
from permgraph.inputs.clips import Clip, Samples

if TYPE_CHECKING:
    from torch import Tensor, nn

FILES = ("preprocessor_config.json", "processor_config.json")
WAVES = ("input_values",)  # what a waveform is called; a spectrogram too, in AST
MASKS = ("attention_mask", "padding_mask")
OTHER_RATE = 16_000  # Hz, of the extractors that a configuration alone describes
HOP = 160  # samples from one frame of theirs to the next


@dataclass(frozen=True)
class FeatureExtractor:
    """Clips in, arguments of the model's forward out.

    extract  the object of transformers
    rate     Hz
    seconds  the length of audio that fills its fixed number of frames; None when features are as long as the audio
    assumed  what no file says, in words; "" when all is known
    """

    extract: Any
    rate: int
    seconds: float | None = None
    assumed: str = ""

    def __call__(self, data: Samples, clip: Clip) -> Samples:
        return c.resample(data, clip, self.rate)

    def batch(self, clips: Sequence[Samples]) -> dict[str, Tensor]:
        """Features of clips of one length, (clips, …) each. Masks that mask nothing are left out."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about empty mel filters, which the model was trained with
            features = self.extract(list(clips), sampling_rate=self.rate, return_tensors="pt")
        return {k: v for k, v in features.items() if not (k in MASKS and bool(v.all()))}

    def note(self, seconds: float) -> str:
        """What becomes of clips that are shorter or longer than it reads; "" when they fit."""
        if self.seconds is None or abs(self.seconds - seconds) < 0.02 * self.seconds:
            return ""
        whole = f"reads {self.seconds:g} s: clips of {seconds:g} s"
        if seconds > self.seconds:
            return f"{whole} are cut"
        padding = 1 - seconds / self.seconds
        return (
            f"{whole} are padded, and {padding:.0%} of what is matched is padding; --seconds {self.seconds:g}"
        )


def feature_extractor(
    folder: Path | None, config: Mapping[str, Any], module: nn.Module, name: str
) -> FeatureExtractor:
    """The feature extractor of a model.

    folder   of the model, when it has one
    config   its transformers configuration, which describes the extractors of some kinds when no file does
    module   the network: what its forward takes decides whether the extractor is for it

    Raises MatchError when there is none, it cannot be built, it draws random values, or its features are not what the
    network takes.
    """
    stated = folder is not None and any((folder / file).is_file() for file in FILES)
    try:
        extract = _from_folder(folder) if stated and folder is not None else _from_config(config)
    except Exception as error:  # whatever transformers makes of a folder
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MatchError(f"{name}: its feature extractor cannot be built: {line}") from error
    if extract is None:
        raise MatchError(
            f"{name}: this model does not take raw audio, and no file says how to make features of it ({', '.join(FILES)}). "
            "Give what it takes with --text, --images, or with --data file.py:batches, a function that yields batches "
            "(permgraph.calibrate in Python)."
        )
    kind = type(extract).__name__
    assumed = "" if stated else f"no file says what it receives ({', '.join(FILES)}); assumed: {kind}"
    rate = getattr(extract, "sampling_rate", None)
    if isinstance(rate, bool) or not isinstance(rate, int) or not 0 < rate < 10**7:
        raise MatchError(f"{name}: {kind} has no sampling rate in Hz, but {rate!r}.")
    made = FeatureExtractor(extract, rate, _own_length(extract), assumed)
    _refuse_misfit(made, module, name)
    return made


def _from_folder(folder: Path) -> Any:
    from transformers import AutoFeatureExtractor

    return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _from_config(config: Mapping[str, Any]) -> Any:
    """As the configuration describes it; None for other kinds of model."""
    make = _BY_KIND.get(str(config.get("model_type")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(config) if make else None


def _whisper(config: Mapping[str, Any]) -> Any:
    from transformers import WhisperFeatureExtractor

    samples = 2 * config["max_source_positions"] * HOP
    if samples % OTHER_RATE:
        raise ValueError(f"{samples} samples at {OTHER_RATE:,} Hz are no whole number of seconds")
    return WhisperFeatureExtractor(
        feature_size=config["num_mel_bins"], chunk_length=samples // OTHER_RATE, hop_length=HOP
    )


def _ast(config: Mapping[str, Any]) -> Any:
    from transformers import ASTFeatureExtractor

    return ASTFeatureExtractor(num_mel_bins=config["num_mel_bins"], max_length=config["max_length"])


def _w2v_bert(config: Mapping[str, Any]) -> Any:
    from transformers import SeamlessM4TFeatureExtractor

    size = config["feature_projection_input_dim"] // 2
    return SeamlessM4TFeatureExtractor(feature_size=size, num_mel_bins=size, stride=2)


_BY_KIND: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "whisper": _whisper,
    "audio-spectrogram-transformer": _ast,
    "wav2vec2-bert": _w2v_bert,
}


def _own_length(extract: Any) -> float | None:
    """Seconds of audio that fill a fixed number of frames, when the extractor has one and says it."""
    samples = getattr(extract, "n_samples", None) or getattr(extract, "nb_max_samples", None)
    frames = getattr(extract, "max_length", None)
    if type(extract).__name__ == "ASTFeatureExtractor" and isinstance(frames, int):
        samples = (
            frames - 1
        ) * HOP * extract.sampling_rate // OTHER_RATE + 25 * extract.sampling_rate // 1000
    return samples / extract.sampling_rate if samples else None


def _refuse_misfit(made: FeatureExtractor, module: nn.Module, name: str) -> None:
    """Try it on noise. Raises MatchError."""
    kind = type(made.extract).__name__
    samples = round((made.seconds or 1.0) * made.rate)
    noise = (np.random.default_rng(0).standard_normal(samples) * 0.1).astype(np.float32)
    try:
        one, same = (made.batch([noise, noise[::-1].copy()]) for _ in range(2))
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MatchError(f"{name}: its feature extractor, {kind}, fails on audio: {line}") from error
    argument = next(iter(inspect.signature(module.forward).parameters))
    if argument not in one:
        raise MatchError(
            f"{name}: {kind} gives {', '.join(one)}, the network takes {argument}: it is not the feature extractor of this model."
        )
    if any(not bool((v == same[k]).all()) for k, v in one.items()):
        raise MatchError(
            f"{name}: {kind} draws random values (dither, a random part of each clip): A and B would not receive the same. "
            "Switch that off in the folder's preprocessor_config.json, or give --data file.py:batches."
        )
