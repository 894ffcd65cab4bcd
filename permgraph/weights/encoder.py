"""Encoders: a model on disk as weights to merge, a network to trace, and a module to run.

    path/to/folder      a Hugging Face folder; MERT's are read as the HuBERT they are
    path/to/file.pt     a training checkpoint (fairseq's HuBERT or MERT), or any single file of weights

No code of a folder or a pickle is run. Only this file of `merge` needs transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from permgraph.errors import FileError, TraceError, UsageError
from permgraph.frontend.architectures import aliases, is_alias
from permgraph.ir.names import canonical
from permgraph.ir.spec import PermSpec
from permgraph.weights.average import refuse_nonfinite
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.dtypes import is_inexact
from permgraph.weights.names import match_names
from permgraph.weights.preprocessing import RATE, Preprocessing, preprocessing
from permgraph.weights.quantised import refuse_quantised
from permgraph.weights.tensors import tensor_of

if TYPE_CHECKING:
    from torch import nn

    from permgraph.frontend.sources import Source
    from permgraph.ir.trace import Trace

_UNREAD = ("masked_spec_embed",)  # read in training only; transformers makes it or not by the config


@dataclass(frozen=True)
class Encoder:
    """A model on disk. Weights are read when asked for.

    path, name     what was opened; of the folder, or of the file without its suffix
    config         the transformers configuration, as config.json holds it; MERT's as HuBERT's
    checkpoint     its tensors, under the names transformers gives them (a head's prefix included)
    source         the network on the meta device, ready to be traced
    audio          what it receives, for a model of raw audio
    architecture   what `source` is built from: an alias or a folder
    state          which weights of a file that holds several, as for `open_checkpoint`
    model_class    the class of transformers that is read, where a head is part of it; "" for the base model
    """

    path: Path
    name: str
    config: dict[str, Any]
    checkpoint: Checkpoint
    source: Source
    audio: Preprocessing
    architecture: str
    state: str = ""
    model_class: str = ""

    @property
    def sampling_rate(self) -> int | None:
        """Hz; None for a model that does not take raw audio."""
        return self.audio.sampling_rate

    @property
    def do_normalize(self) -> bool:
        """Whether each clip is brought to zero mean and unit variance first."""
        return self.audio.do_normalize

    @property
    def folder(self) -> Path | None:
        """Where the configuration lies, with what describes its inputs; None for an alias."""
        path = Path(self.architecture).expanduser()
        return path if (path / "config.json").is_file() else None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Stored keys that the encoder does not use: heads, tables of positions."""
        return (*self.checkpoint.left_out, *(k for k in self.checkpoint if k not in self.stored))

    @cached_property
    def stored(self) -> dict[str, str]:
        """Stored key → name in `module()`. Raises FileError unless the weights fit strictly."""
        return _fit(self.source.module, self.checkpoint, str(self.path))

    @cached_property
    def trace(self) -> Trace:
        """The captured network (seconds). Raises TraceError."""
        return self.source.trace()

    def module(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
        """A new module in eval mode with the weights, loaded strictly. Weights of 16 bits become `dtype`.

        Raises FileError listing what is missing, unexpected, of another shape, or quantised.
        """
        from transformers.initialization import no_init_weights

        from permgraph.frontend.sources import load_source

        with no_init_weights():  # random values would take seconds; the strict check leaves none to need them
            module: Any = load_source(self.architecture, "cpu", self.model_class).module
        module.tie_weights()  # which transformers leaves out where nothing is initialised
        self.load_into(module)
        return module.to(device=device, dtype=dtype).eval()  # type: ignore[no-any-return]

    def load_into(self, module: nn.Module) -> None:
        """Write the weights into such a module, cast to its dtypes. Raises like `module`, and for NaN."""
        refuse_quantised(self.checkpoint.infos, str(self.path), self.checkpoint.config)
        self.checkpoint.verify()
        state = module.state_dict()
        with torch.no_grad():
            for key, name in self.stored.items():
                held, dtype = self.checkpoint.rows(key), self.checkpoint.infos[key].dtype
                refuse_nonfinite(key, dtype, iter([held]), str(self.path))
                state[name].copy_(tensor_of(held, dtype))
            for name in state:
                if name.endswith(_UNREAD) and name not in self.stored.values():
                    state[name].zero_()  # not stored, not read: the same in every run


def open_encoder(
    path: str | Path, architecture: str | Path | None = None, state: str = "", model_class: str = ""
) -> Encoder:
    """Open a folder, as a `model_class` (see `load_source`), or a single file, of which `state` as for `open_checkpoint`.

    architecture   for a file: the alias or the folder whose configuration it has; found by its shapes
                   among the published HuBERT sizes when not given

    Raises FileError, TraceError (a configuration that cannot be built), UsageError.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if model_class:
            raise UsageError(f"--class {model_class}: {path} is a single file, not a model folder.")
        return replace(_from_file(path, architecture, state), state=state)
    if architecture is not None:
        raise UsageError(
            f"{path}: a folder has its own config.json; architecture= ({architecture}) is for a file."
        )
    return _open(path, path.resolve().name, open_checkpoint(path), str(path.resolve()), model_class)


def _from_file(path: Path, architecture: str | Path | None, state: str) -> Encoder:
    checkpoint = open_checkpoint(path, state)
    refuse_quantised(checkpoint.infos, str(path))
    for setting, reason in (checkpoint.renames.refused if checkpoint.renames else {}).items():
        if checkpoint.settings.get(setting):
            raise TraceError(
                f"{path}: trained with {setting} = true: {reason}. It is read as HuBERT, so it cannot be."
            )
    if architecture is None:
        built = _find_architecture(path, checkpoint)
    else:
        built = str(architecture)
        folder = Path(built).expanduser()
        if not is_alias(built) or (folder / "config.json").is_file():
            if not (folder / "config.json").is_file():
                raise UsageError(
                    f"architecture={built!r}: give an alias ({', '.join(aliases())}) or a folder with config.json."
                )
            built = str(folder.resolve())
    encoder = _open(path, path.stem, checkpoint, built)
    for setting, field in (checkpoint.renames.settings if checkpoint.renames else {}).items():
        trained = checkpoint.settings.get(setting)
        if trained is not None and trained != encoder.config.get(field):
            raise FileError(
                f"{path}: trained with {setting} = {trained}, {architecture or built} has {field} = "
                f"{encoder.config.get(field)}: the same shapes, another function. Pass the architecture= it has."
            )
    return encoder


def _open(path: Path, name: str, checkpoint: Checkpoint, architecture: str, model_class: str = "") -> Encoder:
    from permgraph.frontend.sources import load_source

    source = load_source(architecture, model_class=model_class)
    config = json.loads(json.dumps(source.module.config.to_dict(), default=str))  # type: ignore[union-attr, operator]
    audio = _preprocessing(source, architecture, config, checkpoint.settings)
    return Encoder(path, name, config, checkpoint, source, audio, architecture, "", source.model_class)


def _fit(module: nn.Module, checkpoint: Checkpoint, where: str) -> dict[str, str]:
    """Stored key → the module's name, strictly: heads, integer tables and unread tensors may be left out."""
    names: dict[int, list[str]] = {}
    state: Mapping[str, torch.Tensor] = module.state_dict(keep_vars=True)
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    spec = PermSpec(
        type(module).__name__,
        "",
        (),
        (),
        tensors={same[0]: tuple(state[same[0]].shape) for same in names.values()},
        aliases={same[0]: tuple(same[1:]) for same in names.values() if len(same) > 1},
        unused=tuple(name for name in state if name.endswith(_UNREAD)),
    )
    patterns = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    spare = [
        key
        for key, info in checkpoint.infos.items()
        if key.endswith(_UNREAD) or not is_inexact(info.dtype) or any(re.search(p, key) for p in patterns)
    ]
    return match_names(spec, checkpoint.shapes, where, ignore_unexpected=spare, whole="model")


def _find_architecture(path: Path, checkpoint: Checkpoint) -> str:
    """The published architecture that has this file's tensors. Raises UsageError when there is none."""
    from permgraph.frontend.sources import load_source
    from permgraph.weights.renames import tables

    known = [checkpoint.renames] if checkpoint.renames else tables()
    names = [name for table in known for name in table.architectures]
    reasons = []
    for name in names:
        try:
            _fit(load_source(name).module, checkpoint, name)
        except FileError as error:
            reasons.append(str(error).split(". ")[0][:160])
            continue
        return name
    raise UsageError(
        f"{path}: its {len(checkpoint)} tensors fit none of {', '.join(names)} ({'; '.join(reasons)}). "
        "Pass architecture= with the alias, or with a folder whose config.json describes it."
    )


def _preprocessing(
    source: Source, architecture: str, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Preprocessing:
    if "conv_kernel" not in config or len(source.args[0].shape) != 2:
        return Preprocessing(None, False)
    if (Path(architecture).expanduser() / "config.json").is_file():
        return preprocessing(Path(architecture).expanduser(), config, settings, None)
    from permgraph.weights.renames import tables

    rates = {name: rate for table in tables() for name, rate in table.sampling_rate.items()}
    return preprocessing(None, config, settings, rates.get(architecture, RATE))


# Fields that do not change what the model computes.
_HARMLESS = re.compile(
    r"architectures|torch_dtype|dtype|transformers_version|_name_or_path|initializer_(range|factor)|layerdrop"
    r"|apply_spec_augment|(mask|ctc)_.*|.*dropout.*|.*drop_prob|.*_token_id|id2label|label2id|problem_type|use_cache"
    r"|output_(hidden_states|attentions)|return_dict|gradient_checkpointing"
)


def compare(a: Encoder, b: Encoder, per_model_rate: bool = False) -> None:
    """Refuse two encoders that are not one architecture, or that have different sampling rates.

    Equal configurations are enough; otherwise the captured networks decide (pre- and post-norm models have the
    same shapes). Heads of one class have to name their outputs alike. `per_model_rate` accepts two rates.
    Raises FileError with the table of differing fields.
    """
    differing = {
        key: (a.config.get(key), b.config.get(key))
        for key in sorted({*a.config, *b.config})
        if a.config.get(key) != b.config.get(key)
        and (not _HARMLESS.fullmatch(key) or (a.model_class and key == "id2label"))
    }
    if differing and (_shapes(a) != _shapes(b) or a.trace.fingerprint != b.trace.fingerprint):
        raise FileError(
            f"{a.name} (A) and {b.name} (B) are not one architecture; their channels cannot be paired. "
            "Choose two models with the same of these:",
            _table(differing, a.name, b.name),
        )
    if a.model_class and "id2label" in differing:
        raise FileError(
            f"the heads of {a.name} (A) and {b.name} (B) name their outputs differently; they cannot be averaged. "
            "Leave --class out to merge what is below the heads. They differ in:",
            _table(differing, a.name, b.name),
        )
    if a.sampling_rate != b.sampling_rate and not per_model_rate:
        raise FileError(
            f"{a.name} (A) takes audio at {_rate(a)}, {b.name} (B) at {_rate(b)}: a frame of one is not as long as a frame of "
            "the other. Pass --per-model-rate (per_model_rate=True) to give each model its own rate."
        )


def _shapes(encoder: Encoder) -> dict[str, tuple[int, ...]]:
    return {canonical(name): tuple(t.shape) for name, t in encoder.source.module.state_dict().items()}


def _table(differing: Mapping[str, tuple[Any, Any]], a: str, b: str, count: int = 20) -> list[str]:
    rows = [("field", f"A: {a}", f"B: {b}")]
    rows += [(key, str(x)[:40], str(y)[:40]) for key, (x, y) in list(differing.items())[:count]]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return lines + ([f"and {len(differing) - count} more"] if len(differing) > count else [])


def _rate(encoder: Encoder) -> str:
    return f"{encoder.sampling_rate:,} Hz" if encoder.sampling_rate else "no raw audio"
