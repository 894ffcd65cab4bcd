"""Damage files of every kind, one field at a time, and count what becomes of them.

    python tools/damage.py [--count 10000] [--seed 0] [--kind plan]

Each row is a file of one kind. Damages: a field deleted, renamed, given another type or value, written twice, nested
more deeply; the text cut short. Every file is read twice: as it was damaged, and "sealed", with the digest of its new
contents, as by someone who means it: then only the codec and the checks stand in the way. Permutations are held
against their plan.

    refused   by a PermgraphError
    same      read as what it was before (a number written as 1.0, say)
    accepted  read as something else; the fields are listed
    uncaught  any other exception: a fault of permgraph. The exit code is 1 when there is one, or when a file
              that is not sealed was accepted
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from permgraph.errors import PermgraphError
from permgraph.ir.check_plan import check_permutations
from permgraph.ir.codec import encode
from permgraph.ir.files import Document, digest_of, digest_with_arrays
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace

NETWORKS = ("hubert", "grouped_conv", "tied_autoencoder", "qkv_chunk", "alias:hubert")
KINDS: dict[str, type] = {
    "trace": Trace,
    "spec": PermSpec,
    "plan": Plan,
    "permutations": Permutations,
    "moments": Moments,
}
RAW = "\x01"  # what follows it stands in the text without quotes
WORDS = ("", "x", "evil.py:f", "__import__", "\x00", "\ud800", "é" * 300, "1", "null")
NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**63, -(2**70), f"{RAW}{'9' * 5000}", f"{RAW}1e999", 0.5, float("nan"))

Path_ = tuple[Any, ...]


@dataclass
class Counts:
    """What became of the damaged files of one kind."""

    refused: int = 0
    same: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    uncaught: list[str] = field(default_factory=list)


def damage_files(folder: Path, kind: str, files: list[Path], count: int, seed: int, sealed: bool) -> Counts:
    """Damage the files of a kind in turn, `count` times in all, and read each."""
    rng, counts = Random(f"{kind} {seed}"), Counts()
    sources = [_Source(kind, path) for path in files]
    for number in range(count):
        source = sources[number % len(sources)]
        what, data = source.damaged(rng, sealed)
        target = folder / f"damaged.{kind}"
        target.write_bytes(data)
        _read(source, what, target, counts)
    return counts


def _read(source: _Source, what: str, target: Path, counts: Counts) -> None:
    try:
        value = KINDS[source.kind].load(target)  # type: ignore[attr-defined]
        if source.plan is not None:
            check_permutations(source.plan, value)
    except PermgraphError as error:
        if (source.plan is None and target.name not in str(error)) or len(str(error)) > 1000:
            counts.uncaught.append(
                f"{what}: a message that names no file, or is too long: {str(error)[:200]}"
            )
        counts.refused += 1
    except Exception as error:
        counts.uncaught.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    else:
        if source.content(value) == source.original:
            counts.same += 1
        else:
            counts.accepted[what] += 1


class _Source:
    """A valid file: its JSON, the paths to all of its fields, and its arrays if it has some."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.arrays = kind, {}
        self.plan = Plan.load(path.with_suffix(".plan")) if kind == "permutations" else None
        if issubclass(KINDS[kind], Document):
            self.data = json.loads(path.read_bytes())
        else:
            with safe_open(str(path), framework="numpy") as file:
                self.data = json.loads(file.metadata()["permgraph"])
                self.arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.paths = list(_paths(self.data))
        self.original = self.content(KINDS[kind].load(path))  # type: ignore[attr-defined]

    def content(self, value: Any) -> Any:
        """Equal for equal values."""
        if isinstance(value, Document):
            return encode(value)
        return value.to_bytes() if isinstance(value, Permutations) else _bytes(value)

    def damaged(self, rng: Random, sealed: bool) -> tuple[str, bytes]:
        """What was done, as "change places[*].axis", and the file."""
        if self.arrays and rng.random() < 0.3:
            return self._with_damaged_array(rng, sealed)
        path, how = rng.choice(self.paths), rng.choice(list(DAMAGES))
        data, rename = DAMAGES[how](self.data, path, rng), None
        if isinstance(data, tuple):
            data, rename = data
        return f"{how} {_shown(path)}", self._file(data, self.arrays, rng, sealed, rename, how == "truncate")

    def _with_damaged_array(self, rng: Random, sealed: bool) -> tuple[str, bytes]:
        name, how = rng.choice(list(self.arrays)), rng.choice(list(ARRAY_DAMAGES))
        arrays = ARRAY_DAMAGES[how](dict(self.arrays), name, rng)
        return f"{how} array {name.rpartition('|')[2]}", self._file(
            dict(self.data), arrays, rng, sealed, None, False
        )

    def _file(
        self,
        data: Any,
        arrays: dict[str, Any],
        rng: Random,
        sealed: bool,
        rename: tuple[str, str] | None,
        cut: bool,
    ) -> bytes:
        if sealed and isinstance(data, dict) and "digest" in data:
            body = {k: v for k, v in data.items() if k not in ("permgraph", "format", "digest")}
            with suppress(ValueError, RecursionError):  # what json cannot read needs no seal
                plain = json.loads(_text(body, rename))
                data = {
                    **data,
                    "digest": digest_with_arrays(plain, arrays) if self.arrays else digest_of(plain),
                }
        text = _text(data, rename)
        if cut:
            text = text[: rng.randrange(len(text))]
        if not self.arrays:
            return text.encode(errors="surrogatepass")
        return bytes(save(arrays, {"permgraph": text.encode(errors="replace").decode()}))


