"""A small pair of encoders with everything that was made from them, and hostile files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import HubertConfig, HubertModel

from tests.test_cli import Said, run

RATE = 16_000
TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
MATCH = ("match", "plan.json", "--a", "A", "--b", "B", "--audio", "audio", "--seconds", "0.3")


def encoder(folder: str | Path, seed: int, **config: Any) -> None:
    """A HuBERT of some thousand weights, every one of them away from ones and zeros."""
    torch.manual_seed(seed)
    model = HubertModel(HubertConfig(**(TINY | config)))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn(tensor.shape))
    model.save_pretrained(folder)


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def put(path: str | Path, samples: np.ndarray, rate: int = RATE, **options: Any) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **({"subtype": "FLOAT"} | options))
    return Path(path)


def make_pair(folder: Path) -> None:
    """A, B, audio, a trace, a plan, permutations, moments, and B permuted, in the working directory `folder`."""
    encoder("A", 0)
    encoder("B", 1)
    for i in range(4):
        put(f"audio/{i}.wav", noise(i))
    good("trace", "A", "-o", "t.json")
    good("plan", "t.json", "-o", "plan.json")
    good(*MATCH, "-o", "perms.safetensors")
    good("calibrate", *MATCH[1:], "-o", "moments.safetensors")
    good("apply", "plan.json", "perms.safetensors", "B", "-o", "applied")
    good("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "merged")


def good(*words: object) -> Said:
    said = run(*words)
    assert said.code == 0, said.err
    return said


def bad(*words: object, code: int = 3) -> str:
    """A command that has to fail with one message: the message."""
    said = run(*words)
    assert said.code == code, (said.code, said.out[-300:], said.err[-2000:])
    assert "Traceback" not in said.err and "this is a fault of permgraph:" not in said.err
    return said.err


def apply(model: object = "B", out: object = "out", *more: object) -> tuple[object, ...]:
    return ("apply", "plan.json", "perms.safetensors", model, "-o", out, *more)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path: Path, text: str | bytes, body: bytes) -> None:
    text = text.encode() if isinstance(text, str) else text
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def change_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    header, body = header_of(path)
    change(header)
    with_header(path, json.dumps(header), body)


def flip(path: Path, at: int = -7) -> None:
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def config(folder: str, **fields: Any) -> None:
    """Write fields into the configuration of a model folder."""
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder: name → bytes."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts
    }
