"""Kill commands at random moments, and look at what is left.

    python tools/kills.py [--count 200] [--seed 0] [--verb merge]

Each command replaces an output that is there (--force), and is killed (SIGKILL) either at a random moment or at one of its
system calls on files: fsync, rename, replace, the exchange of two names, removal, each before and after. Then

    the output is the old one or the new one, byte for byte; only where the file system cannot exchange two names it may be
    absent until the next run finds it again;
    (of the tables of `evaluate` each is the old one or the new one);
    no input has changed;
    the same command, typed again, makes the new one, and nothing is left beside it. `match` and `calibrate` resume from the
    checkpoint that the dead run left, and give the same bytes.

One process loads the libraries; every command runs in a fork of it. The exit code is 1 when anything else is found.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from permgraph import atomic_write
from permgraph.cli import main as permgraph
from permgraph.demo import demo_audio, demo_models
from permgraph.matching.calibration import calibrate

PAIR = "--a A --b B --audio audio --seconds 1 --clips 6 --batch 2"
VERBS = {
    "plan": ("plan t.json -g ffn -o OUT.json", "plan t.json -g cnn -o OUT.json"),
    "draw": ("draw t.json -g ffn -o OUT.dot", "draw t.json -o OUT.dot"),
    "match": (
        f"match plan.json {PAIR} --checkpoint c.st -o OUT.st",
        f"match plan.json {PAIR} --matcher random -o OUT.st",
    ),
    "calibrate": (
        f"calibrate plan.json {PAIR} --checkpoint c.st -o OUT.st",
        f"calibrate plan.json {PAIR} --frame-stride 2 -o OUT.st",
    ),
    "apply": ("apply plan.json perms.st B -o OUT --no-check", "apply plan.json other.st B -o OUT --no-check"),
    "merge": (
        "merge A B --plan plan.json --perms perms.st -o OUT --no-check",
        "merge A B --plan plan.json --perms other.st -o OUT --no-check",
    ),
    "evaluate": (
        "evaluate A --tasks data/tones.toml --data data --cache cache -o OUT",
        "evaluate B --tasks data/tones.toml --data data --cache cache -o OUT",
    ),
}  # what is killed; what made the output that is there
INPUTS = ("A", "B", "t.json", "plan.json", "perms.st", "other.st", "data")
LEFT = (".partial-", ".bak-", ".raw-", ".lock", ".run")


def run(words: str, point: int = 0, after: bool = False, moment: float | None = None) -> int:
    """A command in a fork, killed at its system call number `point`, or so many seconds after its start. Its exit status:
    negative when it was killed."""
    child = os.fork()
    if child == 0:
        _child(words, point, after)
    if moment is not None:
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(words: str, point: int, after: bool) -> None:
    code = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        assert calibrate.__kwdefaults__ is not None
        calibrate.__kwdefaults__["save_every"] = 0.0  # a checkpoint after every batch
        calls = [0]
        for module, name in POINTS:
            setattr(module, name, _counted(getattr(module, name), calls, point, after))
        sys.argv = ["permgraph", *words.split(), "--force"]
        permgraph()
    except SystemExit as end:
        code = int(end.code or 0)
        if point < 0:
            Path("calls").write_text(str(calls[0]))
    finally:
        os._exit(code)


POINTS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (atomic_write, "_exchange"),
    (atomic_write, "_remove"),
)


def _counted(real: Callable[..., Any], calls: list[int], point: int, after: bool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        here = calls[0] == point
        if here and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def tree(path: Path) -> dict[str, bytes] | None:
    """A file or a folder, whole; None where nothing is."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in sorted(path.iterdir())}
    return {"": path.read_bytes()} if path.exists() else None


@dataclass(frozen=True)
class Case:
    """A verb: what is typed, where its output is, what was there and what will be, its seconds and its system calls."""

    words: str
    out: Path
    old: dict[str, bytes] | None
    new: dict[str, bytes] | None
    seconds: float
    calls: int
    apart: bool  # whether two names cannot be exchanged here
    tables: bool  # whether the output is a folder of files that are replaced one by one

    def kind(self, found: dict[str, bytes] | None) -> str:
        """What an output is: "old", "new", "absent", "mixed" of whole old and new files, or "HALF"."""
        if found is not None and self.tables:  # what is written beside a table lies in the same folder
            found = {name: data for name, data in found.items() if not any(word in name for word in LEFT)}
        if found in (self.old, self.new):
            return "old" if found == self.old else "new"
        if found is None:
            return "absent"
        both = [{**(tree or {})}.items() for tree in (self.old, self.new)]
        whole = all(any(row in tree for tree in both) for row in found.items())
        return "mixed" if self.tables and whole and found.keys() == {**(self.old or {})}.keys() else "HALF"


def prepared(place: Path, verb: str) -> Case:
    words, before = VERBS[verb]
    out = place / next(word for word in words.split() if word.startswith("OUT"))
    start = time.monotonic()
    _require(run(words, point=-1) == 0, f"{verb} fails")
    seconds, calls, new = time.monotonic() - start, int((place / "calls").read_text()), tree(out)
    _clear(place)
    _require(run(before) == 0, f"{verb} fails before")
    return Case(words, out, tree(out), new, seconds, calls, not _exchanges(place), verb == "evaluate")