def _bytes(moments: Moments) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        moments.save(Path(folder) / "moments")
        return (Path(folder) / "moments").read_bytes()


def _text(data: Any, rename: tuple[str, str] | None) -> str:
    """JSON in which marked strings lose their quotes, and a key may stand twice."""
    text = json.dumps(data)
    if rename:
        text = text.replace(f"{json.dumps(rename[0])}:", f"{json.dumps(rename[1])}:")
    while (at := text.find('"\\u0001')) >= 0:
        end = text.index('"', at + 1)
        text = text[:at] + text[at + 7 : end] + text[end + 1 :]
    return text


def _paths(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _shown(path: Path_) -> str:
    """places[*].axis: numbers, and names of groups and tensors, as stars."""
    words = ["[*]" if isinstance(key, int) else f".{key}" if key.isidentifier() else "[*]" for key in path]
    return "".join(words).removeprefix(".")


def _replaced(data: Any, path: Path_, change: Callable[[Any, Any], Any]) -> Any:
    """A copy in which `change(container, key)` was called on a copy of the last container of the path."""
    copy = dict(data) if isinstance(data, dict) else list(data)
    if len(path) == 1:
        change(copy, path[0])
    else:
        copy[path[0]] = _replaced(copy[path[0]], path[1:], change)
    return copy


def _value(data: Any, path: Path_) -> Any:
    for key in path:
        data = data[key]
    return data


def _put(data: Any, path: Path_, value: Any) -> Any:
    return _replaced(data, path, lambda container, key: container.__setitem__(key, value))


def _delete(data: Any, path: Path_, rng: Random) -> Any:
    return _replaced(data, path, lambda container, key: container.__delitem__(key))


def _rename(data: Any, path: Path_, rng: Random) -> Any:
    def change(container: Any, key: Any) -> None:
        if isinstance(container, dict):
            container[f"{key}{rng.choice(['x', '_', ' ', ''])}" or "x"] = container.pop(key)
        else:
            container[key], container[0] = container[0], container[key]

    return _replaced(data, path, change)


def _retype(data: Any, path: Path_, rng: Random) -> Any:
    value = _value(data, path)
    others = [str(value)[:50], [value], {"x": value}, {"ref": value}, None, True, 1, 1.0, f"{RAW}1e999"]
    return _put(data, path, rng.choice([o for o in others if type(o) is not type(value)]))


def _change(data: Any, path: Path_, rng: Random) -> Any:
    value = _value(data, path)
    if isinstance(value, bool) or value is None:
        return _put(data, path, not value)
    if isinstance(value, (int, float)):
        return _put(data, path, rng.choice([*NUMBERS, value + 1, value - 1, -value, 2 * value]))
    if isinstance(value, str):
        return _put(data, path, rng.choice([*WORDS, f"{value}x", value[1:], value.upper()]))
    return _put(data, path, [] if isinstance(value, list) else {})


def _duplicate(data: Any, path: Path_, rng: Random) -> Any:
    key = path[-1]
    if isinstance(key, int):
        return _replaced(data, path, lambda container, at: container.insert(at, container[at]))
    mark = "written twice"
    twice = _replaced(data, path, lambda container, at: container.__setitem__(mark, container[at]))
    return twice, (mark, key)


def _nest(data: Any, path: Path_, rng: Random) -> Any:
    depth, value = rng.choice([1, 2, 70, 5000]), _value(data, path)
    inner = "0" if depth > 100 or isinstance(value, (str, list, dict)) else json.dumps(value)
    return _put(data, path, f"{RAW}{'[' * depth}{inner}{']' * depth}")


DAMAGES: dict[str, Callable[[Any, Path_, Random], Any]] = {
    "delete": _delete,
    "rename": _rename,
    "retype": _retype,
    "change": _change,
    "duplicate": _duplicate,
    "nest": _nest,
    "truncate": lambda data, path, rng: data,
}


def _array_values(arrays: dict[str, Any], name: str, rng: Random) -> dict[str, Any]:
    array = arrays[name].copy()
    at = rng.randrange(array.size)
    array.flat[at] = rng.choice([-1, 0, 1, array.size, 2**40, array.flat[at - 1]])
    return arrays | {name: array}


ARRAY_DAMAGES: dict[str, Callable[[dict[str, Any], str, Random], dict[str, Any]]] = {
    "delete": lambda arrays, name, rng: {k: v for k, v in arrays.items() if k != name},
    "rename": lambda arrays, name, rng: {k if k != name else f"{k}x": v for k, v in arrays.items()},
    "retype": lambda arrays, name, rng: arrays | {name: arrays[name].astype(np.float32)},
    "reshape": lambda arrays, name, rng: arrays | {name: arrays[name].reshape(-1)},
    "shorten": lambda arrays, name, rng: arrays | {name: arrays[name][:-1]},
    "change": _array_values,
}


def valid_files(folder: Path, networks: tuple[str, ...] = NETWORKS) -> dict[str, list[Path]]:
    """One file of each kind per network, written by permgraph itself."""
    from networks.traced import spec, trace

    files: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for name in networks:
        found = spec(name)
        plan = Plan(found, tuple(g.name for g in found.groups), selection="all")
        perms = random_permutations(plan, 0)
        values: tuple[Any, ...] = (trace(name), found, plan, perms, _moments(plan))
        for kind, value in zip(KINDS, values, strict=True):
            path = folder / f"{name.replace(':', '-')}.{kind}"
            value.save(path)
            files[kind].append(path)
    return files


def _moments(plan: Plan) -> Moments:
    """Of random activations of the two smallest probes."""
    import torch

    from permgraph.matching.accumulation import MomentsBuilder
    from permgraph.matching.probes import choose_probes, layout_of

    layouts = {key: layout_of(plan.spec, probe) for key, probe in choose_probes(plan).items()}
    smallest = sorted(layouts.items(), key=lambda item: item[1].units)[:2]
    builder, generator = MomentsBuilder(dict(smallest), plan.origin), torch.Generator().manual_seed(0)
    for key, layout in smallest:
        a, b = (torch.randn(20, min(layout.units, 10**4), generator=generator) for _ in "ab")
        builder.update(key, a, b)
    return builder.build()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="damages per kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="only this kind; may be repeated"
    )
    options = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = valid_files(folder)
        print(f"{'kind':<14}{'':<8}{'refused':>8}{'same':>7}{'accepted':>10}{'uncaught':>10}", flush=True)
        for kind in options.kind or KINDS:
            for sealed in (False, True):
                found = damage_files(folder, kind, files[kind], options.count, options.seed, sealed)
                accepted = sum(found.accepted.values())
                faults += len(found.uncaught) + (0 if sealed else accepted)
                state = "sealed" if sealed else ""
                print(
                    f"{kind:<14}{state:<8}{found.refused:>8}{found.same:>7}{accepted:>10}{len(found.uncaught):>10}",
                    flush=True,
                )
                for what, times in found.accepted.most_common():
                    print(f"    accepted {times:>5}  {what}")
                for line in found.uncaught[:20]:
                    print(f"    UNCAUGHT {line}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
