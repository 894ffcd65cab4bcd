"""The law: one process, two ranks and merged shards give the same moments; what is not of one run is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from permgraph.demo import demo_models
from permgraph.errors import MatchError, UsageError
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.matching.ranks import Ranks
from permgraph.matching.shards import Shard, added
from permgraph.pipeline import plan_for
from permgraph.weights.encoder import open_encoder
from tests.matching import ranks_script
from tests.test_cli import run

ROOT = Path(__file__).parents[2]


def close(one: Moments, other: Moments) -> None:
    assert one.probes.keys() == other.probes.keys() and one.origin == other.origin
    for key in one.probes:
        assert (one[key].n, one[key].excluded) == (other[key].n, other[key].excluded)
        assert np.abs(one[key].correlation() - other[key].correlation()).max() < 1e-6


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def environment(**more: object) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in more.items()}


def test_two_ranks_in_turn(tmp_path: Path) -> None:
    """Summed, with a probe that one never saw, with other files, with one that fails, with one that dies."""
    port = free_port()
    common = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, ranks_script.__file__, str(tmp_path)]
    start = time.monotonic()
    both = [
        subprocess.Popen(
            command,
            env=environment(RANK=rank, **common),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    said = [dict(map(json.loads, p.communicate(timeout=120)[0].splitlines())) for p in both]
    assert time.monotonic() - start < 100 and [p.returncode for p in both] == [0, 9]
    whole = ranks_script.moments(slice(0, 300))
    for rank in range(2):
        found = Moments.load(tmp_path / f"sum-{rank}")
        close(found, whole)
        assert "shard" not in found.meta and found.meta["batches"] == "2"
    assert Moments.load(tmp_path / "sum-0") == Moments.load(tmp_path / "sum-1")
    unseen = Moments.load(tmp_path / "unseen-1")
    assert {key: probe.n for key, probe in unseen.probes.items()} == {"ffn.0": 300, "cnn.0": 200}
    assert all("ranks 0 and 1 calibrate different files" in one["files"] for one in said)
    assert said[1]["fails"] == "this rank has no audio"
    assert "rank 1 of 2 failed, so nothing was written" in said[0]["fails"] and "no audio" in said[0]["fails"]
    assert "another rank ended, or did not answer within 20 s" in said[0]["dies"] and "dies" not in said[1]
    assert not list(tmp_path.glob("files-*")) + list(tmp_path.glob("fails-*")) + list(tmp_path.glob("dies-*"))


def test_outside_of_torchrun_a_process_is_by_itself() -> None:
    assert Ranks.of_environment({}) is None and Ranks.of_environment({"RANK": "1"}) is None
    told = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "here", "LOCAL_RANK": "1"}
    assert Ranks.of_environment(told) == Ranks(3, 8, 1) and Ranks(3, 8).shard == Shard(3, 8)


@pytest.mark.parametrize("items", [4, 7, 100])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_shards_hold_everything_once(items: int, count: int) -> None:
    parts = [Shard.parse(f"{i}/{count}") for i in range(count)]
    assert sorted(x for s in parts for x in s.of(range(items))) == list(range(items))
    assert all(list(s.each(range(items))) == s.of(range(items)) for s in parts)


def test_shards_that_are_none_are_refused() -> None:
    for text in ("3/3", "1", "a/b", "-1/2", "0/0", ""):
        with pytest.raises(UsageError, match="write I/N"):
            Shard.parse(text)
    with pytest.raises(UsageError, match="5 shards of 4 clips"):
        Shard(0, 5).of([1, 2, 3, 4])


def part(i: int, count: int, **meta: str) -> Moments:
    return ranks_script.moments(slice(i, 300, count), shard=f"{i}/{count}", **meta)


def test_merged_shards_are_the_whole_in_any_order() -> None:
    whole = ranks_script.moments(slice(0, 300))
    for order in ((0, 1, 2), (2, 0, 1)):
        total = added({f"part-{i}": part(i, 3) for i in order})
        close(total, whole)
        assert "shard" not in total.meta and total.meta["batches"] == "3"
    speech = {f"s{i}": part(i, 2) for i in range(2)}
    music = {f"m{i}": part(i, 3, data="music") for i in range(3)}
    assert added(speech | music)["ffn.0"].n == 600


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": (0, 3), "b": (2, 3)}, "a, b: shard 1/3 of the same data is missing"),
        ({"a": (0, 2), "b": (0, 2)}, "a and b: both are shard 0/2 of the same data, which would count twice"),
        ({"a": (0, 2), "b": (0, 3)}, r"not of one division \(0/2, 0/3\)"),
        ({"a": (0, 2), "b": (1, 2, "music")}, "a: shard 1/2 of the same data is missing. b saw other files"),
    ],
)
def test_shards_that_do_not_make_a_whole_are_refused(parts: dict[str, tuple[int, int]], message: str) -> None:
    given = {k: part(v[0], v[1], data=(*v, "same")[2]) for k, v in parts.items()}  # type: ignore[arg-type]
    with pytest.raises(MatchError, match=message):
        added(given)
    with pytest.raises(MatchError, match="different strides"):
        added({"a": part(0, 1), "b": part(0, 1, data="music", stride="4")})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the small encoders, and recordings of noise."""
    import soundfile

    folder = tmp_path_factory.mktemp("shards")
    plan_for(open_encoder(demo_models()[0])).save(folder / "plan.json")
    (folder / "audio").mkdir()
    for i in range(3):
        noise = 0.1 * np.random.default_rng(i).standard_normal((2 + i) * 16_000)
        soundfile.write(folder / "audio" / f"{i}.wav", noise, 16_000)
    return folder


