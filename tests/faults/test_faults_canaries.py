"""P1: whatever text of whatever file names a module, no verb that reads the file imports it.

The texts are found by a walk over the decoded file, so that a field that is added is tried too. A file with a digest gets a true one.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from permgraph.ir import files
from tests.evaluation import miniature
from tests.faults.kit import good, header_of, with_header
from tests.test_cli import run

VALUES = ("evil.py:f", "evil:f", "evil.f")
EVIL = "import os\nos.mkdir('CANARY')\ndef f(*_, **__): os.makedirs('CANARY', exist_ok=True)\n"
PAIR = "--a A --b B --audio audio --seconds 0.3"
AXIS = "encoder.layers.0.feed_forward.intermediate_dense.weight[0]"
KINDS: dict[str, tuple[str, ...]] = {  # file → the verbs that read it, the cheapest first
    "t.json": (
        "tree t.json",
        "plan t.json --mode one-sided -o OUT.json",
        "draw t.json -o OUT.svg",
        "view t.json -o OUT.html",
        f"why t.json {AXIS}",
        "lint known.toml t.json",
    ),
    "plan.json": (
        "apply plan.json perms.safetensors B -o OUT",
        "tree plan.json",
        "draw t.json --plan plan.json -o OUT.svg",
        "view perms.safetensors --plan plan.json --trace t.json --moments moments.safetensors -o OUT.html",
        "verify B --plan plan.json",
        "match plan.json --moments moments.safetensors -o OUT.st",
        f"calibrate plan.json {PAIR} -o OUT.st",
        "merge A B --plan plan.json --perms perms.safetensors -o OUT",
    ),
    "perms.safetensors": (
        "report perms.safetensors",
        "apply plan.json perms.safetensors B -o OUT",
        "merge A B --plan plan.json --perms perms.safetensors -o OUT",
        "view perms.safetensors --plan plan.json --trace t.json --moments moments.safetensors -o OUT.html",
    ),
    "moments.safetensors": (
        "moments merge moments.safetensors -o OUT.st",
        "match plan.json --moments moments.safetensors -o OUT.st",
        f"calibrate plan.json {PAIR} --checkpoint moments.safetensors -o OUT.st",
    ),
    "merged/permgraph.json": (
        "replay merged --a A --b B -o OUT",
        "replay merged --statement OUT.json",
        "report merged",
        "apply plan.json other.safetensors merged -o OUT",
        "unapply plan.json perms.safetensors merged -o OUT",
    ),
    "applied/permgraph.json": ("unapply plan.json perms.safetensors applied -o OUT",),
    "exported/export.json": (
        "export A --format s3prl -o exported --force",
        "evaluate exported --tasks data/tones.toml --data data -o OUT",
    ),
    "exported/config.json": (
        "export exported --format xares -o OUT",
        "trace exported -o OUT.json",
        "verify exported",
        "merge exported B -g none -o OUT",
        "evaluate exported --tasks data/tones.toml --data data -o OUT",
    ),
    "exported/preprocessor_config.json": (
        "export exported --format xares -o OUT",
        f"match plan.json --a exported --b B {PAIR[12:]} -o OUT.st",
        "evaluate exported --tasks data/tones.toml --data data -o OUT",
        "merge exported B -g none -o OUT",
    ),
    "known.toml": ("lint known.toml t.json", "lint known.toml A"),
    "data/tones.toml": ("evaluate A --tasks data/tones.toml --data data -o OUT",),
    "data/tones.csv": (
        "evaluate A --tasks data/tones.toml --data data -o OUT",
        f"match plan.json {PAIR.replace('audio audio', 'audio data/tones.csv')} -o OUT.st",
    ),
    "cuts.jsonl": (f"match plan.json {PAIR.replace('audio audio', 'audio cuts.jsonl')} -o OUT.st",),
    "results.csv": ("score results.csv",),
    "model.safetensors.index.json": ("apply plan.json perms.safetensors sharded -o OUT",),
}
COSTLY = ("evaluate", "match")
SAMPLED = [
    pytest.param(k, marks=pytest.mark.slow if v[0].startswith(COSTLY) else ()) for k, v in KINDS.items()
]
WHERE = {"model.safetensors.index.json": "sharded/model.safetensors.index.json"}


@pytest.fixture(scope="session")
def full(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of every kind that permgraph reads, and a module that says when it is imported."""
    folder = tmp_path_factory.mktemp("full") / "place"
    shutil.copytree(pair, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        good("export", "A", "--format", "s3prl", "-o", "exported")
        from permgraph import Plan, random_permutations

        random_permutations(Plan.load("plan.json"), 7).save("other.safetensors")
        miniature.tones(Path("data"), {"train": 4, "valid": 2, "test": 2})
        miniature.task(Path("data"))
        Path("known.toml").write_text(
            'about = "a"\nsource = "b"\nnetwork = "hubert"\n[[group]]\nname = "ffn.0"\nsize = 24\nplaces = [\n'
            '"encoder.layers.0.feed_forward.intermediate_dense.{weight,bias}[0]",\n'
            '"encoder.layers.0.feed_forward.output_dense.weight[1]"]\n'
        )
        source = {"type": "file", "channels": [0], "source": "audio/0.wav"}
        cut = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
        Path("cuts.jsonl").write_text(f"{json.dumps(cut)}\n")
        Path("results.csv").write_text("task,encoder,value\nt,FBANK,0.1\nt,x,0.5\n")
        shutil.copytree("B", "sharded")
        Path("sharded/model.safetensors").rename("sharded/model-00001-of-00001.safetensors")
        keys = [k for k in header_of(Path("B/model.safetensors"))[0] if k != "__metadata__"]
        Path("sharded/model.safetensors.index.json").write_text(
            json.dumps(
                {"metadata": {}, "weight_map": dict.fromkeys(keys, "model-00001-of-00001.safetensors")}
            )
        )
    Path(folder, "evil.py").write_text(EVIL)
    return folder


@pytest.fixture
def here(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(full, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    return tmp_path / "here"


Put = Callable[[Any], None]


def decoded(path: Path) -> tuple[Any, Put]:
    """What a file holds as lists, dicts and texts, and how such are written back, with a true digest."""
    if path.suffix == ".safetensors":
        return _of_arrays(path)
    text = path.read_text()
    if path.suffix == ".toml":
        parts = re.split(r'"([^"\n]*)"', text)

        def put(values: Any) -> None:
            told = [part if i % 2 == 0 else f'"{values[i // 2]}"' for i, part in enumerate(parts)]
            path.write_text("".join(told))

        return parts[1::2], put
    if path.suffix == ".csv":
        rows = list(csv.reader(text.splitlines()))

        def put_rows(first: Any) -> None:
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows([*first, *rows[2:]])
            path.write_text(out.getvalue())

        return rows[:2], put_rows

    def put_json(data: Any) -> None:
        sealed = "permgraph" in data and "digest" in data and path.name != "export.json"
        body = {k: v for k, v in data.items() if k not in ("permgraph", "format", "digest")}
        path.write_text(json.dumps({**data, **({"digest": files.digest_of(body)} if sealed else {})}))

    return json.loads(text), put_json


def _of_arrays(path: Path) -> tuple[Any, Put]:
    header, body = header_of(path)
    arrays: dict[str, np.ndarray] = load_file(path)

    def put(data: Any) -> None:
        fields = {k: v for k, v in data.items() if k not in ("permgraph", "format", "digest")}
        data = {**data, "digest": files.digest_with_arrays(fields, arrays)}
        with_header(path, json.dumps({**header, "__metadata__": {"permgraph": json.dumps(data)}}), body)

    return json.loads(header["__metadata__"]["permgraph"]), put


Path_ = tuple[str | int, ...]
KEY = "the key itself"


def texts(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Where texts stand: values, and the keys of objects."""
    if isinstance(data, str):
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key, KEY)
            yield from texts(value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from texts(value, (*path, i))


def fields(data: Any) -> list[Path_]:
    """One text of each field: positions in a list, and keys that are names of layers, are alike. All of a list of texts."""
    if isinstance(data, list):
        return list(texts(data))
    found: dict[Path_, Path_] = {}
    for path in texts(data):
        kind = tuple("*" if isinstance(step, int) or re.search(r"[\d. ]", step) else step for step in path)
        found.setdefault(kind, path)
    return list(found.values())


def planted(data: Any, path: Path_, value: str) -> Any:
    changed = copy.deepcopy(data)
    key = path[-1] == KEY
    *steps, last = path[:-1] if key else path
    inner = changed
    for step in steps:
        inner = inner[step]
    if key:
        held = {value if k == last else k: v for k, v in inner.items()}
        inner.clear()
        inner.update(held)
    else:
        inner[last] = value
    return changed


def holds(verb: str, number: int, where: object) -> str:
    """A verb ends as it should and imports nothing; what it said."""
    said = run(*verb.replace("OUT", f"out{number}").split())
    assert said.code in (0, 2, 3, 4), (verb, where, said.err)
    assert "this is a fault of permgraph" not in said.err, (verb, where, said.err)
    assert not Path("CANARY").exists() and "evil" not in sys.modules, (verb, where)
    return said.err


def tried(kind: str, verbs: tuple[str, ...], most: int | None = None) -> int:
    """All fields of a file of this kind, or about so many, with every verb; how many runs that was."""
    path = Path(WHERE.get(kind, kind))
    original = path.read_bytes()
    data, put = decoded(path)
    number = 0
    found = fields(data)
    for at, field in enumerate(found[:: max(1, len(found) // (most or len(found)))]):
        for verb in verbs:
            put(planted(data, field, VALUES[(at + number) % len(VALUES)]))
            holds(verb, number, field)
            path.write_bytes(original)
            number += 1
    return number


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_file_as_it_was_decoded_and_written_again_is_still_read(here: Path, kind: str) -> None:
    """Else the files below would be refused for their form, and nothing would be tried."""
    path = Path(WHERE.get(kind, kind))
    data, put = decoded(path)
    put(data)
    said = run(*KINDS[kind][0].replace("OUT", "out").split())
    assert said.code == 0, said
    assert len(fields(data)) >= 2


# P1
@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", SAMPLED)
def test_no_text_in_a_file_is_imported(here: Path, kind: str) -> None:
    """A sample of the fields with one verb; all of both below."""
    assert tried(kind, KINDS[kind][:1], 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_in_a_file_is_imported_by_any_verb(here: Path, kind: str) -> None:
    assert tried(kind, KINDS[kind])


def leaves(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Where anything stands that is no object."""
    if isinstance(data, dict) and path[-1:] != ("probes",):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    else:
        yield path


# P5
def test_a_report_of_another_kind_is_refused_or_printed(here: Path) -> None:
    """Each field of a report in turn is an object, or is gone; the digest is true."""
    path = Path("perms.safetensors")
    data, put = decoded(path)
    report = data["report"]
    report["groups"] = {"dict": dict(list(report["groups"]["dict"].items())[:1])}
    said = ""
    for field in leaves(report):
        *steps, last = field
        for gone in (True, False):
            changed = copy.deepcopy(data)
            inner = changed["report"]
            for step in steps:
                inner = inner[step]
            inner[last] = {"dict": {}}
            if gone:
                del inner[last]
            put(changed)
            said += holds("report perms.safetensors", 0, field)
    assert "field 'units' is missing" in said and "groups['cnn.0'].moved: expected int or float" in said


def test_a_model_that_was_typed_is_imported_and_the_canary_sings(here: Path) -> None:
    run("trace", "evil.py:f", "-o", "out.json")
    assert Path("CANARY").exists()
    Path("CANARY").rmdir()
    with pytest.raises(AssertionError):
        try:
            run("verify", "evil:f")
            holds("tree t.json", 0, "")
        finally:
            sys.modules.pop("evil", None)
