"""Equal modules side by side: heads, experts, branches, streams change places with all their tensors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from networks.side_by_side import CASES, SHAPE
from oracles.automorphisms import log10_order
from safetensors.torch import load_file, save_file

import permgraph as pg
from permgraph.errors import PlanError
from permgraph.ir.joined import Joined, joined_name
from permgraph.ir.permutations import random_permutations
from permgraph.ir.spec import PermSpec, Place, Positions
from permgraph.linter.claims import Claim, ClaimPlace
from permgraph.linter.containment import contain
from permgraph.planning.gather import Gather, apply_gathers, gathers
from permgraph.planning.moves import moves_of
from permgraph.verification.function_check import left_out, verify
from permgraph.weights.apply import apply_checkpoint
from permgraph.weights.merge_files import merge_checkpoints


def made(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return CASES[name][0]().eval(), (torch.randn(SHAPE),)


@cache
def spec_of(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], PermSpec]:
    net, inputs = made(name)
    return net, inputs, pg.infer(pg.trace(net, inputs))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", CASES)
def test_the_groups_are_those_counted_by_hand_and_keep_the_function(name: str) -> None:
    net, inputs, spec = spec_of(name)
    assert sorted((group.size, group.copies) for group in spec.groups) == sorted(CASES[name][1])
    assert not spec.frozen and not spec.unknown_ops
    check = pg.verify(net, inputs, spec)
    assert check <= 1e-9
    assert check.control is not None and check.control > 1e-6  # one tensor out of step is noticed
    assert spec.log10_order == pytest.approx(log10_order(pg.trace(net, inputs)), abs=1e-6)


@pytest.mark.parametrize("name", ["experts, gate sliced", "heads with one key", "convolutions concatenated"])
def test_a_forgotten_step_is_noticed(name: str) -> None:
    net, inputs, spec = spec_of(name)
    plan = pg.plan(spec)
    joined = [
        i
        for i, step in enumerate(plan.steps)
        if step.tensor in spec.joined and step.tensor.endswith("weight")
    ]
    assert joined
    for number in joined:
        assert not verify(net, inputs, left_out(plan, number), explain=False).kept, plan.steps[number]


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", CASES)
def test_apply_is_undone_bit_for_bit(name: str) -> None:
    net, _, spec = spec_of(name)
    plan, state = pg.plan(spec), net.state_dict()
    perms = random_permutations(plan, 1)
    back = pg.unapply(plan, perms, pg.apply(plan, perms, state))
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_a_file_says_what_is_joined_and_is_applied_like_a_state_dict(tmp_path: Path) -> None:
    net, _, spec = spec_of("experts, gate sliced")
    plan = pg.plan(spec)
    plan.save(tmp_path / "plan.json")
    again = pg.Plan.load(tmp_path / "plan.json")
    assert again == plan and again.spec.joined == spec.joined
    perms = random_permutations(plan, 1)
    save_file(net.state_dict(), tmp_path / "b.safetensors")
    apply_checkpoint(plan, perms, tmp_path / "b.safetensors", tmp_path / "out.safetensors")
    stored = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(stored[k], t) for k, t in pg.apply(plan, perms, net.state_dict()).items())


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_moves_of_members_are_those_of_the_joined_tensor(axis: int | None) -> None:
    """Joined, re-ordered and taken apart again: the same numbers."""
    rng = np.random.default_rng(0)
    members, one = ("a", "b", "c"), (4, 5)
    joined = Joined(members, axis)
    shape = joined.shape(one)
    spec = PermSpec("net", "", (), (), tensors=dict.fromkeys(members, one), joined={"{a,b,c}": joined})
    steps = [Gather("{a,b,c}", d, rng.permutation(n)) for d, n in enumerate(shape)]
    if axis is None:
        rows = rng.permuted(np.tile(np.arange(5), (3, 1)), axis=1)
        steps.append(Gather("{a,b,c}", 2, rows, 0))
    tensors = {m: torch.randn(one) for m in members}
    moves = moves_of(spec, steps)
    found = {m: moves[m].of(tensors.__getitem__) if m in moves else tensors[m] for m in members}
    parts = list(tensors.values())
    whole = torch.stack(parts) if axis is None else torch.cat(parts, axis)
    moved = apply_gathers(whole, steps)
    wanted = moved.unbind(0) if axis is None else moved.chunk(3, axis)
    assert all(torch.equal(found[m], t) for m, t in zip(members, wanted, strict=True))


def planted(name: str, seed: int = 3) -> tuple[pg.Plan, pg.Permutations, pg.Permutations]:
    """A plan, the permutation that B was made with, and what matching finds to undo it."""
    net, _, spec = spec_of(name)
    plan = pg.plan(spec)
    perms = random_permutations(plan, seed)
    other, _ = made(name)
    other.load_state_dict(pg.apply(plan, perms, net.state_dict()))
    torch.manual_seed(1)
    batches = [(torch.randn(SHAPE),) for _ in range(30)]
    found = pg.match(plan, pg.calibrate(plan, net, other, batches))
    return plan, perms, found


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "name",
    [
        "experts, gate sliced",
        "SwiGLU experts",
        "heads as modules",
        "deep branches concatenated",
        "one wide FFN",
        "stack, mean",
    ],
)
def test_a_planted_order_of_modules_is_found_from_activations(name: str) -> None:
    plan, perms, found = planted(name)
    wanted = perms.inverse(plan.spec)
    for group in found.arrays:
        assert np.array_equal(found[group], wanted[group]), group


def test_names_say_the_members() -> None:
    assert joined_name(["e.0.w", "e.1.w", "e.3.w"]) == "e.{0,1,3}.w"
    assert joined_name(["e.2.w", "e.3.w", "e.4.w"]) == "e.{2..4}.w"


@pytest.mark.parametrize(
    ("joined", "said"),
    [
        ({"{a,c}": Joined(("a", "c"))}, "not tensors of one shape"),
        ({"{a,d}": Joined(("a", "d"))}, "not tensors of one shape"),
        ({"{a,b}": Joined(("a", "b")), "{a,b}'": Joined(("a", "b"), 0)}, "joined twice"),
        ({"{a,b}": Joined(("a", "b"), 2)}, "its tensors have 2 axes"),
    ],
)
def test_a_spec_that_joins_the_wrong_tensors_is_refused(joined: dict[str, Joined], said: str) -> None:
    tensors = {"a": (2, 3), "b": (2, 3), "c": (3, 2)}
    spec = PermSpec("net", "", (), (), tensors=tensors, joined=joined)
    with pytest.raises(PlanError, match=said):
        spec.check()


def test_a_tensor_that_also_has_places_of_its_own_is_refused() -> None:
    _, _, spec = spec_of("experts, gate sliced")
    member = next(iter(spec.joined.values())).members[0]
    group = next(g for g in spec.groups if not g.ancestors and g.size == 6)
    place = Place(member, 1, "permute", (group.name,), Positions.of(np.arange(6)[:, None]))
    wrong = pg.PermSpec(**(vars_of(spec) | {"places": (*spec.places, place)})).completed()
    with pytest.raises(PlanError, match="has a place of its own and one in a joined tensor"):
        wrong.check()


def vars_of(spec: PermSpec) -> dict[str, object]:
    from dataclasses import fields

    return {f.name: getattr(spec, f.name) for f in fields(spec)}


def test_gathers_on_a_joined_tensor_are_complete() -> None:
    """Every member of a joined tensor is read exactly once, whatever the permutation."""
    _, _, spec = spec_of("heads with one key")
    plan = pg.plan(spec)
    moves = moves_of(spec, gathers(plan, random_permutations(plan, 2)))
    for joined in spec.joined.values():
        sources = [s for m in joined.members for s in (moves[m].sources if m in moves else (m,))]
        assert sorted(sources) == sorted(joined.members)


def claim(*places: tuple[str, int], size: int) -> Claim:
    units = np.arange(size)[None, :, None]
    return Claim("foreign", size, tuple(ClaimPlace(tensor, axis, units) for tensor, axis in places))


def test_a_foreign_group_inside_one_module_is_held_against_the_joined_tensors() -> None:
    _, _, spec = spec_of("experts, gate sliced")
    inside = [("e.1.0.weight", 0), ("e.1.0.bias", 0), ("e.1.2.weight", 1)]
    whole, part = contain(spec, [claim(*inside, size=7), claim(*inside[1:], size=7)])
    assert whole.contained
    assert not part.contained and part.missing == ("e.{0..2}.0.weight[1]",)


def test_a_merge_with_experts_in_another_order_gives_the_model_back(tmp_path: Path) -> None:
    net, _, spec = spec_of("experts, gate sliced")
    plan = pg.plan(spec)
    perms = random_permutations(plan, 4)
    state = net.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    save_file(pg.apply(plan, perms, state), tmp_path / "b.safetensors")
    files = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "out"))
    merge_checkpoints(*files, weights=(0.5, 0.5), plan=plan, perms=perms.inverse(spec))
    merged = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(merged[key], tensor) for key, tensor in state.items())


def test_axes_of_a_member_are_asked_by_its_own_name() -> None:
    _, _, spec = spec_of("experts, gate sliced")
    assert {g.size for g in spec.groups_of("e.1.0.weight[0]")} == {3, 7}
    assert {g.size for g in spec.groups_of("e.1.0.weight[1]")} == {6}
