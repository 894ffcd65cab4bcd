"""P6: the same inputs and seed give the same bytes, whatever the hash seed, the number of threads, the order of what is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kit import MATCH, good, noise, put, tree

FILES = [f"audio/{i}.wav" for i in range(4)]


def calibrated(out: str, *named: str) -> bytes:
    """The file of moments of one calibration; it says what it was calibrated on."""
    audio = [word for name in named for word in ("--audio", name)]
    good("calibrate", *MATCH[1:6], *audio, *MATCH[8:], "-o", out)
    return Path(out).read_bytes()


# P6
@pytest.mark.slow
def test_the_order_of_what_is_named_and_in_which_it_came_to_be_is_not_in_the_result(place: Path) -> None:
    for i in range(2):
        put(f"other/{i}.wav", noise(10 + i))
    first = calibrated("1.st", "audio", "other", "audio/0.wav")
    shutil.rmtree("audio")
    for name in reversed(FILES):
        put(name, noise(int(name[6])))
    assert calibrated("2.st", "other", "audio/0.wav", "audio") == first
    assert calibrated("3.st", "audio") != first


# P6
def test_the_order_of_clips_in_a_list_is_not_in_the_result(place: Path) -> None:
    def listed(files: list[str]) -> bytes:
        Path("list.csv").write_text("".join(f"{line}\n" for line in ["path", *files]))
        return calibrated(f"{files[0][6]}.st", "list.csv")

    assert listed(FILES) == listed([FILES[i] for i in (2, 0, 3, 1)])


SCRIPT = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from tests.test_cli import run

for words in (
    "trace A -o t.json",
    "plan t.json -o plan.json",
    "plan t.json -g heads,ffn --mode untied -o untied.json",
    "draw t.json --plan plan.json -o x.dot",
    "draw t.json -o x.svg",
    "calibrate plan.json --a A --b B --audio audio --seconds 0.3 -o moments.safetensors",
    "match plan.json --a A --b B --audio audio --seconds 0.3 -o perms.safetensors",
    "view perms.safetensors --plan plan.json --trace t.json --moments moments.safetensors -o x.html",
    "merge A B --plan plan.json --perms perms.safetensors -o merged",
    "apply plan.json perms.safetensors B -o applied",
    "replay merged --statement statement.json",
):
    said = run(*words.split())
    assert said.code == 0, (words, said)
"""


def everything(folder: Path, seed: int, threads: int) -> dict[str, bytes]:
    """All that is made in a process of its own, with this hash seed and so many threads."""
    folder.mkdir()
    for name in ("A", "B", "audio"):
        shutil.copytree(name, folder / name)
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(root)}
    env |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    words = [sys.executable, "-c", SCRIPT, str(threads)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return tree(folder)


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if one[name] != other[name]]


# P6
@pytest.mark.slow
def test_everything_is_the_same_whatever_the_hash_seed_and_the_threads(place: Path) -> None:
    first = everything(Path("first"), seed=0, threads=1)
    assert not differing(first, everything(Path("hash"), seed=1, threads=1))
    assert not differing(first, everything(Path("threads"), seed=1, threads=2))


# P6
def test_the_size_of_batches_is_not_in_the_permutations(place: Path) -> None:
    def matched(batch: int) -> bytes:
        good("match", *MATCH[1:], "--batch", str(batch), "-o", f"{batch}.safetensors")
        return Path(f"{batch}.safetensors").read_bytes()

    assert matched(1) == matched(3)
