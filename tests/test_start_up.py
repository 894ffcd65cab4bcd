"""What each verb imports: with a plan and permutations that were matched before, neither torch nor a model's code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.plan import Origin
from permgraph.pipeline import plan_for
from permgraph.verification.check import Check
from permgraph.verification.checkpoints import Checked, with_check
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.encoder import open_encoder
from permgraph.weights.stored import stored_pair

A, B = demo_models()
WATCHED = ("torch", "transformers", "scipy", "networkx", "numpy")
HEAVY = {  # verb → which of those it imports
    "--help": set(),
    "apply --help": set(),
    "apply plan.json perms.safetensors {B} -o applied": {"numpy"},
    "merge {A} {B} --plan plan.json --perms perms.safetensors -o merged": {"numpy"},
    "merge {A} {B} --plan plan.json --perms unchecked.safetensors --no-check -o unchecked": {"numpy"},
    "report perms.safetensors": {"numpy"},
    "tree plan.json": {"numpy"},
    "doctor": set(),
    "plan permgraph.trace.json -g ffn -o again.json": {"numpy", "scipy"},
    "draw permgraph.trace.json --plan plan.json -o plan.dot": {"numpy", "networkx"},
    "view permgraph.trace.json --plan plan.json -o plan.html": {"numpy", "networkx"},
    "why permgraph.trace.json encoder.layers.0.attention.q_proj.weight[0]": {"numpy", "networkx", "scipy"},
}
CODE = """
import sys
from permgraph.cli import main
sys.argv = ["permgraph", *{words!r}]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
print("imported:", *(name for name in {watched!r} if name in sys.modules))
"""


def fingerprint(plan: pg.Plan, checkpoint: Checkpoint) -> str:
    weights = Fingerprint(plan.spec)
    for key in checkpoint:
        weights.add(key, checkpoint.read(key))
    return weights.text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matched")
    encoder = open_encoder(B)
    encoder.trace.save(folder / "permgraph.trace.json")
    plan = plan_for(encoder, "ffn")
    plan.save(folder / "plan.json")
    known = (fingerprint(plan, open_checkpoint(path)) for path in (A, B))
    perms = replace(pg.random_permutations(plan), origin=Origin(plan.digest, plan.fingerprint, *known))
    perms.save(folder / "unchecked.safetensors")
    with_check(plan, perms, Checked("b", Check(1e-15))).save(folder / "perms.safetensors")
    return folder


def imports(command: str, folder: Path) -> set[str]:
    code = CODE.format(words=command.format(A=A, B=B).split(), watched=WATCHED)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


@pytest.mark.sampled(3)
@pytest.mark.parametrize("command", HEAVY)
def test_a_verb_imports_what_it_needs_and_no_more(command: str, files: Path) -> None:
    assert imports(command, files) == HEAVY[command]


def test_what_was_not_checked_is_checked_with_the_model(files: Path) -> None:
    from tests.command import run

    run("apply", files / "plan.json", files / "unchecked.safetensors", B, "-o", files / "checked")
    record = open_checkpoint(files / "checked").record
    assert record is not None and record.function_check is not None and "why" not in record.function_check


def test_a_check_counts_for_the_permutations_it_was_made_of(files: Path) -> None:
    from permgraph.verification.checkpoints import checked_before

    plan = pg.Plan.load(files / "plan.json")
    perms = pg.Permutations.load(files / "perms.safetensors")
    assert checked_before(plan, perms, "b") is not None
    turned = {name: array[..., ::-1].copy() for name, array in perms.items()}
    assert checked_before(plan, replace(perms, arrays=turned), "b") is None
    failed = with_check(plan, perms, Checked("b", Check(1.0)))
    assert checked_before(plan, failed, "b") is None
    other = replace(plan, selection="another")  # that no one has held against a fresh inference
    assert other.digest != plan.digest and checked_before(other, perms, "b") is None
    moved = replace(perms, origin=replace(perms.origin, plan=other.digest))
    assert checked_before(other, moved, "b") is None and checked_before(plan, moved, "b") is None
    assert checked_before(plan, pg.Permutations.load(files / "unchecked.safetensors"), "b") is None


def test_other_weights_than_those_checked_are_refused(files: Path, tmp_path: Path) -> None:
    from permgraph.errors import PlanError
    from permgraph.pipeline import as_matched, merge_all

    plan = pg.Plan.load(files / "plan.json")
    perms = pg.Permutations.load(files / "perms.safetensors")
    known = as_matched(plan, perms, A, A)  # A's weights in B's place
    assert known is not None
    with pytest.raises(PlanError, match="matched on other weights as B"):
        merge_all(*known, tmp_path / "out", [(0.9, 0.1)])
    assert not list(tmp_path.iterdir())
    assert stored_pair(plan, replace(perms, origin=Origin(plan.digest)), A, B) is None


def test_what_was_matched_needs_no_model_to_give_the_same_merge(files: Path) -> None:
    """The merge without models, and the one that builds them, write the same weights."""
    from tests.command import run

    for name, options in (("lean", []), ("whole", ["--other-weights"])):
        perms = [
            "--plan",
            files / "plan.json",
            "--perms",
            files / "perms.safetensors",
            "--no-check",
            *options,
        ]
        run("merge", A, B, *perms, "-o", files / name)
    lean, whole = (open_checkpoint(files / name) for name in ("lean", "whole"))
    assert lean.infos == whole.infos
    assert all((lean.rows(key) == whole.rows(key)).all() for key in lean)
