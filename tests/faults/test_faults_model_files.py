"""Cases 1-27: what lies in a model folder or a checkpoint, whoever made it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import permgraph as pg
from permgraph.weights import safetensors_io
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.unpickling import Refused  # noqa: F401  (the reader that runs nothing)
from tests.faults.kit import (
    MATCH,
    apply,
    bad,
    change_header,
    config,
    encoder,
    flip,
    good,
    header_of,
    with_header,
)

WEIGHTS = Path("B/model.safetensors")
MERGE = ("merge", "A", "B", "-g", "none", "-o", "out")
PLANNED = ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "out")
K = "encoder.layers.0.attention.k_proj.weight"


def state() -> dict[str, torch.Tensor]:
    return load_file(WEIGHTS)


def save(tensors: dict[str, torch.Tensor], path: Path = WEIGHTS) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


# 1
@pytest.mark.parametrize("size", [0, 5, 200, -5])
def test_truncated_safetensors_are_named_incomplete(place: Path, size: int) -> None:
    WEIGHTS.write_bytes(WEIGHTS.read_bytes()[:size])
    for command in (apply(), MERGE, (*MATCH, "-o", "p.st")):
        said = bad(*command)
        assert "B/model.safetensors: incomplete, expected" in said and "bytes" in said
    assert not Path("out").exists()


def two(header: dict[str, Any]) -> None:
    keys = [k for k in header if k != "__metadata__" and header[k]["shape"] == [16, 16]][:2]
    header[keys[0]]["data_offsets"] = header[keys[1]]["data_offsets"]


# 2
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda: WEIGHTS.write_bytes(WEIGHTS.read_bytes() + b"zz"), "2 bytes after the last tensor"),
        (lambda: change_header(WEIGHTS, two), "overlap or leave a hole"),
        (lambda: change_header(WEIGHTS, lambda h: h[K].update(shape=[16, 17])), "the header gives"),
        (lambda: change_header(WEIGHTS, lambda h: h[K].update(shape=[-16, -16])), "damaged header"),
        (lambda: change_header(WEIGHTS, lambda h: h[K].update(shape=[2**62, 2**62])), "the header gives"),
    ],
    ids=["trailing", "overlap", "shape", "negative", "huge"],
)
def test_safetensors_that_lie_are_refused(place: Path, damage: Callable[[], Any], words: str) -> None:
    damage()
    assert words in bad(*apply())


# 3
@pytest.mark.parametrize(
    "words",
    [
        ("verify", "applied"),
        ("match", "plan.json", "--a", "A", "--b", "applied", *MATCH[6:], "-o", "p.st"),
        ("merge", "A", "applied", "-g", "none", "-o", "out"),
        ("unapply", "plan.json", "perms.safetensors", "applied", "-o", "out"),
    ],
    ids=lambda words: words[0],
)
def test_a_flipped_bit_is_refused_where_a_digest_is_known(place: Path, words: tuple[object, ...]) -> None:
    flip(Path("applied/model.safetensors"))
    assert "data has changed since it was written (checksum data_xxh3_128 differs)" in bad(*words)


# 4
def test_a_duplicate_key_in_a_header_is_refused(place: Path) -> None:
    header, body = header_of(WEIGHTS)
    row = json.dumps({K: header[K]})[1:-1]
    with_header(WEIGHTS, json.dumps(header)[:-1] + f",{row}}}", body)
    assert "appears twice" in bad(*apply())


# 5
def test_a_huge_header_is_refused_before_it_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WEIGHTS.write_bytes(struct.pack("<Q", 2**40) + b"{" + b" " * 100)
    assert "its header would take 1,099,511,627,776 bytes" in bad(*apply())
    monkeypatch.setattr(safetensors_io, "MAX_TENSORS", 3)
    assert "more than 3" in bad(*apply("A"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was_run",)


def as_bin(content: Any, **options: Any) -> None:
    WEIGHTS.unlink()
    torch.save(content, "B/pytorch_model.bin", **options)


# 6
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(place: Path, zipped: bool) -> None:
    as_bin(state() | {"x": Evil()}, _use_new_zipfile_serialization=zipped)
    for command in (apply(), MERGE, ("verify", "B"), (*MATCH, "-o", "p.st")):
        said = bad(*command)
        assert "refused, nothing was run" in said and f"{os.system.__module__}.system" in said
    assert not Path("was_run").exists()


class Config:
    """Of a library that is not installed where the file is read."""


# 7
def test_a_training_file_loads_through_inert_stubs(place: Path) -> None:
    made = Config()
    made.lr = 1e-3  # type: ignore[attr-defined]
    torch.save({"cfg": made, "model": state(), "optimizer": {"step": 3}}, "B.pt")
    code = Path(__file__).read_text(encoding="utf-8")
    assert "Config" in code
    found = open_checkpoint("B.pt")
    assert all(torch.equal(found.read(k), t) for k, t in state().items())


# 8
def test_a_truncated_pickle_is_named(place: Path) -> None:
    as_bin(state())
    path = Path("B/pytorch_model.bin")
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert "B/pytorch_model.bin: " in bad(*apply())


def shards(names: dict[str, str], files: dict[str, list[str]]) -> None:
    """B in shards: what the index says, and what each file holds."""
    tensors = state()
    WEIGHTS.unlink()
    for name, keys in files.items():
        save({key: tensors[key] for key in keys}, Path("B", name))
    Path("B/model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


# 9
@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a\\b.safetensors", "C:x.safetensors"])
def test_a_shard_outside_the_folder_is_refused(place: Path, name: str) -> None:
    shards(dict.fromkeys(state(), name), {})
    assert "is not a plain file name; refusing to follow it" in bad(*apply())


# 9
def test_nothing_behind_a_link_that_leaves_the_folder_is_read_or_copied(place: Path) -> None:
    Path("secret.txt").write_text("secret")
    Path("B/notes.txt").symlink_to("../secret.txt")
    Path("B/own.txt").write_text("own")
    Path("B/inside.txt").symlink_to("own.txt")
    good(*apply())
    assert Path("out/inside.txt").read_text() == "own" and not Path("out/notes.txt").exists()
    Path("moved.json").write_bytes(Path("B/config.json").read_bytes())
    Path("B/config.json").unlink()
    Path("B/config.json").symlink_to("../moved.json")
    assert "a link that leaves the folder" in bad(*apply(out="other"))
    shutil.move(WEIGHTS, "weights.safetensors")
    WEIGHTS.symlink_to("../weights.safetensors")
    assert "a link that leaves the folder" in bad(*apply(out="third"))


# 10
def test_an_index_and_shards_that_disagree_are_refused(place: Path) -> None:
    keys, original = list(state()), WEIGHTS.read_bytes()
    halves = {"1.safetensors": keys[:9], "2.safetensors": keys[9:]}
    right = {key: name for name, held in halves.items() for key in held}
    for names, files, words in (
        (right | {keys[0]: "3.safetensors"}, halves, "named here, not in the folder"),
        (right | {"gone": "1.safetensors"}, halves, "absent from the shard"),
        (right, halves | {"2.safetensors": keys}, "in a shard that the index does not give for it"),
    ):
        shards(names, files)
        assert words in bad(*apply())
        WEIGHTS.write_bytes(original)
        Path("B/model.safetensors.index.json").unlink()


# 11
def test_missing_and_unexpected_keys_are_listed(place: Path) -> None:
    tensors = state()
    save({k: t for k, t in tensors.items() if "k_proj" not in k})
    assert "k_proj.weight" in bad(*apply()) and "missing" in bad(*apply())
    save(tensors | {"head.weight": torch.ones(3)})
    assert "head.weight" in bad(*apply())
    good(*apply("B", "out", "--ignore-unexpected", "head.*", "--no-check"))
    assert torch.equal(load_file("out/model.safetensors")["head.weight"], torch.ones(3))


# 12
def test_a_wrong_shape_is_told_with_both(place: Path) -> None:
    save(state() | {K: torch.ones(16, 17)})
    said = bad(*apply())
    assert K in said and "16, 17" in said and "16, 16" in said


# 13
@pytest.mark.sampled(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_moved_as_it_is_and_merged_in_float32(place: Path, dtype: torch.dtype) -> None:
    low = {k: t.to(dtype) for k, t in state().items()}
    save(low)
    good(*apply("B", "out", "--other-weights"))
    moved = load_file("out/model.safetensors")
    assert all(t.dtype == dtype for t in moved.values())
    assert all(torch.equal(moved[k].flatten().sort()[0], low[k].flatten().sort()[0]) for k in low)
    good("merge", "A", "B", "-g", "none", "-o", "m", "--weights", "0.5,0.5")
    good("merge", "B", "A", "-g", "none", "-o", "n", "--weights", "0.5,0.5")
    assert load_file("m/model.safetensors")[K].dtype == torch.float32
    a = load_file("A/model.safetensors")[K]
    assert torch.equal(load_file("n/model.safetensors")[K], (0.5 * low[K].float() + 0.5 * a).to(dtype))


# 14
def test_mixed_dtypes_are_kept_and_told(place: Path) -> None:
    save({k: t.half() if "k_proj" in k else t for k, t in state().items()})
    told = "tensors of several dtypes, each kept: 2 of float16, 28 of float32"
    assert told in good(*apply("B", "out", "--other-weights")).err
    assert {str(t.dtype) for t in load_file("out/model.safetensors").values()} == {
        "torch.float16",
        "torch.float32",
    }
    assert told in good(*MERGE[:-1], "m").err


# 15
def test_quantised_weights_are_refused(place: Path) -> None:
    save(state() | {K: torch.ones(16, 16, dtype=torch.int8)})
    assert "quantised" in bad(*apply())
    save(state() | {K: torch.ones(16, 16)})
    config("B", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quant" in bad(*apply())


# 16
def test_eight_bit_floats_are_moved_and_packed_ones_refused(place: Path) -> None:
    save({k: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for k, t in state().items()})
    good(*apply("B", "out", "--other-weights", "--no-check"))
    assert load_file("out/model.safetensors")[K].dtype == torch.float8_e4m3fn
    change_header(WEIGHTS, lambda h: h[K].update(dtype="F4"))
    assert "dtype F4, which is packed or unknown" in bad(*apply(out="x"))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.up = nn.Embedding(7, 6), nn.Linear(6, 8)
        self.down, self.out = nn.Linear(8, 6), nn.Linear(6, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.down(torch.relu(self.up(self.table(tokens)))))


# 17
def test_a_tied_tensor_is_moved_once_and_stays_tied() -> None:
    model = Tied()
    tokens = torch.arange(5)[None]
    spec = pg.infer(pg.trace(model, (tokens,)))
    plan = pg.plan(spec)
    moved = pg.apply(plan, pg.random_permutations(plan, 3), model.state_dict(keep_vars=True))
    assert moved["out.weight"] is moved["table.weight"]
    assert pg.verify(model, (tokens,), spec) < 1e-9


# 18
def test_views_that_are_not_contiguous_are_moved_like_their_copies(place: Path) -> None:
    plan, perms = pg.Plan.load("plan.json"), pg.Permutations.load("perms.safetensors")
    views = {k: t.T.contiguous().T if t.ndim == 2 else t for k, t in state().items()}
    want = pg.apply(plan, perms, state())
    assert all(torch.equal(t, want[k]) for k, t in pg.apply(plan, perms, views).items())


# 19
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "command", [apply(), PLANNED, (*MATCH, "-o", "p.st"), ("verify", "B")], ids=lambda c: c[0]
)
def test_weights_that_are_no_numbers_are_named(
    place: Path, value: float, command: tuple[object, ...]
) -> None:
    tensors = state()
    tensors[K][0, :2] = value
    save(tensors)
    said = bad(*command)
    assert f"{K}: 2 of 256 values are NaN or inf" in said
    assert not Path("out").exists()


# 20
def test_empty_scalar_and_unused_tensors_are_carried_through(place: Path) -> None:
    extra = {
        "x.scalar": torch.tensor(3.0),
        "x.empty": torch.zeros(0, 4),
        "n.num_batches_tracked": torch.tensor(7),
    }
    save(state() | extra)
    good(*apply("B", "out", "--ignore-unexpected", "x.*", "--no-check"))
    written = load_file("out/model.safetensors")
    assert all(torch.equal(written[k], t) and written[k].dtype == t.dtype for k, t in extra.items())


# 21
def test_models_of_other_sizes_are_refused_with_the_fields_that_differ(place: Path) -> None:
    encoder("C", 2, num_hidden_layers=2, intermediate_size=32)
    said = bad("merge", "A", "C", "-g", "none", "-o", "out")
    assert "num_hidden_layers" in said and "intermediate_size" in said


# 22
def test_pre_and_post_norm_of_the_same_shapes_are_refused(place: Path) -> None:
    config("B", do_stable_layer_norm=True)
    said = bad("merge", "A", "B", "-g", "none", "-o", "out")
    assert "do_stable_layer_norm" in said and "not one architecture" in said
    assert "do_stable_layer_norm" in bad(*MATCH, "-o", "p.st")


# 23
@pytest.mark.parametrize("field", ["feature_extractor_cqt", "deepnorm"])
def test_a_mert_that_is_no_hubert_is_refused_with_the_reason(place: Path, field: str) -> None:
    config("B", model_type="mert_model", **{field: True})
    assert f"this MERT has {field} = true: it " in bad("trace", "B", "-o", "x.json")


# 24
def test_other_sampling_rates_are_refused_unless_asked_for(place: Path) -> None:
    Path("B/preprocessor_config.json").write_text('{"sampling_rate": 24000, "do_normalize": false}')
    assert "--per-model-rate" in bad(*MATCH, "-o", "p.st")
    good(*MATCH, "-o", "p.st", "--per-model-rate")


# 25
def test_code_in_a_model_folder_is_never_run(place: Path) -> None:
    Path("B/evil.py").write_text("open('CANARY', 'w')\nclass Model: pass\n")
    config("B", model_type="mine", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Model"})
    for command in (("trace", "B", "-o", "x.json"), ("verify", "B"), MERGE, (*MATCH, "-o", "p.st")):
        assert "which permgraph never runs" in bad(*command)
    assert not Path("CANARY").exists() and not Path("B/CANARY").exists()


# 26
def test_both_spellings_of_weight_norm_are_one_tensor_and_each_file_keeps_its_own(place: Path) -> None:
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def spelt(key: str) -> str:
        for new, name in old.items():
            key = key.replace(new, name)
        return key

    save({spelt(k): t for k, t in state().items()})
    good(*apply())
    assert {k for k in load_file("out/model.safetensors") if k.endswith(("_g", "_v"))}
    good(*PLANNED[:-1], "m")
    assert load_file("m/model.safetensors").keys() == load_file("A/model.safetensors").keys()


# 27
def test_the_hub_out_of_reach_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = bad("trace", "nobody/nothing", "-o", "x.json")
    assert said.count("\n") == 1 and "cannot be read from the Hugging Face hub" in said
