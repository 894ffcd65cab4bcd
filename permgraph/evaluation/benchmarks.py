"""Encoders for the benchmarks of others: a folder with the weights of one, and the small class that a benchmark loads.

The class is one file of Python, put together from specs/benchmarks: what all of them share, and what one benchmark asks
for. It needs torch, transformers and the benchmark, not permgraph.
"""

from __future__ import annotations

import json
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.atomic_write import refuse_output, replacing, write_file
from permgraph.data_files import specs
from permgraph.errors import UsageError, nearest
from permgraph.evaluation.features import FrozenEncoder, usable_rate
from permgraph.inputs.clips import LONGEST, SHORTEST
from permgraph.weights.encoder import open_encoder
from permgraph.weights.safetensors_io import Info, write_safetensors
from permgraph.weights.tensors import held_by

if TYPE_CHECKING:
    from permgraph.weights.encoder import Encoder

# Benchmark → the file that it loads, {} for the name of the model; whether it loads it by the path of its folder
FORMATS = {
    "xares": "{}_encoder.py",
    "mteb": "{}_mteb.py",
    "s3prl": "hubconf.py",
    "marble": "{}_marble.py",
}
IMPORTED = ("xares", "marble")  # as FOLDER.FILE, so that the folder's name is a word of Python too
MARK = "export.json"  # says that permgraph wrote the folder


@dataclass(frozen=True)
class Exported:
    """Where an encoder was written: the folder, and the file in it that the benchmark loads; what was assumed of its audio."""

    folder: Path
    file: Path
    notes: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """How to run the benchmark on it: the head of the file."""
        return self.file.read_text(encoding="utf-8").split('"""')[1].strip()


def export(
    model: str | Path, format: str, out: str | Path, *, model_class: str = "", force: bool = False
) -> Exported:
    """Write an encoder as a benchmark loads it. See `permgraph.export`."""
    out = Path(out)
    refuse_export(format, out, force)
    encoder = open_encoder(model, model_class=model_class)
    usable_rate(encoder)
    name = _word(encoder.name)
    file = FORMATS[format].format(name)
    refuse_output(out, folder=True, force=force, inputs=(encoder.path,), mark=MARK)
    with replacing(out, folder=True, force=force, inputs=(encoder.path,), mark=MARK) as partial:
        frozen = FrozenEncoder(encoder)
        _write_model(partial, encoder, frozen)
        write_file(partial / file, _source(format, out.name, name, file, encoder, frozen).encode())
        mark = {"permgraph": "export", "format": format, "model": encoder.name, "digest": frozen.digest}
        write_file(partial / MARK, f"{json.dumps(mark)}\n".encode())
    assumed = encoder.audio.assumed
    return Exported(out, out / file, (f"{encoder.name}: {assumed}.",) if assumed else ())


def refuse_export(format: str, out: Path, force: bool = False) -> None:
    """What can be told before a model is opened. Raises UsageError, FileError."""
    if format not in FORMATS:
        raise UsageError(
            f"--format {format}: no such benchmark.{nearest(format, FORMATS)} There are: {', '.join(FORMATS)}."
        )
    if format in IMPORTED and (not out.name.isidentifier() or keyword.iskeyword(out.name)):
        raise UsageError(
            f"-o {out}: {format} imports the folder, so its name is of letters, digits and underscores, and begins "
            "with a letter. Choose another -o."
        )
    if not out.name.isprintable() or '"' in out.name or "\\" in out.name:
        raise UsageError(
            f"-o {out}: the name is written into a file of Python, so it has no quotes, backslashes or control characters. "
            "Choose another -o."
        )
    refuse_output(out, folder=True, force=force, mark=MARK)


def _word(name: str) -> str:
    """A name as a word of Python: hubert-base_0.9 is hubert_base_0_9."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return word if word.isidentifier() and not keyword.iskeyword(word) else f"model_{word}"


def _write_model(folder: Path, encoder: Encoder, frozen: FrozenEncoder) -> None:
    """The base model as transformers loads it, in float32, and what its audio goes through."""
    module: Any = frozen.module
    held = {name: held_by(tensor) for name, tensor in module.state_dict().items()}
    infos = {name: Info(numbers.shape, dtype) for name, (numbers, dtype) in held.items() if dtype is not None}
    assert infos.keys() == held.keys(), "a type that safetensors cannot hold"
    write_safetensors(
        folder / "model.safetensors", infos, lambda name: iter([held[name][0]]), {"format": "pt"}
    )
    config = {**module.config.to_dict(), "architectures": [type(module).__name__], "dtype": "float32"}
    write_file(folder / "config.json", json.dumps(config, indent=1, default=str).encode())
    audio = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "sampling_rate": frozen.preprocess.rate,
        "do_normalize": frozen.preprocess.normalize,
        "return_attention_mask": encoder.config.get("feat_extract_norm") == "layer",
    }
    write_file(folder / "preprocessor_config.json", json.dumps(audio, indent=1).encode())


def _source(format: str, folder: str, name: str, file: str, encoder: Encoder, frozen: FrozenEncoder) -> str:
    """The file of Python: the head of the benchmark's part, the shared part, the rest of the benchmark's part."""
    shared, part = (
        (specs() / "benchmarks" / f"{x}.py").read_text(encoding="utf-8") for x in ("shared", format)
    )
    _, head, rest = part.split('"""', 2)
    module: Any = frozen.module
    words = {
        "PermgraphEncoder": f"{name.title().replace('_', '')}Encoder",
        "PermgraphName": name,
        "PermgraphDigest": frozen.digest[:12],
        "PermgraphParameters": str(sum(p.numel() for p in module.parameters())),
        "PermgraphWidth": str(module.config.hidden_size),
        "PermgraphLayers": str(module.config.num_hidden_layers),
        "PermgraphRate": str(frozen.preprocess.rate),
        "PermgraphLongest": f"{LONGEST:g}",
        "PermgraphShortest": f"{SHORTEST:g}",
        "permgraph_encoder": name,
        "FOLDER": folder,
        "FILE.py": file,
        "FILE": file.removesuffix(".py"),
    }
    written = f'"""{head}"""\n\n{shared.rstrip()}\n{rest}'
    for word, value in words.items():
        written = written.replace(word, value)
    return written
