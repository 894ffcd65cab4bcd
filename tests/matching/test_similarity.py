"""Laws of similarity: copies are told whatever their order, and what is not alike passes no more often than chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks.traced import network, spec
from torch import Tensor

import permgraph as pg
from permgraph.errors import PlanError
from tests.command import run

State = dict[str, Tensor]


def drawn(state: State, seed: int) -> State:
    """Independent weights of the same shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t for k, t in state.items()
    }


@pytest.mark.parametrize("name", ["hubert", "gru"])
def test_copies_are_told_in_any_order(name: str) -> None:
    plan, state = pg.plan(spec(name)), drawn(network(name)[0].state_dict(), 0)
    copy = pg.compare(plan, state, state, shuffles=3)
    assert copy.in_place == pytest.approx(1) and copy.p_in_place == 0.01
    assert copy.matched == pytest.approx(1) and copy.p_matched == 0.25 and copy.shuffled < 0.7
    scrambled = pg.compare(plan, state, pg.apply(plan, pg.random_permutations(plan, 1), state), shuffles=3)
    assert scrambled.in_place < 0.5 and scrambled.p_in_place > 0.01
    assert scrambled.matched == pytest.approx(1) and scrambled.p_matched == 0.25


@pytest.mark.slow
def test_what_is_not_alike_passes_by_chance_alone() -> None:
    """Over 20 pairs of independent weights, shares of at most 0.25 are about a quarter."""
    plan, state = pg.plan(spec("mlp")), network("mlp")[0].state_dict()
    found = [pg.compare(plan, drawn(state, i), drawn(state, 100 + i), seed=i, shuffles=7) for i in range(20)]
    for shares in ([one.p_in_place for one in found], [one.p_matched for one in found]):
        assert 1 <= sum(p <= 0.25 for p in shares) <= 11
    assert found[0] == pg.compare(plan, drawn(state, 0), drawn(state, 100), seed=0, shuffles=7)


def test_a_plan_that_moves_nothing_is_refused() -> None:
    state = network("mlp")[0].state_dict()
    with pytest.raises(PlanError, match="the plan selects no group, so there is nothing to match"):
        pg.compare(replace(pg.plan(spec("mlp")), selected=()), state, state)


def test_a_scrambled_checkpoint_is_compared_and_put_back(
    tmp_path: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.chdir(tmp_path)
    state = network("mlp")[0].state_dict()
    save_file(state, "a.safetensors")
    pg.plan(spec("mlp")).save("plan.json")
    run("scramble", "plan.json", "a.safetensors", "-o", "b.safetensors", "--seed", 2)
    assert any(not torch.equal(t, state[k]) for k, t in load_file("b.safetensors").items())
    capsys.readouterr()
    run("compare", "a.safetensors", "b.safetensors", "--plan", "plan.json", "--shuffles", 1)
    assert "Matched: cosine 1.0000" in capsys.readouterr().out
    run("unapply", "plan.json", "perms.safetensors", "b.safetensors", "-o", "c.safetensors")
    assert all(torch.equal(t, state[k]) for k, t in load_file("c.safetensors").items())
    run(
        "scramble", "plan.json", "none.safetensors", "-o", "d.safetensors", "--perms", "p.safetensors", code=3
    )
    assert "none.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "p.safetensors").exists()
    before = (tmp_path / "perms.safetensors").read_bytes()
    run("scramble", "plan.json", "none.safetensors", "-o", "d.safetensors", "--force", code=3)
    assert (tmp_path / "perms.safetensors").read_bytes() == before  # --force replaces, a failure does not
