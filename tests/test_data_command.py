"""`match` and `merge` from the command line on what is not audio: text, images, tokens, and functions of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from networks.randomise import randomise
from safetensors.torch import load_file

from permgraph.calibration import Calibration
from permgraph.errors import MatchError, UsageError
from permgraph.inputs.batches import text_batches, user_batches
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.pipeline import plan_for
from permgraph.weights.apply import apply_checkpoint
from permgraph.weights.encoder import open_encoder
from tests.command import run

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["the", "a", "cat", "dog", "bird", "sees", "hears", "finds", "red", "old", "new"],
]
NETS: dict[str, Any] = {
    "Bert": lambda: transformers.BertConfig(**SMALL, vocab_size=len(WORDS)),
    "Llama": lambda: transformers.LlamaConfig(**SMALL, num_key_value_heads=1, vocab_size=30),
    "ViT": lambda: transformers.ViTConfig(**SMALL, image_size=16, patch_size=8),
    "ResNet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
    ),
}
DATA = """
import torch

def tokens():
    g = torch.Generator().manual_seed(0)
    for _ in range(6):
        yield {"input_ids": torch.randint(2, 30, (4, 9), generator=g), "labels": torch.zeros(4)}

def images():
    g = torch.Generator().manual_seed(0)
    pictures = [torch.randn(8, 3, 16, 16, generator=g) for _ in range(3)]
    return [{"pixel_values": x, "labels": torch.zeros(8)} for x in pictures]

def number():
    return 3
"""


def planted(folder: Path, kind: str) -> Permutations:
    """Two folders: a network, and the same with its units in another order."""
    net = randomise(getattr(transformers, f"{kind}Model")(NETS[kind]()))
    net.save_pretrained(folder / "a")  # type: ignore[operator]
    plan = plan_for(open_encoder(folder / "a"), "all")
    plan.save(folder / "plan.json")
    perms = random_permutations(plan, 3)
    apply_checkpoint(plan, perms, folder / "a", folder / "b")
    return perms.inverse(plan.spec)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "kind, words",
    [
        ("Bert", ("--text",)),
        ("Llama", ("--data", "tokens")),
        ("ViT", ("--data", "images")),
        ("ResNet", ("--data", "images")),
    ],
)
def test_planted_units_are_found_and_merged_back(tmp_path: Path, kind: str, words: tuple[str, ...]) -> None:
    answer = planted(tmp_path, kind)
    (tmp_path / "data.py").write_text(DATA)
    if words[0] == "--text":
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
        transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "a")
        rng = np.random.default_rng(0)
        lines = [" ".join(rng.choice(WORDS[5:], rng.integers(3, 6))) for _ in range(60)]
        (tmp_path / "text.txt").write_text("\n".join(lines))
        data = ["--text", tmp_path / "text.txt"]
    else:
        data = [words[0], f"{tmp_path / 'data.py'}:{words[1]}"]
    a, b = tmp_path / "a", tmp_path / "b"
    run("match", tmp_path / "plan.json", "--a", a, "--b", b, *data, "-o", tmp_path / "p.safetensors")
    found = Permutations.load(tmp_path / "p.safetensors")
    wrong = [g for g in answer if not np.array_equal(found[g], answer[g])]
    assert not [g for g in wrong if "qk" not in g], wrong
    run(
        "merge",
        a,
        b,
        "--plan",
        tmp_path / "plan.json",
        "--perms",
        tmp_path / "p.safetensors",
        "-o",
        tmp_path / "m",
    )
    merged, of_a = (load_file(tmp_path / name / "model.safetensors") for name in ("m", "a"))
    if not wrong:  # channels of q and k that few words tell apart change nothing that is matched
        for key, tensor in of_a.items():
            torch.testing.assert_close(merged[key], tensor, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(DATA)
    with pytest.raises(Exception, match=r"data\.py:number: returned a int; it must yield batches"):
        list(user_batches(f"{tmp_path / 'data.py'}:number"))
    assert len(list(user_batches(f"{tmp_path / 'data.py'}:images", limit=2))) == 2
    for name, limit, totals in (("images", None, 3), ("images", 2, 2), ("tokens", 4, 4), ("tokens", 9, 9)):
        told: list[tuple[int, int]] = []
        batches = user_batches(f"{tmp_path / 'data.py'}:{name}", limit=limit)
        batches.progress = lambda *step, told=told: told.append(step)
        done = len(list(batches))
        assert told[0] == (1, totals) and told[-1] == (done, done) and len(told) in (done, done + 1)
    with pytest.raises(UsageError, match="--audio and --text: calibrate on one kind of data"):
        Calibration(audio=("x",), text=("y",)).given  # noqa: B018
    (tmp_path / "text.txt").write_text("a cat")
    with pytest.raises(MatchError, match="--text needs its tokenizer, which cannot be read"):
        text_batches(tmp_path, [str(tmp_path / "text.txt")])