def _exchanges(place: Path) -> bool:
    names = place / "one", place / "two"
    for name in names:
        name.mkdir()
    able = atomic_write._exchange(*names)
    for name in names:
        name.rmdir()
    return able


def kill(place: Path, case: Case, rng: Random) -> str:
    """One kill and the run after it; what was found, "finished" when the command was faster."""
    _put(case.out, case.old)
    inputs = {p: tree(place / p) for p in INPUTS}
    if rng.random() < 0.5:
        status = run(case.words, moment=rng.random() * case.seconds)
    else:
        status = run(case.words, point=rng.randrange(1, case.calls + 1), after=rng.random() < 0.5)
    if status == 0:
        _clear(place)
        return "finished"
    kind = case.kind(tree(case.out))
    _require(status == -signal.SIGKILL, f"exit {status}: {case.words}")
    _require(
        kind in ("old", "new", "mixed") or (kind == "absent" and case.apart), f"{kind} output: {case.words}"
    )
    _require(run(case.words) == 0, f"the next run fails: {case.words}")
    _require(tree(case.out) == case.new, f"the next run gives something else: {case.words}")
    _require({p: tree(place / p) for p in inputs} == inputs, f"an input has changed: {case.words}")
    left = [p.name for p in place.rglob("*") if any(word in p.name for word in LEFT)]
    _require(not left, f"{left} are left: {case.words}")
    _clear(place)
    return kind


def _put(out: Path, content: dict[str, bytes] | None) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    assert content is not None
    if "" in content:
        out.write_bytes(content[""])
        return
    out.mkdir()
    for name, data in content.items():
        (out / name).write_bytes(data)


def _clear(place: Path) -> None:
    (place / "c.st").unlink(missing_ok=True)
    shutil.rmtree(place / "cache", ignore_errors=True)


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise SystemExit(f"FAULT: {otherwise}")


def make(place: Path, verbs: list[str]) -> None:
    """Two encoders, audio, a trace, a plan, two permutations; all that is imported is imported."""
    from permgraph import Plan, random_permutations

    os.chdir(place)
    for name, folder in zip("AB", demo_models(), strict=True):
        shutil.copytree(folder, name)
    for path in demo_audio("audio")[2:]:
        path.unlink()
    for words in ("trace A -o t.json", "plan t.json -g ffn -o plan.json"):
        _require(run(words) == 0, words)
    plan = Plan.load("plan.json")
    for name, seed in (("perms.st", 0), ("other.st", 1)):
        random_permutations(plan, seed).save(name)
    _tones(Path("data"))
    for verb in verbs:  # in this process: their imports are those of all forks
        _here(VERBS[verb][1])


def _tones(folder: Path) -> None:
    """Clips of two pitches, and the task of telling them apart."""
    import numpy as np
    import soundfile

    folder.mkdir()
    rows = ["path,pitch,split"]
    for i in range(12):
        pitch, split = (300, 900)[i % 2], ("train", "valid", "test")[i // 4]
        time = np.arange(4800) / 16_000
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(2 * np.pi * pitch * time + i), 16_000)
        rows.append(f"{i}.wav,p{pitch},{split}")
    (folder / "tones.csv").write_text("\n".join([*rows, ""]))
    (folder / "tones.toml").write_text(
        'domain = "music"\nmanifest = "tones.csv"\nlabel = "pitch"\nsplit = "split"\n'
    )


def _here(words: str) -> None:
    argv, sys.argv = sys.argv, ["permgraph", *words.split()]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
            permgraph()
    except SystemExit as end:
        _require(end.code == 0, said.getvalue())
    finally:
        sys.argv = argv
    out = Path(next(word for word in words.split() if word.startswith("OUT")))
    shutil.rmtree(out) if out.is_dir() else out.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--verb", choices=list(VERBS), action="append", help="only this verb; may be repeated"
    )
    options = parser.parse_args()
    verbs = options.verb or list(VERBS)
    with tempfile.TemporaryDirectory() as folder:
        place, home = Path(folder), Path.cwd()
        make(place, verbs)
        print(f"{'verb':<12}{'kills':>8}{'old':>8}{'new':>8}{'absent':>8}{'mixed':>8}{'calls':>8}")
        total = 0
        for number, verb in enumerate(verbs):
            case, counts = prepared(place, verb), Counter[str]()
            wanted = options.count * (number + 1) // len(verbs) - options.count * number // len(verbs)
            rng = Random(f"{verb} {options.seed}")
            while sum(counts.values()) < wanted:
                found = kill(place, case, rng)
                counts.update([found] if found != "finished" else [])
            total += wanted
            cells = (wanted, *(counts[kind] for kind in ("old", "new", "absent", "mixed")), case.calls)
            print(f"{verb:<12}" + "".join(f"{cell:>8}" for cell in cells), flush=True)
            _put(case.out, {"": b""})
            case.out.unlink()
        os.chdir(home)
    print(f"{total} kills; every output was the old one or the new one, and every next run made the new one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
