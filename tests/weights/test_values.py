"""Orders, masks and tables in integer buffers: a plan that follows their values is refused where others are held."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks.randomise import noise, randomise
from safetensors.torch import save_file
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import FileError, PlanError
from permgraph.weights.apply import apply_checkpoint
from permgraph.weights.merge_files import merge_checkpoints

X = (noise(4, 5),)


class Ordered(nn.Module):
    """Two readers of one layer; the second reads it in an order that the checkpoint holds."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.int64) -> None:
        super().__init__()
        self.enter, self.leave, self.side = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("order", order.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.enter(x))
        return self.leave(h) + self.side(h[:, self.order.long()])  # type: ignore[no-any-return]


class Pruned(nn.Module):
    """A mask that meets the units of its layer one by one."""

    def __init__(self, mask: list[int]) -> None:
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.register_buffer("mask", torch.tensor(mask).bool())
        self.register_buffer("calls", torch.tensor(len(mask)))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.tanh(self.inner(torch.tanh(self.enter(x)) * self.mask)))  # type: ignore[no-any-return]


class Bare(Ordered):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.enter, self.leave, self.side = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.register_buffer("order", torch.empty(8, dtype=torch.int64))


def plan_of(net: nn.Module) -> pg.Plan:
    return pg.plan(pg.infer(pg.trace(net, X)))


ONE, OTHER = randomise(Ordered(1), 1), randomise(Ordered(2), 2)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_another_order_is_refused_everywhere(dtype: torch.dtype, tmp_path: Path) -> None:
    plan = plan_of(randomise(Ordered(1, dtype), 1))
    perms = pg.random_permutations(plan, seed=0)
    assert plan.groups and set(plan.spec.values) == {"order"}
    assert pg.verify(ONE, X, plan).kept, "the width of the integers does not matter"
    save_file(ONE.state_dict(), tmp_path / "one.safetensors")
    save_file(OTHER.state_dict(), tmp_path / "other.safetensors")
    out = tmp_path / "out.safetensors"
    apply_checkpoint(plan, perms, tmp_path / "one.safetensors", out, other_weights=True)
    out.unlink()
    words = "'order' holds other values than in the network that the plan was made for"
    for act in (
        lambda: pg.apply(plan, perms, OTHER.state_dict()),
        lambda: pg.verify(OTHER, X, plan),
        lambda: pg.calibrate(plan, ONE, OTHER, [X[0]]),
        lambda: pg.calibrate(plan, OTHER, ONE, [X[0]]),
        lambda: apply_checkpoint(plan, perms, tmp_path / "other.safetensors", out),
        lambda: merge_checkpoints(
            tmp_path / "one.safetensors", tmp_path / "other.safetensors", out, plan=plan, perms=perms
        ),
        lambda: merge_checkpoints(
            tmp_path / "other.safetensors", tmp_path / "one.safetensors", out, plan=plan, perms=perms
        ),
    ):
        with pytest.raises(PlanError, match=words):
            act()
    with pytest.raises(FileError, match=r"order: \d of 8 torch\.int64 values differ in A and B"):
        pg.merge(ONE.state_dict(), OTHER.state_dict())
    assert not out.exists()


def test_the_plan_remembers_in_its_file(tmp_path: Path) -> None:
    plan_of(ONE).save(tmp_path / "plan.json")
    plan = pg.Plan.load(tmp_path / "plan.json")
    with pytest.raises(PlanError, match="'order'"):
        pg.apply(plan, pg.random_permutations(plan, seed=0), OTHER.state_dict())


def test_values_that_are_not_known_pin() -> None:
    """On the meta device nothing says which unit goes with which, so none may move; then any values will do."""
    with torch.device("meta"):
        net, x = Bare(), (torch.empty(4, 5),)
    spec = pg.infer(pg.trace(net, x))
    assert not spec.groups and not spec.values


MASKS = {"mixed": [1, 1, 0, 1, 0, 1, 1, 1], "other": [1, 0, 1, 1, 1, 1, 0, 1], "all": [1] * 8}


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_moves_with_its_channels(mask: str) -> None:
    """Whatever it holds: a plan made for one mask is right for every other."""
    plan = plan_of(randomise(Pruned(MASKS["mixed"]), 1))
    assert {g.size for g in plan.groups} == {8, 6} and not plan.spec.values
    assert "mask" in {step.tensor for step in plan.steps}
    net = randomise(Pruned(MASKS[mask]), 2)
    assert pg.verify(net, X, plan).kept
    moved = pg.apply(plan, pg.random_permutations(plan, seed=3), net.state_dict())
    assert moved["mask"].dtype == torch.bool and int(moved["mask"].sum()) == sum(MASKS[mask])


def test_a_mask_left_behind_is_noticed() -> None:
    net, other = randomise(Pruned(MASKS["mixed"]), 1).double(), Pruned(MASKS["mixed"]).double()
    plan, x = plan_of(net), X[0].double()
    changes = []
    for seed in range(4):  # an order may leave the mask as it was
        moved = pg.apply(plan, pg.random_permutations(plan, seed), net.state_dict())
        other.load_state_dict(moved)
        torch.testing.assert_close(other(x), net(x), rtol=1e-12, atol=1e-12)
        other.load_state_dict({**moved, "mask": net.mask})
        changes.append((other(x) - net(x)).detach().abs().max().item())
    assert max(changes) > 1e-3


class Quantised(nn.Module):
    """Weights kept as small integers with a scale for each row."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, rows, columns in (("first", 8, 5), ("second", 3, 8)):
            integers = torch.randint(-127, 128, (rows, columns), generator=generator)
            self.register_buffer(name, integers.to(torch.int8))
            self.register_buffer(f"{name}_scale", torch.rand(rows, 1, generator=generator) / 64)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(x @ (self.first.to(x.dtype) * self.first_scale).T)
        return h @ (self.second.to(x.dtype) * self.second_scale).T  # type: ignore[no-any-return]


def test_integers_that_are_scaled_are_weights_as_others() -> None:
    net = Quantised()
    plan = plan_of(net)
    assert [g.size for g in plan.groups] == [8] and not plan.spec.values
    assert pg.verify(net, X, plan).kept


class Counted(Ordered):
    """An order that is also summed: one use by position is enough for it to be a table."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.order.to(x.dtype).sum())


def test_a_table_stays_a_table_whatever_else_reads_it() -> None:
    assert set(plan_of(randomise(Counted(1), 1)).spec.values) == {"order"}


class Largest(nn.Module):
    """Which channels are read depends on where the largest integers are."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 8), nn.Linear(3, 3)
        self.register_buffer("rank", torch.tensor([4, 1, 7, 0, 2, 6, 3, 5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.tanh(self.enter(x))[:, self.rank.topk(3).indices])  # type: ignore[no-any-return]


def test_integers_that_are_sorted_are_a_table() -> None:
    spec = pg.infer(pg.trace(randomise(Largest(), 1), X))
    assert "rank" not in {place.tensor for place in spec.places}
