"""Git Re-Basin's form: what we write is read as the same groups; what is read is a plan of ours, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks.traced import network, spec

import permgraph as pg
from permgraph.errors import PlanError
from permgraph.linter.rebasin import plan_from, to_rebasin
from tests.command import run
from tests.linter.reference import KNOWN, spec_of


@pytest.mark.parametrize("name", ["mlp", "batch_norm", "resnet_basic", "vit"])
@pytest.mark.parametrize("key", ["perm_to_axes", "axes_to_perm"])
def test_what_is_written_is_read_as_the_same_groups(name: str, key: str, tmp_path: Path) -> None:
    plan = pg.plan(spec(name))
    form = to_rebasin(plan)
    said, left = set(form["perm_to_axes"]), set(form["left_out"])
    assert said | left == set(plan.selected) and not said & left
    (tmp_path / "spec.json").write_text(json.dumps({key: form[key]}))
    again, names = plan_from(tmp_path / "spec.json", spec(name))
    assert set(again.selected) == said and names == {group: (group,) for group in said}
    assert to_rebasin(again)["perm_to_axes"] == form["perm_to_axes"]


def test_its_permutations_are_ours() -> None:
    """As Git Re-Basin applies them: every axis of every tensor is taken by the permutation that the form names there."""
    plan = pg.plan(spec("resnet_basic"))
    form, state = to_rebasin(plan), dict(network("resnet_basic")[0].state_dict())
    perms = pg.random_permutations(plan, 3)
    assert set(perms) == set(form["perm_to_axes"])
    theirs = dict(state)
    for tensor, axes in form["axes_to_perm"].items():
        for axis, group in enumerate(axes):
            if group is not None:
                theirs[tensor] = theirs[tensor].index_select(axis, torch.from_numpy(perms[group]))
    ours = pg.apply(plan, perms, state)
    assert all(torch.equal(ours[key], theirs[key]) for key in state)
    assert any(not torch.equal(ours[key], state[key]) for key in state)


def test_what_cannot_be_said_is_left_out_with_the_reason() -> None:
    left = to_rebasin(pg.plan(spec("llama_gqa_lm")))["left_out"]
    assert left["heads.0/v"] == "it lives within heads.0"
    assert "lives within it: its units are blocks" in left["heads.0"]
    assert not to_rebasin(pg.plan(spec("lstm")))["perm_to_axes"]  # four gates on one axis
    flat = to_rebasin(pg.plan(spec("flatten_head")))["left_out"]
    assert flat == {"cnn.1": "hidden.weight[1]: 9 units on an axis of 144"}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["git-re-basin-mlp", "git-re-basin-vgg16", "transfusion-vit", "verma-bert"])
def test_specifications_of_others_are_plans(name: str) -> None:
    from permgraph.data_files import read_toml

    groups = spec_of(read_toml(KNOWN / f"{name}.toml")["network"])
    plan, names = plan_from(KNOWN / f"{name}.toml", groups)
    assert plan.groups and set(plan.selected) == {n for found in names.values() for n in found}


def test_the_graph_of_the_paper_is_a_plan() -> None:
    """The 31 points of the released graph of HuBERT: 7 convolutions, 12 attentions, 12 feed-forwards."""
    hubert = spec_of("hubert")
    plan, names = plan_from(KNOWN / "hubert.toml", hubert)
    assert {g.role for g in plan.groups} >= {"cnn", "heads", "ffn"}
    assert sum(not g.ancestors for g in plan.groups) == 31 <= len(names)


def test_what_is_no_symmetry_is_refused(tmp_path: Path) -> None:
    form = to_rebasin(pg.plan(spec("mlp")))["perm_to_axes"]
    group, places = next(iter(form.items()))
    path = tmp_path / "spec.json"
    for wrong, said in (
        ({group: places[:-1]}, "is no symmetry of mlp: leaves out"),
        ({group: [*places, ["nothing.weight", 0]]}, "the network has no tensor 'nothing.weight'"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(PlanError, match=said):
            plan_from(path, spec("mlp"))


def test_the_command_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pg.plan(spec("vit")).save("plan.json")
    run("slices", "plan.json", "--format", "git-re-basin", "-o", "ours.json")
    form = json.loads(Path("ours.json").read_text())
    assert form["perm_to_axes"] == to_rebasin(pg.plan(spec("vit")))["perm_to_axes"]
    assert "left out" in capsys.readouterr().err
    run("slices", "plan.json", "--format", "rebasin", "-o", "b.json", code=2)
    assert "--format rebasin: write permgraph or git-re-basin" in capsys.readouterr().err
    assert np.all([isinstance(axis, int) for places in form["perm_to_axes"].values() for _, axis in places])
