"""Files of what flows: they come back equal, and each damage has a sentence that names the file and the field."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks.traced import spec, trace

from permgraph.errors import FileError, PermgraphError
from permgraph.ir.files import Document, digest_of, write_bytes
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Origin, Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.planning.compile import compile_plan

NETWORK = "hubert_layer"
Change = Callable[[dict[str, Any]], Any]


def plan() -> Plan:
    return compile_plan(spec(NETWORK), "all")


VALUES: dict[str, Callable[[], Document]] = {
    "trace": lambda: trace(NETWORK),
    "spec": lambda: spec(NETWORK),
    "plan": plan,
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize(
    "network", ["hubert_layer", "grouped_conv", "swin", "tied_language_model", "shufflenet"]
)
def test_a_document_comes_back_as_it_was(kind: str, network: str, tmp_path: Path) -> None:
    value: Any = {"trace": trace(network), "spec": spec(network), "plan": compile_plan(spec(network), "all")}[
        kind
    ]
    path = tmp_path / f"x.{kind}.json"
    value.save(path)
    back = type(value).load(path)
    assert back == value and back.digest == value.digest == json.loads(path.read_bytes())["digest"]
    assert not isinstance(value, (Trace, PermSpec)) or back.fingerprint == value.fingerprint
    value.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def rewritten(path: Path, kind: str, change: Change, sealed: bool = True) -> type[Document]:
    """A file of this kind, changed; sealed with the digest of what it says now."""
    value = VALUES[kind]()
    data = json.loads(json.dumps(value.document()))
    change(data)
    if sealed:
        data["digest"] = digest_of(
            {k: v for k, v in data.items() if k not in ("permgraph", "format", "digest")}
        )
    path.write_text(json.dumps(data), encoding="utf-8")
    return type(value)


def put(*keys: Any, value: Any) -> Change:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


HEADS: dict[str, tuple[Change, str]] = {
    "format 0": (put("format", value=0), "its format is not a positive integer"),
    "format -1": (put("format", value=-1), "its format is not a positive integer"),
    "format true": (put("format", value=True), "its format is not a positive integer"),
    "format text": (put("format", value="2"), "its format is not a positive integer"),
    "format 1": (put("format", value=1), "format 1 is of an older permgraph: make it again"),
    "format 99": (put("format", value=99), "format 99 needs a newer permgraph (this one reads"),
    "format huge": (put("format", value=10**30), "its format is not a positive integer"),
    "other kind": (put("permgraph", value="poem"), "found a permgraph poem file"),
    "no kind": (put("permgraph", value=None), "found something else"),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize(("change", "message"), HEADS.values(), ids=HEADS.keys())
def test_the_head_of_a_file_is_checked(kind: str, change: Change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    cls = rewritten(path, kind, change)
    with pytest.raises(FileError) as error:
        cls.load(path)
    assert message in str(error.value) and str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", VALUES)
def test_a_changed_file_is_refused_and_says_what_to_type(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}.json"
    cls = rewritten(
        path, kind, put(*(("spec", "model") if kind == "plan" else ("model",)), value="y"), sealed=False
    )
    with pytest.raises(
        FileError, match=f"the {kind} was changed after permgraph wrote it. Make it again with `permgraph"
    ):
        cls.load(path)


FIELDS: dict[str, tuple[str, Change, str]] = {
    "place": (
        "plan",
        put("spec", "places", 3, "axis", value="x"),
        'spec.places[3].axis: expected int, found "x"',
    ),
    "unknown": (
        "plan",
        put("spec", "places", 0, "colour", value=1),
        'spec.places[0]: unknown field "colour"',
    ),
    "node": ("trace", put("nodes", 5, "op", value=None), "nodes[5].op: expected str, found null"),
    "argument": (
        "trace",
        put("nodes", 5, "operands", value={"x": {"ref": 1}}),
        "nodes[5].operands['x'].ref: expected an object, found 1",
    ),
    "group": (
        "spec",
        put("groups", 1, "ancestors", value=["x", 2]),
        "groups[1].ancestors[1]: expected str, found 2",
    ),
}


@pytest.mark.parametrize(("kind", "change", "message"), FIELDS.values(), ids=FIELDS.keys())
def test_a_wrong_field_is_named_with_file_and_path(
    kind: str, change: Change, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{kind}.json"
    cls = rewritten(path, kind, change)
    with pytest.raises(FileError) as error:
        cls.load(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_contradiction_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    cls = rewritten(path, "plan", put("selected", value=["ffn.7"]))
    with pytest.raises(PermgraphError) as error:
        cls.load(path)
    assert str(error.value).startswith(f"{path}: group 'ffn.7' is selected and not defined.")


def test_permutations_come_back_with_their_origin(tmp_path: Path) -> None:
    perms = random_permutations(plan(), 3)
    perms.save(tmp_path / "p")
    back = Permutations.load(tmp_path / "p")
    assert back.origin == perms.origin == Origin(plan().digest, plan().fingerprint)
    assert back.digest == perms.digest and back.to_bytes() == perms.to_bytes()


def test_permutations_without_a_head_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(random_permutations(plan(), 3).arrays, tmp_path / "p")
    with pytest.raises(
        FileError, match="not a permgraph permutations file: its metadata has no entry 'permgraph'"
    ):
        Permutations.load(tmp_path / "p")


def test_write_bytes_replaces_whole_files_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(b"one", path)
    write_bytes(b"two", path)
    assert path.read_bytes() == b"two" and sorted(p.name for p in tmp_path.iterdir()) == ["x"]
    (tmp_path / "folder").mkdir()
    os.symlink(path, tmp_path / "link")
    for name, words in (("folder", "is not a regular file"), ("link", "a link"), ("no/x", "does not exist")):
        with pytest.raises(FileError, match=words):
            write_bytes(b"three", tmp_path / name)
    assert path.read_bytes() == b"two"
