"""Checkpoints as training libraries write them, from a small encoder of transformers: what a reader has to understand.

The names are written down from the libraries' own modules, apart from the tables in specs/ that read them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from networks.randomise import randomise
from networks.small import AUDIO, config
from permgraph.ir.names import canonical

State = Mapping[str, Tensor]
POSITIONS = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.05}
LAYER = {
    **{f"attention.{p}_proj": f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")},
    "layer_norm": "self_attn_layer_norm",
    "feed_forward.intermediate_dense": "fc1",
    "feed_forward.output_dense": "fc2",
    "final_layer_norm": "final_layer_norm",
}


def model(kind: str) -> Any:
    """A small random encoder: "Hubert", "Wav2Vec2", "Data2VecAudio", or "Hubert batch norm"."""
    name = kind.partition(" ")[0]
    more = {"conv_pos_batch_norm": True} if kind.endswith("batch norm") else {}
    torch.manual_seed(0)
    return randomise(
        getattr(transformers, f"{name}Model")(config(name, **{**AUDIO, **POSITIONS, **more}))
    ).eval()


def of_fairseq(key: str, kind: str) -> str:
    """fairseq's name of a tensor: several positional convolutions in data2vec, batch norm before one in some HuBERTs."""
    parts = canonical(key).split(".")
    tail = parts.pop()
    if tail == "masked_spec_embed":
        return "mask_emb"
    if parts[0] == "feature_extractor":
        norm = "2.1" if kind == "Data2VecAudio" else "2"
        return ".".join([*parts[:3], "0" if parts[3] == "conv" else norm, tail])
    if parts[0] == "feature_projection":
        return f"{'layer_norm' if parts[1] == 'layer_norm' else 'post_extract_proj'}.{tail}"
    if parts[1] == "layers":
        return ".".join([*parts[:3], LAYER[".".join(parts[3:])], tail])
    if parts[1] == "pos_conv_embed":
        rest = parts[2:]
        where = {"conv": "1" if kind == "Hubert batch norm" else "0", "batch_norm": "0"}
        return f"encoder.pos_conv.{f'{rest[1]}.0' if rest[0] == 'layers' else where[rest[0]]}.{tail}"
    return f"encoder.layer_norm.{tail}"


def of_torchaudio(key: str) -> str:
    """torchaudio's name of a tensor of wav2vec 2 or HuBERT."""
    name = canonical(key)
    if name.startswith("feature_projection"):
        return f"encoder.{name}"
    return name.replace("encoder.", "encoder.transformer.", 1)


@dataclass(frozen=True)
class File:
    """A kind of file: who writes it, of which encoder, and what `torch.save` is given for its state.

    left     keys of the file that are not the encoder's
    state    the `--state` that picks these weights
    old      whether in the form before zip archives
    """

    library: str
    what: str
    kind: str
    content: Callable[[State], Any]
    left: tuple[str, ...] = ()
    state: str = ""
    old: bool = False

    def write(self, net: Any, path: Path, mark: Path | None = None) -> None:
        """Write the file; with `mark`, an object in it makes that folder when it is run."""
        with _modules():
            content = self.content(net.state_dict()) | ({"callback": Marks(mark)} if mark else {})
            torch.save(content, path, _use_new_zipfile_serialization=not self.old)


