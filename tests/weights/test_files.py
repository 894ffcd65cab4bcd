"""`apply_checkpoint` and the write protocol: a result is whole or absent, and nothing else is touched."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from oracles.memory import with_tools
from safetensors.torch import load_file, save_file

from permgraph.atomic_write import _exchange, replacing
from permgraph.errors import FileError, PlanError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Origin
from permgraph.weights.apply import apply, apply_checkpoint
from permgraph.weights.checkpoint import open_checkpoint

from .conftest import Maker
from .nets import NETS, mlp, shifted

NET = mlp()
PERMS = random_permutations(NET.plan, 0)


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {f.name: f.read_bytes() for f in files}


def leftovers(folder: Path) -> list[str]:
    return sorted(
        p.name for p in folder.iterdir() if ".partial-" in p.name or ".bak-" in p.name or "lock" in p.name
    )


@pytest.mark.parametrize("kind", ["single", "shards", "bin", "bin shards"])
@pytest.mark.parametrize("name", NETS)
def test_a_folder_is_permuted_like_a_state_dict(
    make_folder: Maker, tmp_path: Path, kind: str, name: str
) -> None:
    net = NETS[name]()
    perms = random_permutations(net.plan, 1)
    state = {
        k: v.to(torch.bfloat16 if i % 2 else torch.float32) for i, (k, v) in enumerate(net.state.items())
    }
    files = {"tokenizer__json": "{}", "vocab__txt": "a", "modeling_x__py": "raise SystemExit", "old__h5": ""}
    source = make_folder(state, kind, **files)
    out = apply_checkpoint(net.plan, perms, source, tmp_path / "out")
    found, want = open_checkpoint(out), apply(net.plan, perms, state)
    assert set(found) == set(want)
    assert all(
        found.infos[k].dtype.torch == state[k].dtype and torch.equal(found.read(k), want[k]) for k in want
    )
    assert {p.name for p in out.iterdir()} >= {"config.json", "tokenizer.json", "vocab.txt", "permgraph.json"}
    assert not {p.suffix for p in out.iterdir()} & {".py", ".bin", ".h5"}
    layout = [sorted(s.infos) for s in open_checkpoint(source).shards]
    assert [sorted(s.infos) for s in found.shards] == layout
    assert leftovers(tmp_path) == []


def test_a_file_is_permuted_like_a_state_dict_and_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    save_file(NET.state, source, metadata={"note": "kept"})
    one = apply_checkpoint(NET.plan, PERMS, source, tmp_path / "one.safetensors")
    two = apply_checkpoint(NET.plan, PERMS, source, tmp_path / "two.safetensors")
    found, want = load_file(one), apply(NET.plan, PERMS, NET.state)
    assert all(torch.equal(found[k], want[k]) for k in want)
    assert one.read_bytes() == two.read_bytes()
    assert open_checkpoint(one).shards[0].metadata["note"] == "kept"
    torch.save({"model": NET.state}, tmp_path / "in.pt")
    three = load_file(apply_checkpoint(NET.plan, PERMS, tmp_path / "in.pt", tmp_path / "three.safetensors"))
    assert all(torch.equal(three[k], want[k]) for k in want)
    with pytest.raises(FileError, match=r"is a \.safetensors file; name it so"):
        apply_checkpoint(NET.plan, PERMS, source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["single", "file"])
def test_45_the_same_permutations_are_not_applied_twice(
    make_folder: Maker, tmp_path: Path, kind: str
) -> None:
    source = make_folder(NET.state)
    suffix = ""
    if kind == "file":
        source, suffix = source / "model.safetensors", ".safetensors"
    once = apply_checkpoint(NET.plan, PERMS, source, tmp_path / f"once{suffix}")
    with pytest.raises(PlanError, match="already applied to it"):
        apply_checkpoint(NET.plan, PERMS, once, tmp_path / f"twice{suffix}")
    back = apply_checkpoint(NET.plan, PERMS.inverse(NET.spec), once, tmp_path / f"back{suffix}")
    found = open_checkpoint(back)
    assert all(torch.equal(found.read(k), v) for k, v in NET.state.items())
    assert len(found.record.applied) == 2


def test_46_nothing_is_written_when_a_tensor_is_missing_misshapen_or_the_permutation_is_none(
    make_folder: Maker, tmp_path: Path
) -> None:
    short = make_folder({k: v for k, v in NET.state.items() if k != "fc2.bias"}, name="short")
    wrong = make_folder({**NET.state, "fc1.bias": torch.zeros(25)}, name="wrong")
    good = make_folder(NET.state, name="good")
    bad = Permutations({"ffn.0": torch.tensor([0, 0]).numpy()})
    before = sorted(tmp_path.iterdir())
    for source, perms, words in [
        (short, PERMS, r"1 of the plan's 4 tensors are missing: fc2\.bias"),
        (wrong, PERMS, r"stored \(25,\), the plan has \(24,\)"),
        (good, bad, "exactly once"),
    ]:
        with pytest.raises((FileError, PlanError), match=words):
            apply_checkpoint(NET.plan, perms, source, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_3_a_result_whose_bits_have_changed_is_not_used(make_folder: Maker, tmp_path: Path) -> None:
    out = apply_checkpoint(NET.plan, PERMS, make_folder(NET.state), tmp_path / "out")
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-9] ^= 1
    (out / "model.safetensors").write_bytes(data)
    with pytest.raises(FileError, match="checksum data_xxh3_128 differs"):
        apply_checkpoint(NET.plan, shifted(NET.spec), out, tmp_path / "again")


def test_47_what_unapply_gives_back_has_to_be_what_was_matched(make_folder: Maker, tmp_path: Path) -> None:
    weights = Fingerprint(NET.spec)
    for key, tensor in NET.state.items():
        weights.add(key, tensor)
    perms = replace(PERMS, origin=Origin(NET.plan.digest, NET.plan.fingerprint, weights_b=weights.text))
    there = apply_checkpoint(NET.plan, perms, make_folder(NET.state), tmp_path / "there")
    back = open_checkpoint(apply_checkpoint(NET.plan, perms, there, tmp_path / "back", undo=True))
    assert all(torch.equal(back.read(key), tensor) for key, tensor in NET.state.items())
    later = make_folder({key: tensor + 1 for key, tensor in NET.state.items()}, name="later")
    other = apply_checkpoint(NET.plan, perms, later, tmp_path / "other", other_weights=True)
    with pytest.raises(PlanError, match="matched on other weights as B"):
        apply_checkpoint(NET.plan, perms, other, tmp_path / "no", undo=True)
    assert not (tmp_path / "no").exists()


def test_72_an_output_that_exists_is_kept_unless_forced_and_ours(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(NET.state), tmp_path / "out"
    other = shifted(NET.spec)
    apply_checkpoint(NET.plan, PERMS, source, out)
    before = content(out)
    with pytest.raises(FileError, match=r"out: exists\. Choose another -o, or pass --force"):
        apply_checkpoint(NET.plan, other, source, out)
    assert content(out) == before
    apply_checkpoint(NET.plan, other, source, out, force=True)
    assert torch.equal(open_checkpoint(out).read("fc1.bias"), apply(NET.plan, other, NET.state)["fc1.bias"])
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(FileError, match=r"holds no permgraph\.json, so permgraph did not write it"):
        apply_checkpoint(NET.plan, PERMS, source, home, force=True)
    assert (home / "thesis.txt").read_text() == "years of work"
    assert leftovers(tmp_path) == []


def test_72_outputs_that_would_do_harm_are_refused(make_folder: Maker, tmp_path: Path) -> None:
    source = make_folder(NET.state)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe.safetensors")
    single = source / "model.safetensors"
    cases = [
        (source, source, "output and input are the same"),
        (source, source / "sub", "lies inside the input"),
        (source, tmp_path, "holds the input"),
        (source, tmp_path / "file", "exists and is not a folder"),
        (source, tmp_path / "link", "a link; refusing"),
        (source, tmp_path / "no" / "out", "does not exist. Make it first"),
        (single, single, "output and input are the same"),
        (single, tmp_path / "pipe.safetensors", "exists and is not a regular file"),
    ]
    before = content(source)
    for read, out, words in cases:
        with pytest.raises(FileError, match=words):
            apply_checkpoint(NET.plan, PERMS, read, out, force=True)
    assert content(source) == before and (tmp_path / "file").read_text() == "kept"
    assert leftovers(tmp_path) == []


def test_73_files_have_the_mode_of_the_umask(make_folder: Maker, tmp_path: Path) -> None:
    source = make_folder(NET.state)
    (source / "config.json").chmod(0o600)
    old = os.umask(0o027)
    try:
        out = apply_checkpoint(NET.plan, PERMS, source, tmp_path / "out")
    finally:
        os.umask(old)
    assert {stat.S_IMODE(p.stat().st_mode) for p in out.iterdir()} == {0o640}
    assert stat.S_IMODE(out.stat().st_mode) == 0o750


def test_74_a_second_run_to_one_output_is_told_so(make_folder: Maker, tmp_path: Path) -> None:
    source = make_folder(NET.state)
    (tmp_path / "out.partial-4242").mkdir()
    with FileLock(tmp_path / ".out.lock"), pytest.raises(FileError, match=r"locked.*\(pid 4242\)"):
        apply_checkpoint(NET.plan, PERMS, source, tmp_path / "out")
    apply_checkpoint(NET.plan, PERMS, source, tmp_path / "out")
    assert leftovers(tmp_path) == []  # the stale partial went too


CHILD = """
import os, resource, signal, sys
from permgraph.weights import output
from permgraph.errors import FileError
from permgraph.weights.apply import apply_checkpoint
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan

