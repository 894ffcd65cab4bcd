"""What tools/fuzz.py fuzzes: a parser each, with valid files to start from."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save

from permgraph.evaluation.scoring import score
from permgraph.evaluation.task import load_task
from permgraph.frontend.hugging_face import read_config
from permgraph.inputs import clips as c
from permgraph.inputs.audio import AudioPairs
from permgraph.inputs.sources import Source, gather
from permgraph.linter.notations import read_foreign
from permgraph.planning.selection import refuse_unknown_terms
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.dtypes import DTYPES
from permgraph.weights.preprocessing import preprocessing
from permgraph.weights.ratios import parse_weights
from permgraph.weights.record import Applied, Record, read_record
from permgraph.weights.safetensors_io import Info, write_safetensors

Samples = list[tuple[str, bytes]]
RATE = 16_000
SHAPES = {"layers.0.fc.weight": (8, 4), "layers.1.fc.weight": (8, 4)}


@dataclass(frozen=True)
class Target:
    """A parser.

    make    valid files: name → bytes
    read    parses one; its value is equal for equal contents
    sealed  whether a file carries a digest of its contents, so that none may be read as something else
    """

    name: str
    make: Callable[[Path], Samples]
    read: Callable[[Path], Any]
    sealed: bool = False


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def _tensors(path: Path) -> Any:
    found = open_checkpoint(path)
    found.verify()
    return {
        key: (found.infos[key], found.read(key).reshape(-1).contiguous().view(torch.uint8).tolist())
        for key in found
    }


def _pickled(zipped: bool) -> Callable[[Path], Samples]:
    def make(folder: Path) -> Samples:
        buffer = io.BytesIO()
        content = {"model": _state(), "args": {"lr": 0.1, "names": ["a", "b"]}}
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        return [("x.pt", buffer.getvalue())]

    return make


def _sealed(folder: Path) -> Samples:
    path, state = folder / "made.safetensors", _state()
    record = Record("apply", (Applied("a" * 32, "b" * 32),)).text()
    held = {key: tensor.numpy() for key, tensor in state.items()}
    infos = {key: Info(array.shape, DTYPES["F32"]) for key, array in held.items()}
    write_safetensors(path, infos, lambda key: iter([held[key]]), {"permgraph": record})
    data = path.read_bytes()
    path.unlink()
    return [("x.safetensors", data)]


def _data_alone(path: Path) -> Any:
    """The tensors in file order: of a header that lies consistently only the digest of the data can tell."""
    return [values for _, values in _tensors(path).values()]


def _config(folder: Path) -> Samples:
    from transformers import HubertConfig

    return [("config.json", HubertConfig().to_json_string().encode())]


def _read_config(path: Path) -> Any:
    config, base = read_config(path)
    return base.__name__, config.to_dict()


def _sound() -> np.ndarray[Any, Any]:
    return (0.1 * np.random.default_rng(0).standard_normal(RATE // 2)).astype(np.float32)


FORMS = {
    "wav": ("WAV", "PCM_16"),
    "rf64.wav": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def _audio(folder: Path) -> Samples:
    made = []
    for name, (form, subtype) in FORMS.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, _sound(), RATE, format=form, subtype=subtype)
        made.append((f"x.{name}", buffer.getvalue()))
    return made


def _read_audio(path: Path) -> Any:
    source = Source(path, str(path))
    head = c.header(source)
    return [c.read(clip).tobytes() for clip in c.pieces(source, head, 0.1, 3)]


def _wave() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, _sound(), RATE, format="WAV")
    return buffer.getvalue()


def _lists(folder: Path) -> Samples:
    (folder / "good.wav").write_bytes(_wave())
    cut = {
        "id": "a",
        "start": 0.1,
        "duration": 0.2,
        "channel": 0,
        "recording": {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "good.wav"}]},
    }
    lines = (json.dumps(cut) + "\n").encode() * 3
    packed, archive = io.BytesIO(), io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
        stream.write(lines)
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("inner.wav")
        member.size = len(_wave())
        tar.addfile(member, io.BytesIO(_wave()))
    return [
        ("x.csv", b"path,split\ngood.wav,train\ngood.wav,test\n"),
        ("x.tsv", b"path\tsplit\ngood.wav\ttrain\n"),
        ("x.jsonl", lines),
        ("x.jsonl.gz", packed.getvalue()),
        ("x.tar", archive.getvalue()),
    ]


def _read_list(path: Path) -> Any:
    sources, _ = gather([str(path)])
    pairs = AudioPairs([path], seconds=0.1, max_bad=1.0, allow_empty=True, limit=20)
    return [source.name for source in sources], sum(len(a) for a, _ in pairs)


def _folder(folder: Path) -> Samples:
    state = _state()
    keys = list(state)
    for number, held in enumerate((keys[:2], keys[2:])):
        (folder / f"{number}.safetensors").write_bytes(save({key: state[key] for key in held}))
    index = {"weight_map": {key: f"{int(i > 1)}.safetensors" for i, key in enumerate(keys)}}
    return [("model.safetensors.index.json", json.dumps(index).encode())]


def _text(*texts: str) -> Callable[[Path], Samples]:
    return lambda folder: [(f"{i}.txt", text.encode()) for i, text in enumerate(texts)]


def _typed(read: Callable[[str], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path.read_bytes().decode("utf-8", "surrogateescape"))


def _table(folder: Path) -> Samples:
    rows = [
        f"t{task},{domain},{encoder},linear,acc,0.{task}{i + 1}"
        for task, domain in enumerate(("speech", "music"))
        for i, encoder in enumerate(("A", "B", "M", "log-mel"))
    ]
    return [("results.csv", "\n".join(["task,domain,encoder,head,metric,value", *rows]).encode())]


def _score(path: Path) -> Any:
    made = score(path, ["A", "B"], [], [], resamples=100, seed=0)
    return sorted(map(str, made.scores.items()))


def _known(folder: Path) -> Samples:
    root = Path(__file__).resolve().parents[1]
    bad = sorted((root / "tests" / "linter" / "bad").glob("*"))
    known = [
        p
        for p in sorted((root / "specs" / "known").glob("*.toml"))
        if "[[group]]" in p.read_text(encoding="utf-8")
    ][:2]
    return [
        (f"{i}{p.suffix}", p.read_bytes()) for i, p in enumerate((*bad, *known)) if p.stat().st_size < 50_000
    ]


def _task(folder: Path) -> Samples:
    root = Path(__file__).resolve().parents[1]
    return [
        (f"{i}.toml", p.read_bytes())
        for i, p in enumerate(sorted((root / "specs" / "tasks").glob("*.toml"))[:4])
    ]


ROWS = (
    Target("safetensors", lambda folder: [("x.safetensors", save(_state()))], _tensors),
    Target("written", _sealed, _data_alone, sealed=True),
    Target("zip", _pickled(True), _tensors),
    Target("pickle", _pickled(False), _tensors),
    Target("index", _folder, lambda path: _tensors(path.parent)),
    Target("record", lambda f: [("permgraph.json", Record("merge", weights=(0.5, 0.5)).text().encode())], lambda p: read_record(p.read_bytes(), p)),
    Target("config", _config, _read_config),
    Target("preprocessor", lambda f: [("preprocessor_config.json", b'{"sampling_rate": 16000, "do_normalize": true}')], lambda p: preprocessing(p.parent, {}, {}, None)),
    Target("audio", _audio, _read_audio),
    Target("lists", _lists, _read_list),
    Target("groups", _text("cnn,heads,ffn.0-5", "heads.*/v,ffn.3", "all"), _typed(lambda text: refuse_unknown_terms(text))),
    Target("weights", _text("0.9,0.1", "0.9,0.8,0.5"), _typed(parse_weights)),
    Target("results", _table, _score),
    Target("lint", _known, lambda path: str(read_foreign(path, SHAPES))),
    Target("task", _task, lambda path: load_task(str(path))),
)  # fmt: skip
TARGETS = {target.name: target for target in ROWS}