@dataclass(frozen=True)
class Marks:
    """An object that runs code of the file's author where it is unpickled."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return make_mark, (str(self.path),)


def make_mark(path: str) -> None:
    Path(path).mkdir(exist_ok=True)


@contextmanager
def _modules() -> Iterator[None]:
    """While a file is written, modules that no reader has: their classes stand in the pickle by name."""
    made = {name: types.ModuleType(name) for name in ("s3prl",)}
    sys.modules.update(made)
    _Config.__module__, _Config.__qualname__ = "s3prl", "Config"
    made["s3prl"].Config = _Config  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


class _Config:
    """s3prl keeps an object of a class of its own."""


_Config.__name__ = "Config"


def _fairseq(lead: str, heads: Mapping[str, Tensor], kind: str = "Hubert") -> Callable[[State], Any]:
    def content(state: State) -> Any:
        named = {lead + of_fairseq(k, kind): v for k, v in state.items()}
        assert len(named) == len(state)
        return {
            "args": None,
            "cfg": {"task": {"normalize": False, "sample_rate": 16_000}},
            "model": {**named, **heads},
        }

    return content


def _s3prl(state: State) -> Any:
    settings = {
        "task_cfg": {"normalize": True, "sample_rate": 24_000},
        "model_cfg": {"layer_norm_first": False},
    }
    return {**settings, "model_weight": dict(state), "Config": _Config()}


def _torchaudio(state: State) -> Any:
    named = {of_torchaudio(k): v for k, v in state.items() if k != "masked_spec_embed"}
    return {**named, "aux.weight": torch.ones(2, 24), "aux.bias": torch.ones(2)}


def _prefixed(*prefixes: str) -> Callable[[State], Any]:
    return lambda state: {"model": {"".join(f"{p}." for p in prefixes) + k: v for k, v in state.items()}}


def _inside(wrapper: str) -> Callable[[State], Any]:
    """Layers wrapped one by one."""
    return lambda state: {
        k.replace(".attention.", f".{wrapper}.attention.").replace("conv.weight", f"{wrapper}.conv.weight"): v
        for k, v in state.items()
    }


def _half(state: State) -> State:
    """Other weights beside those that are asked for."""
    return {k: v / 2 for k, v in state.items()}


_QUANTISER = {"quantizer.vars": torch.ones(1, 2, 3), "final_proj.weight": torch.ones(3, 24)}
_TUNED = {"w2v_encoder.proj.weight": torch.ones(3, 24), "w2v_encoder.proj.bias": torch.ones(3)}

FILES = (
    File("fairseq", "HuBERT", "Hubert", _fairseq("", _QUANTISER), tuple(_QUANTISER)),
    File("fairseq", "HuBERT, fine-tuned", "Hubert", _fairseq("w2v_encoder.w2v_model.", _TUNED), tuple(_TUNED)),
    File(
        "fairseq",
        "HuBERT, batch norm before the positional convolution",
        "Hubert batch norm",
        _fairseq("", _QUANTISER, "Hubert batch norm"),
        tuple(_QUANTISER),
    ),
    File(
        "fairseq",
        "HuBERT, batch norm, fine-tuned and wrapped",
        "Hubert batch norm",
        _fairseq("module.encoder.w2v_model.", {}, "Hubert batch norm"),
    ),
    File("fairseq", "data2vec, several positional convolutions", "Data2VecAudio", _fairseq("", {}, "Data2VecAudio")),
    File(
        "fairseq",
        "data2vec, fine-tuned",
        "Data2VecAudio",
        _fairseq("w2v_encoder.w2v_model.", _TUNED, "Data2VecAudio"),
        tuple(_TUNED),
    ),
    File("s3prl", "HuBERT (model_weight, an object of its own)", "Hubert", _s3prl),
    File("torchaudio", "wav2vec 2", "Wav2Vec2", _torchaudio, ("aux.weight", "aux.bias")),
    File("torchaudio", "HuBERT", "Hubert", _torchaudio, ("aux.weight", "aux.bias")),
    File("Lightning", "state_dict beside optimiser and hyper-parameters", "Hubert",
         lambda s: {"state_dict": dict(s), "epoch": 3, "hyper_parameters": {"lr": 1e-4},
                    "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}]}),
    File("PyTorch", "a state dict, old pickle form", "Hubert", dict, old=True),
    File("PyTorch", "DistributedDataParallel (module.)", "Hubert", _prefixed("module")),
    File("PyTorch", "torch.compile (_orig_mod.)", "Hubert", _prefixed("_orig_mod")),
    File("PyTorch", "FSDP around torch.compile", "Hubert", _prefixed("_fsdp_wrapped_module", "_orig_mod")),
    File("PyTorch", "activation checkpoints inside", "Hubert", _inside("_checkpoint_wrapped_module")),
    File("timm", "running average (--state ema)", "Hubert",
         lambda s: {"state_dict": _half(s), "state_dict_ema": dict(s)}, state="ema"),
    File("ema-pytorch", "running average under a prefix (--state ema)", "Hubert",
         lambda s: {"state_dict": {**_half(s), **{f"ema_model.{k}": v for k, v in s.items()}}}, state="ema"),
    File("fairseq", "running average in extra_state (--state ema)", "Hubert",
         lambda s: {"model": _half(s), "extra_state": {"ema": dict(s)}}, state="ema"),
)  # fmt: skip
