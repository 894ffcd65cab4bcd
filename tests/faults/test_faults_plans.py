"""Cases 38-47: groups, plans, permutations."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from permgraph import Permutations, Plan, random_permutations
from permgraph.ir import files
from tests.faults.kit import MATCH, apply, bad, config, encoder, good, tree

PLANNED = ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "out")


def plan_of(groups: str, *more: object, code: int = 2) -> str:
    return bad("plan", "t.json", "-g", groups, "-o", "new.json", *more, code=code)


# 38
def test_a_typo_in_a_group_name_shows_the_nearest(place: Path) -> None:
    assert "Did you mean heads" in plan_of("hedas")
    assert "Did you mean ffn" in plan_of("ffn", "-x", "fnn")


# 39
def test_doubles_are_noted_and_what_selects_nothing_is_refused(place: Path) -> None:
    assert "is selected already" in good("plan", "t.json", "-g", "ffn,ffn", "-o", "new.json").err
    Path("new.json").unlink()
    assert "nothing is selected" in plan_of(",")
    assert "no group matches" in plan_of("conv*")
    assert "no group ffn.1" in plan_of("ffn.0-1")


# 39
@pytest.mark.parametrize("last", ["99999999999", "9" * 18, "9" * 5000])
def test_a_range_costs_what_is_there_and_not_what_is_typed(place: Path, last: str) -> None:
    start = time.monotonic()
    assert "no group" in plan_of(f"ffn.0-{last}") or "no such group" in plan_of(f"ffn.0-{last}")
    assert time.monotonic() - start < 5


# 40
def test_plans_and_permutations_of_others_are_refused(place: Path) -> None:
    encoder("C", 3, intermediate_size=32)
    assert "plan" in bad("verify", "C", "--plan", "plan.json")
    assert bad("apply", "plan.json", "perms.safetensors", "C", "-o", "out")
    encoder("D", 4)  # the same architecture, other weights
    said = bad("apply", "plan.json", "perms.safetensors", "D", "-o", "out")
    assert "were matched on other weights as B" in said and "--other-weights" in said
    assert "other weights as B" in bad("merge", "A", "D", *PLANNED[3:])
    assert "other weights as A" in bad("merge", "D", "B", *PLANNED[3:])
    good("apply", "plan.json", "perms.safetensors", "D", "-o", "out", "--other-weights")


def _spoilt(array: np.ndarray, how: str) -> np.ndarray:
    array = array.copy()
    if how == "float":
        return array.astype(np.float64)
    if how == "long":
        return np.concatenate([array, array[..., :1]], axis=-1)
    array.flat[0] = {"double": array.flat[1], "negative": -1, "beyond": array.shape[-1]}[how]
    return array


# 41
@pytest.mark.parametrize("how", ["double", "negative", "beyond", "float", "long"])
def test_indices_that_are_no_permutation_are_refused(place: Path, how: str) -> None:
    perms = Permutations.load("perms.safetensors")
    arrays = dict(perms.arrays) | {"ffn.0": _spoilt(perms["ffn.0"], how)}
    replace(perms, arrays=arrays).save("perms.safetensors")  # sealed, as by someone who means it
    for command in (apply(), PLANNED):
        assert "ffn.0" in bad(*command)


# 42
def test_channels_that_leave_their_heads_are_refused(place: Path) -> None:
    perms = Permutations.load("perms.safetensors")
    flat = np.random.default_rng(0).permutation(16)
    for array in (flat, flat.reshape(2, 8)):
        replace(perms, arrays=dict(perms.arrays) | {"heads.0/v": array}).save("perms.safetensors")
        assert "heads.0/v" in bad(*apply())


JSON: dict[str, Any] = {
    "twice": lambda text: text.replace("{", '{"format":3,', 1),
    "NaN": lambda text: text.replace('"change":null', '"change":NaN'),
    "infinity": lambda text: text.replace('"change":null', '"change":1e999'),
    "deep": lambda text: text.replace('"change":null', '"change":' + "[" * 10**5 + "]" * 10**5),
    "long number": lambda text: text.replace('"change":null', '"change":' + "9" * 10**5),
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "list": lambda text: "[1]",
    "not text": lambda text: "\udcff\udcfe",
}


# 43
@pytest.mark.parametrize("how", JSON)
def test_json_that_json_would_take_is_refused(place: Path, how: str) -> None:
    text = JSON[how](Path("plan.json").read_text())
    Path("plan.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "plan.json: " in bad(*apply())


# 43
@pytest.mark.parametrize(
    ("old", "new"),
    [("{", '{"hidden_size": 16,'), ('"hidden_size": 16', '"hidden_size": NaN'), ("{", "[" * 10**5)],
)
def test_a_configuration_that_is_not_strict_is_refused(place: Path, old: str, new: str) -> None:
    path = Path("B/config.json")
    path.write_text(path.read_text().replace(old, new, 1))
    for command in (("trace", "B", "-o", "x.json"), ("verify", "B"), apply(), (*MATCH, "-o", "p.st")):
        assert "B/config.json: " in bad(*command)


# 43
def test_a_file_is_bounded_before_it_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    assert "larger than 100" in bad(*apply())
    for device in ("/dev/zero", "/dev/null", "audio"):
        said = bad("apply", device, "perms.safetensors", "B", "-o", "out")
        assert "not a regular file" in said or "a folder" in said


# 44
@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("4", "needs a newer permgraph"),
        ("1", "older"),
        *((n, "not a positive integer") for n in ("0", "-1", "true", "3.0")),
    ],
)
def test_formats_of_other_versions_and_of_none_are_refused(place: Path, number: str, words: str) -> None:
    text = Path("plan.json").read_text()
    Path("plan.json").write_text(text.replace('"format":3', f'"format":{number}'))
    assert words in bad(*apply())


# 45
def test_what_was_done_is_not_done_again(place: Path) -> None:
    assert "already applied" in bad(*apply("applied"))
    for a, b in (("A", "applied"), ("A", "merged"), ("merged", "B")):
        said = bad("merge", a, b, *PLANNED[3:], "--other-weights")
        assert "already" in said
    assert not Path("out").exists()


# 46
def test_a_tensor_that_is_missing_leaves_everything_as_it_was(place: Path) -> None:
    path = Path("B/model.safetensors")
    tensors = load_file(path)
    tensors.pop("encoder.layers.0.feed_forward.output_dense.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    before = tree(place)
    for command in (apply(), PLANNED):
        assert "output_dense.weight" in bad(*command)
    assert tree(place) == before


# 47
@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(3))
def test_unapply_gives_back_every_bit(place: Path, seed: int) -> None:
    random_permutations(Plan.load("plan.json"), seed).save("r.st")
    good("apply", "plan.json", "r.st", "B", "-o", "there")
    good("unapply", "plan.json", "r.st", "there", "-o", "back")
    before, after = load_file("B/model.safetensors"), load_file("back/model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(t, after[k]) for k, t in before.items())
    assert "is not what was applied to it last" in bad("unapply", "plan.json", "r.st", "back", "-o", "more")


def edited(plan: Plan) -> None:
    """A plan with a true digest, and permutations that name it, and the weights they were matched on."""
    plan.save("plan.json")
    perms = Permutations.load("perms.safetensors")
    origin = replace(perms.origin, plan=plan.digest, architecture=plan.fingerprint)
    replace(perms, origin=origin).save("perms.safetensors")


# P4
def test_an_edited_plan_with_a_true_digest_is_held_against_inference(place: Path) -> None:
    plan = Plan.load("plan.json")
    kept = tuple(p for p in plan.spec.places if not p.tensor.endswith("intermediate_dense.bias"))
    edited(replace(plan, spec=replace(plan.spec, places=kept).completed()))
    for command in (apply(), PLANNED):
        assert "are not those that are inferred" in bad(*command)


# P4
@pytest.mark.parametrize("mode", ["one-sided", "untied"])
def test_a_mode_that_breaks_no_tie_is_checked(place: Path, mode: str) -> None:
    edited(replace(Plan.load("plan.json"), mode=mode))
    if mode == "one-sided":
        assert "change the output by" in bad(*apply(), code=4)
    else:
        assert "Function check: the permuted B computes what B computes" in good(*apply()).err


# P1
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "field", ["auto_map", "architectures", "attn_implementation", "hidden_act", "tokenizer_class"]
)
def test_code_named_in_a_configuration_is_not_run(place: Path, field: str) -> None:
    Path("B/evil.py").write_text("open('CANARY', 'w')\ndef f(*_): open('CANARY', 'w')\n")
    Path("evil.py").write_bytes(Path("B/evil.py").read_bytes())
    value: Any = (
        {"AutoModel": "evil.f"}
        if field == "auto_map"
        else ["evil.f"]
        if field == "architectures"
        else "evil.f"
    )
    config("B", **{field: value})
    for words in (
        ("verify", "B"),
        ("trace", "B", "-o", "x.json"),
        ("merge", "A", "B", "-g", "none", "-o", "m"),
    ):
        from tests.test_cli import run

        run(*words)
    assert not Path("CANARY").exists() and not Path("B/CANARY").exists()


VERBS = {
    "plan": "plan NAMED --mode one-sided -o x.json",
    "tree": "tree NAMED",
    "draw": "draw NAMED -o x.svg",
    "view": "view NAMED -o x.html",
    "why": "why NAMED encoder.layers.0.feed_forward.intermediate_dense.weight[0]",
    "lint": "lint known.toml NAMED",
    "verify": "verify B --plan PLAN",
    "apply": "apply PLAN PERMS B -o out",
    "match": "match PLAN --a A --b B --audio audio --seconds 0.3 -o x.st",
    "calibrate": "calibrate PLAN --a A --b B --audio audio --seconds 0.3 -o x.st",
    "merge": "merge A B --plan PLAN --perms PERMS -o out",
}


# P1
@pytest.mark.sampled(6)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["evil.py:f", "evil:f", "evil"])
def test_a_model_that_a_file_names_is_never_built(
    place: Path, verb: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_cli import run

    Path("evil.py").write_text("open('CANARY', 'w')\ndef f(): open('CANARY', 'w')\n")
    Path("known.toml").write_text("model = 'evil.py:f'\n")
    monkeypatch.syspath_prepend(str(place))
    data = json.loads(Path("t.json").read_text())
    data["model"] = name
    body = {k: v for k, v in data.items() if k not in ("permgraph", "format", "digest")}
    Path("named.json").write_text(json.dumps(data | {"digest": files.digest_of(body)}))
    plan = Plan.load("plan.json")
    edited(replace(plan, spec=replace(plan.spec, model=name)))
    words = (
        VERBS[verb]
        .replace("NAMED", "named.json")
        .replace("PLAN", "plan.json")
        .replace("PERMS", "perms.safetensors")
    )
    said = run(*words.split())
    assert said.code in (0, 2, 3) and "Traceback" not in said.err, said.err
    assert not Path("CANARY").exists()
