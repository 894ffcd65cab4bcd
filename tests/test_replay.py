"""Replay: the record of a merge is enough to make the same bytes again, and nothing else passes for it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import permgraph as pg
from permgraph import Permutations, Plan, random_permutations
from tests.faults.conftest import pair, place  # noqa: F401  (fixtures)
from tests.faults.kit import MATCH, bad, good, tree

BEFORE = ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "first")
AGAIN = ("replay", "first", "--a", "A", "--b", "B", "-o", "again")
OPTIONS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "weights": ("--weights", "0.3,0.7"),
    "group weights": ("--group-weights", "ffn=0.25", "--group-weights", "heads=0.5"),
    "parametrized": ("--parametrized", "parts"),
    "unchecked": ("--no-check",),
    "integers of A": ("--integers-of-a",),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("how", OPTIONS)
def test_a_merge_is_made_again_byte_for_byte(place: Path, how: str) -> None:  # noqa: F811
    good(*BEFORE, *OPTIONS[how])
    good(*AGAIN)
    assert tree(place / "first") == tree(place / "again")


def test_the_whole_pipeline_in_one_command_is_made_again(place: Path) -> None:  # noqa: F811
    good("merge", "A", "B", "-g", "heads,ffn", *MATCH[6:], "-o", "first")
    assert pg.replay("first", "A", "B", "again") == Path("again")
    assert tree(place / "first") == tree(place / "again")


def test_single_files_name_their_plan_and_permutations(place: Path) -> None:  # noqa: F811
    for name in "AB":
        Path(f"{name}.safetensors").write_bytes(Path(name, "model.safetensors").read_bytes())
    plan = Plan.load("plan.json")
    random_permutations(plan).save("random.st")
    files = ("--plan", "plan.json", "--perms", "random.st")
    model = ("A.safetensors", "B.safetensors")
    pg_merge(*model, "first.safetensors", plan, Permutations.load("random.st"))
    again = ("replay", "first.safetensors", "--a", model[0], "--b", model[1], "-o", "again.safetensors")
    assert "no plan.json lies beside" in bad(*again)
    good(*again, *files)
    assert Path("first.safetensors").read_bytes() == Path("again.safetensors").read_bytes()


def pg_merge(a: str, b: str, out: str, plan: Plan, perms: Permutations, **options: Any) -> None:
    from permgraph.weights.merge_files import merge_checkpoints

    merge_checkpoints(a, b, out, plan=plan, perms=perms, **options)


def other_weights(folder: str, key: str = "") -> None:
    """One number of a model is another."""
    file = f"{folder}/model.safetensors"
    tensors = load_file(file)
    tensors[key or min(tensors)].view(-1)[0] += 1
    save_file(tensors, file, {"format": "pt"})


def other_plan() -> None:
    good("plan", "t.json", "-g", "ffn", "-o", "first/plan.json", "--force")


def other_permutations() -> None:
    random_permutations(Plan.load("plan.json"), 3).save("first/permutations.safetensors")


def other_record(change: Callable[[dict[str, Any]], None]) -> None:
    path = Path("first/permgraph.json")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def repaired() -> None:
    good(*BEFORE, "--repair", *MATCH[6:], "--force")


def applied() -> None:
    plan = Plan.load("plan.json")
    random_permutations(plan, 5).save("five.st")
    good("apply", "plan.json", "five.st", "A", "-o", "first", "--force")


DIFFERENCES: dict[str, tuple[Callable[[], Any], str]] = {
    "A": (lambda: other_weights("A"), "as A (fingerprint"),
    "B": (lambda: other_weights("B"), "as B (fingerprint"),
    "plan": (other_plan, "first/plan.json: not the plan that first was made with"),
    "permutations": (
        other_permutations,
        "first/permutations.safetensors: not the permutations that first was",
    ),
    "weights": (lambda: other_record(lambda r: r.update(weights=[0.8, 0.2])), "comes out otherwise"),
    "result": (lambda: other_weights("first"), "comes out otherwise"),
    "option": (lambda: other_record(lambda r: r["merging"].update(unheld=["dtype"])), "merged with dtype"),
    "repair": (repaired, "were corrected on data"),
    "applied": (applied, "`permgraph apply` wrote it"),
    "no record": (lambda: Path("first/permgraph.json").unlink(), "has no record"),
    "no plan": (lambda: Path("first/plan.json").unlink(), "no plan.json lies beside"),
    "swapped": (
        lambda: (Path("A").rename("C"), Path("B").rename("A"), Path("C").rename("B")),
        "as A (finger",
    ),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_difference_is_named_and_nothing_is_written(place: Path, what: str) -> None:  # noqa: F811
    good(*BEFORE)
    change, words = DIFFERENCES[what]
    change()
    said = bad(*AGAIN)
    assert words in said and len(said.splitlines()) == 1, said
    assert not Path("again").exists()


def test_weights_that_no_fingerprint_covers_are_held_against_the_result(place: Path) -> None:  # noqa: F811
    """A hand-made permutation does not say what it was matched on: a tensor that differs is found in what comes out."""
    perms = replace(random_permutations(Plan.load("plan.json")), report={})
    pg_merge("A", "B", "first", Plan.load("plan.json"), perms)
    perms.save("hand.st")
    words = (*AGAIN, "--plan", "plan.json", "--perms", "hand.st")
    good(*words, "--force")
    other_weights("B", "encoder.layer_norm.weight")
    assert "'encoder.layer_norm.weight' comes out otherwise" in bad(*words, "--force")
    assert tree(place / "again")["model.safetensors"] == tree(place / "first")["model.safetensors"]


def test_options_that_a_record_does_not_hold_are_named_in_it(place: Path) -> None:  # noqa: F811
    plan, perms = Plan.load("plan.json"), Permutations.load("perms.safetensors")
    pg_merge("A", "B", "first", plan, perms, dtype=torch.float64)
    plan.save("first/plan.json")
    perms.save("first/permutations.safetensors")
    assert "merged with dtype, which its record does not hold" in bad(*AGAIN)


def test_what_was_typed_is_looked_at_first(place: Path) -> None:  # noqa: F811
    good(*BEFORE)
    assert "-o is missing" in bad(*AGAIN[:6], code=2)
    assert "--a is missing" in bad("replay", "first", code=2)
    assert "no such file" in bad("replay", "nowhere", *AGAIN[2:])
    assert "no such file" in bad(*AGAIN[:3], "nowhere", *AGAIN[4:])
    assert "output and input are the same" in bad(*AGAIN[:7], "first", "--force")
    assert "output and input are the same" in bad(
        "replay", "first", "--plan", "t.json", "--statement", "t.json"
    )


def test_the_statement_names_the_files_and_what_they_were_made_of(place: Path) -> None:  # noqa: F811
    good(*BEFORE)
    said = good("replay", "first", "--statement", "s.json", "--json")
    assert json.loads(said.out) == {"written": ["s.json"]}
    found = json.loads(Path("s.json").read_text())
    assert found.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1" and ":" in found["predicateType"]
    data = Path("first/model.safetensors").read_bytes()
    assert found["subject"] == [
        {"name": "model.safetensors", "digest": {"sha256": hashlib.sha256(data).hexdigest()}}
    ]
    assert found["predicate"] == json.loads(Path("first/permgraph.json").read_text())
    origin = Permutations.load("perms.safetensors").origin
    assert found["predicate"]["merging"]["inputs"] == [origin.weights_a, origin.weights_b]
    assert found["predicate"]["b"] == {
        "plan": Plan.load("plan.json").digest,
        "permutations": Permutations.load("perms.safetensors").digest,
    }
    assert "exists" in bad("replay", "first", "--statement", "s.json")
    other_weights("first")
    good("replay", "first", "--statement", "s.json", "--force")
    assert json.loads(Path("s.json").read_text())["subject"] != found["subject"]


def test_a_merged_folder_is_signed_with_a_local_key(place: Path) -> None:  # noqa: F811
    """By the tool of OpenSSF: what was signed is verified, and a record that says other weights is not."""
    pytest.importorskip("model_signing", reason="pip install 'permgraph[signing]'")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    good(*BEFORE)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    Path("key.pem").write_bytes(secret)
    Path("key.pub.pem").write_bytes(public)

    def signing(verb: str, option: str, key: str) -> int:
        words = [verb, "key", "first", option, key, "--signature", "first.sig"]
        return subprocess.run([sys.executable, "-m", "model_signing", *words], check=False).returncode

    assert signing("sign", "--private_key", "key.pem") == 0
    assert signing("verify", "--public_key", "key.pub.pem") == 0
    record = Path("first/permgraph.json")
    record.write_text(record.read_text(encoding="utf-8").replace("0.9", "0.8", 1), encoding="utf-8")
    assert signing("verify", "--public_key", "key.pub.pem") != 0
