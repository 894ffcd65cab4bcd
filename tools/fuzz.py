"""Give every parser of permgraph files that were damaged at random, and count what becomes of them.

    python tools/fuzz.py [--count 100000] [--seed 0] [--target safetensors] [--state fuzz.json]

An input is a valid file of its kind with bytes flipped, cut, copied or replaced by numbers that are too large; what is
JSON of ours is damaged field by field (tools/damage.py). Input number N of a target depends on N and the seed alone; with
--state a run that was stopped goes on where it was.

    refused   by a message
    same      read as what it was before
    other     read as something else; wrong only where the file carries a digest ("sealed")
    uncaught  any other exception     slow  more than 5 s     large  more memory than 4 times the file and 64 MiB

The exit code is 1 when anything is uncaught, slow, large, or of a sealed kind and other.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from damage import KINDS, damage_files, valid_files
from fuzz_targets import TARGETS, Target

from permgraph.atomic_write import replacing
from permgraph.errors import LONGEST, PermgraphError
from permgraph.inputs.clips import BadAudio

SECONDS, SLACK, BLOCK = 5.0, 64 * 2**20, 200
FAULTS = ("uncaught", "slow", "large")
NUMBERS = (0, 1, 127, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"NaN",
    b"1e999",
    b"-1",
    b"null",
    b"[" * 3000,
    b"9" * 5000,
    b"\xff\xfe",
    b"\0",
    b"../x",
    b'"',
    b"{",
    b"\n",
    b",",
)


def mutated(data: bytes, rng: Random) -> bytes:
    """A valid file, damaged in one to four places."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(made) + 1) if rng.random() < 0.5 else rng.randrange(min(len(made), 200) + 1)
        rng.choice(MUTATIONS)(made, at, rng)
    return bytes(made)


def _flip(data: bytearray, at: int, rng: Random) -> None:
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _number(data: bytearray, at: int, rng: Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % 2 ** (8 * size)
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))


def _cut(data: bytearray, at: int, rng: Random) -> None:
    del data[at:]


def _remove(data: bytearray, at: int, rng: Random) -> None:
    del data[at : at + rng.choice((1, 2, 8, 100))]


def _copy(data: bytearray, at: int, rng: Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[at:at] = data[start : start + rng.choice((1, 4, 16, 300))]


def _word(data: bytearray, at: int, rng: Random) -> None:
    data[at : at + rng.choice((0, 1, 4))] = rng.choice(WORDS)


MUTATIONS: tuple[Callable[[bytearray, int, Random], None], ...] = (
    _flip,
    _number,
    _cut,
    _remove,
    _copy,
    _word,
)


@dataclass(frozen=True)
class Outcome:
    kind: str
    text: str = ""


class Slow(Exception):
    """Longer than it may take."""


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """In a certain time and memory. Raises Slow, MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + 4 * size + SLACK

    def stop(*_: object) -> None:
        raise Slow

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(target: Target, path: Path, original: Any) -> Outcome:
    """What becomes of one file."""
    start = time.monotonic()
    try:
        with bounded(path.stat().st_size):
            value = target.read(path)
    except (PermgraphError, BadAudio) as error:
        found = Outcome(
            "refused" if len(str(error)) <= LONGEST else "uncaught", f"a long message: {str(error)[:100]}"
        )
    except Slow:
        found = Outcome("slow")
    except MemoryError:
        found = Outcome("large")
    except Exception as error:
        found = Outcome("uncaught", f"{type(error).__name__}: {str(error)[:200]}")
    else:
        found = Outcome("same" if value == original else "other")
    return found if time.monotonic() - start < SECONDS else Outcome("slow")


def fuzz(target: Target, folder: Path, numbers: range, seed: int, counts: Counter[str]) -> list[str]:
    """Inputs of one target; the faults, each with the number of its input."""
    samples = target.make(folder)
    originals = []
    for name, data in samples:
        (folder / name).write_bytes(data)
        originals.append(target.read(folder / name))  # also: what it imports is imported
    faults = []
    for number in numbers:
        rng = Random(f"{target.name} {seed} {number}")
        which = rng.randrange(len(samples))
        name, data = samples[which]
        path = folder / name
        path.write_bytes(mutated(data, rng))
        found = outcome(target, path, originals[which])
        counts[found.kind] += 1
        if found.kind in FAULTS or (target.sealed and found.kind == "other"):
            faults.append(f"{target.name} {number} ({name}): {found.kind} {found.text}")
        path.write_bytes(data)
    return faults


def fuzz_documents(kind: str, folder: Path, numbers: range, seed: int, counts: Counter[str]) -> list[str]:
    """Fields of our own files. Block by block, so that a run can be resumed."""
    files = valid_files(folder, ("tied_autoencoder", "qkv_chunk"))[kind]
    faults: list[str] = []
    for start in range(numbers.start, numbers.stop, BLOCK):
        count = min(BLOCK, numbers.stop - start)
        found = damage_files(folder, kind, files, count, seed * 10**6 + start, sealed=False)
        accepted = sum(found.accepted.values())
        counts.update(refused=found.refused, same=found.same, other=accepted, uncaught=len(found.uncaught))
        faults += [f"{kind} block {start}: {line}" for line in (*found.uncaught, *found.accepted)]
    return faults


def run(name: str, numbers: range, seed: int, counts: Counter[str]) -> list[str]:
    """Inputs of a target in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        if name in KINDS:
            return fuzz_documents(name, Path(folder), numbers, seed, counts)
        return fuzz(TARGETS[name], Path(folder), numbers, seed, counts)


NAMES = (*TARGETS, *KINDS)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=NAMES, action="append", help="only this parser; may be repeated")
    parser.add_argument(
        "--state", type=Path, help="a file to keep the counts in: a stopped run goes on from it"
    )
    options = parser.parse_args()
    names = options.target or NAMES
    each = -(-options.count // len(names))
    state: dict[str, Any] = {"seed": options.seed, "done": {}, "faults": []}
    if options.state and options.state.exists():
        state = json.loads(options.state.read_text())
        if state["seed"] != options.seed:
            parser.error(f"{options.state} is of --seed {state['seed']}")
    columns = ("inputs", "refused", "same", "other", *FAULTS)
    print(f"{'target':<14}" + "".join(f"{c:>10}" for c in columns), flush=True)
    for name in names:
        counts = Counter(state["done"].get(name, {}))
        while (done := sum(counts.values())) < each:
            faults = run(name, range(done, min(done + 5 * BLOCK, each)), options.seed, counts)
            state["done"][name] = dict(counts)
            state["faults"] += faults
            for line in faults[:20]:
                print(f"    {line}", flush=True)
            if options.state:
                with replacing(options.state, folder=False, force=True) as partial:
                    partial.write_text(json.dumps(state, indent=1))
        print(
            f"{name:<14}{sum(counts.values()):>10}" + "".join(f"{counts[c]:>10}" for c in columns[1:]),
            flush=True,
        )
    total = sum(sum(counts.values()) for counts in state["done"].values())
    print(f"{total:,} inputs, {len(state['faults'])} faults")
    return int(bool(state["faults"]))


if __name__ == "__main__":
    sys.exit(main())