how, folder, source, out = sys.argv[1:]
plan, perms = Plan.load(f"{folder}/plan.json"), Permutations.load(f"{folder}/perms.safetensors")
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
if how == "kill":
    output.write_file = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
try:
    apply_checkpoint(plan, perms, source, out, force=True)
except FileError as error:
    sys.exit(str(error))
assert "transformers" not in sys.modules and "permgraph.frontend.capture" not in sys.modules
"""


def child(how: str, folder: Path, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    NET.plan.save(folder / "plan.json")
    shifted(NET.spec).save(folder / "perms.safetensors")
    arguments = [sys.executable, "-c", CHILD, how, str(folder), str(source), str(out)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_67_71_a_full_disk_or_a_kill_leaves_the_old_output_and_the_next_run_works(
    make_folder: Maker, tmp_path: Path
) -> None:
    source, out = make_folder(NET.state), tmp_path / "out"
    apply_checkpoint(NET.plan, PERMS, source, out)
    before = content(out)

    full = child("full", tmp_path, source, out)
    assert full.returncode == 1 and "out: cannot write: File too large. Nothing was changed." in full.stderr
    assert content(out) == before and leftovers(tmp_path) == []

    killed = child("kill", tmp_path, source, out)
    assert killed.returncode == -signal.SIGKILL
    assert content(out) == before
    assert [n for n in leftovers(tmp_path) if ".partial-" in n]

    good = child("run", tmp_path, source, out)  # also: without transformers or the capture
    assert good.returncode == 0, good.stderr
    want = apply(NET.plan, shifted(NET.spec), NET.state)
    assert all(torch.equal(open_checkpoint(out).read(k), want[k]) for k in want)
    assert leftovers(tmp_path) == []


def test_71_a_kill_between_the_two_renames_is_repaired(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(NET.state), tmp_path / "out"
    apply_checkpoint(NET.plan, PERMS, source, out)
    before = content(out)
    out.rename(tmp_path / "out.bak-77")
    with pytest.raises(FileError, match="exists"):
        apply_checkpoint(NET.plan, PERMS, source, out)
    assert content(out) == before


SWAP = """
import os, signal, sys
from pathlib import Path
from permgraph import atomic_write
from permgraph.atomic_write import _exchange, replacing

kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "before":
    atomic_write._swap = kill
if sys.argv[1] == "between":
    os.rename = kill
if sys.argv[1] == "after":
    atomic_write._sync_folder = lambda path, sync=atomic_write._sync_folder: kill() if path.name == "place" else sync(path)
with replacing(Path(sys.argv[2]), folder=True, force=True, mark="mark") as partial:
    for name in ("mark", "other"):
        (partial / name).write_text("new")
"""


@pytest.mark.parametrize(("when", "left"), [("before", "old"), ("between", "new"), ("after", "new")])
def test_71_a_kill_at_any_step_of_an_exchange_leaves_the_old_or_the_new(
    tmp_path: Path, when: str, left: str
) -> None:
    out = tmp_path / "place" / "out"
    out.mkdir(parents=True)
    for name in ("mark", "other"):
        (out / name).write_text("old")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe2").mkdir()
    if not _exchange(tmp_path / "probe", tmp_path / "probe2"):
        pytest.skip("this file system cannot exchange two names")
    done = subprocess.run([sys.executable, "-c", SWAP, when, str(out)], timeout=60)
    assert done.returncode == (0 if when == "between" else -signal.SIGKILL)  # nothing is renamed twice
    assert {p.name: p.read_text() for p in out.iterdir()} == {"mark": left, "other": left}
    with replacing(out, folder=True, force=True, mark="mark") as partial:
        (partial / "mark").write_text("newest")
    assert [p.name for p in out.parent.iterdir()] == ["out"] and (out / "mark").read_text() == "newest"


def test_67_too_little_space_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match=r"needs 1,000,000,000,000,000 bytes, [\d,]+ are free"),
        replacing(tmp_path / "x", folder=False, needed=10**15),
    ):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []


def test_an_error_or_an_interrupt_while_writing_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), replacing(tmp_path / "x", folder=False, force=True) as partial:
            partial.write_text("new")
            raise error
        assert [p.name for p in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "old"


def test_an_old_index_is_not_copied_beside_new_weights(make_folder: Maker, tmp_path: Path) -> None:
    source = make_folder(NET.state, "bin shards")
    out = apply_checkpoint(NET.plan, PERMS, source, tmp_path / "out")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {"model-1-of-2.safetensors", "model-2-of-2.safetensors"}
    assert not list(out.glob("pytorch_model*"))


MEMORY = """
import sys
from pathlib import Path
import torch
from oracles.memory import forget_peak, peak
from permgraph.weights.merge_files import merge_checkpoints

folder = Path(sys.argv[1])
forget_peak()
before = peak()
a, b = folder / "a.safetensors", folder / "b.safetensors"
merge_checkpoints(a, b, folder / "out.safetensors", (0.9, 0.1))
print((peak() - before) // 2**20)
"""


def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    megabytes, count = 8, 24
    state = {f"w{i}": torch.ones(megabytes * 2**18) for i in range(count)}
    for name in "ab":
        save_file(state, tmp_path / f"{name}.safetensors")
    words = [sys.executable, "-c", MEMORY, str(tmp_path)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, env=with_tools())
    assert megabytes <= int(run.stdout) < 9 * megabytes  # the files hold 24 such tensors each