def command(place: Path, *more: object) -> list[object]:
    a, b = demo_models()
    data = ("--audio", place / "audio", "--seconds", 1, "--batch", 2)
    return ["calibrate", place / "plan.json", "--a", a, "--b", b, *data, *more]


@pytest.mark.slow
def test_the_command_line_from_shards_to_permutations(place: Path) -> None:
    """One process = merged shards = two ranks; `match --moments` needs no model."""
    for i in range(2):
        said = run(*command(place, "--shard", f"{i}/2", "-o", place / f"part-{i}"))
        assert said.code == 0, said.err
        assert "Next: permgraph moments merge" in said.err
    assert run(*command(place, "-o", place / "one")).code == 0
    parts = [place / "part-0", place / "part-1"]
    assert run("moments", "merge", *parts, "-o", place / "all").code == 0
    close(Moments.load(place / "all"), Moments.load(place / "one"))
    for name in ("all", "one"):
        out = place / f"{name}.safetensors"
        said = run("match", place / "plan.json", "--moments", place / name, "-o", out)
        assert said.code == 0, said.err
    one, other = (Permutations.load(place / f"{name}.safetensors") for name in ("all", "one"))
    assert all((one[g] == other[g]).all() for g in one)
    a, b = demo_models()
    direct = place / "direct.safetensors"
    said = run("match", place / "plan.json", "--a", a, "--b", b, *command(place)[6:], "-o", direct)
    assert said.code == 0, said.err
    assert all((one[g] == Permutations.load(direct)[g]).all() for g in one)


@pytest.mark.slow
def test_a_part_alone_is_not_matched_nor_merged(place: Path) -> None:
    assert run(*command(place, "--shard", "0/3", "-o", place / "third")).code == 0
    said = run("match", place / "plan.json", "--moments", place / "third", "-o", place / "x.safetensors")
    assert said.code == 2 and "shard 0/3 of the data alone" in said.err
    said = run("moments", "merge", place / "third", "-o", place / "x")
    assert said.code == 3 and "shard 1/3, 2/3 of the same data is missing" in said.err
    said = run(*command(place, "--shard", "0/99", "-o", place / "x"))
    assert said.code == 2 and "99 shards of" in said.err
    assert not (place / "x").exists() and not (place / "x.safetensors").exists()


def test_torchrun_shares_the_data(place: Path) -> None:
    words = ["-m", "permgraph", *map(str, command(place, "-o", place / "two"))]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    done = subprocess.run([*torchrun, *words], env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "Process 1 of 2: " in done.stderr  # what is said of the data is of one part
    assert run(*command(place, "-o", place / "single")).code == 0
    close(Moments.load(place / "two"), Moments.load(place / "single"))
