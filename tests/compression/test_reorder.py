"""Laws of orders for N:M sparsity: never less than before or than a greedy search, never more than a row holds, same function."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from networks.pretrained import DATA, CifarNet, needs_data
from networks.traced import network, spec
from peers.exchange_search import exchanged, magnitude
from safetensors.torch import load_file, save_file
from torch import Tensor

import permgraph as pg
from permgraph.compression.pattern import Pattern
from permgraph.compression.stripes import best_order
from permgraph.errors import PlanError, UsageError
from tests.command import run

State = dict[str, Tensor]


def drawn(name: str) -> State:
    """Random weights, units of unlike size."""
    generator = torch.Generator().manual_seed(0)
    state = network(name)[0].state_dict()
    found = {
        k: torch.randn(t.shape, generator=generator, dtype=t.dtype).pow(3) if t.is_floating_point() else t
        for k, t in state.items()
    }
    return {k: t.abs() if k.endswith("running_var") else t for k, t in found.items()}


def kept(columns: np.ndarray, n: int, m: int) -> float:
    """Of (inputs, rows), spelt out: sorted, and the largest n of every m inputs added up."""
    sizes = np.sort(np.abs(columns.astype(np.float64)).reshape(-1, m, columns.shape[1]), axis=1)
    return float(sizes[:, m - n :].sum())


def greedy(columns: np.ndarray, n: int = 2, m: int = 4) -> float:
    """The reference: exchange the two channels that gain most, until no exchange gains."""
    order = np.arange(len(columns))
    value = kept(columns, n, m)
    while True:
        best, pair = value * (1 + 1e-9), None
        for i, j in itertools.combinations(range(len(order)), 2):
            if i // m != j // m:
                touched = np.r_[i // m * m : i // m * m + m, j // m * m : j // m * m + m]
                before = kept(columns[order[touched]], n, m)
                order[[i, j]] = order[[j, i]]
                gained = value - before + kept(columns[order[touched]], n, m)
                order[[i, j]] = order[[j, i]]
                if gained > best:
                    best, pair = gained, (i, j)
        if pair is None:
            return value
        order[list(pair)] = order[list(pair)[::-1]]
        value = best


@pytest.mark.parametrize(("n", "m", "units"), [(2, 4, 16), (1, 2, 10), (1, 3, 12)])
def test_the_search_of_the_benchmark_is_the_greedy_one(n: int, m: int, units: int) -> None:
    columns = np.random.default_rng(units).standard_normal((units, 7)).astype(np.float32) ** 3
    order = exchanged(columns, n, m)
    assert sorted(order) == list(range(units))
    assert kept(columns[order], n, m) == pytest.approx(greedy(columns, n, m), rel=1e-5)
    assert magnitude(columns, order, n, m) == pytest.approx(
        kept(columns[order], n, m) / np.abs(columns).sum()
    )


def stored(state: State, tensor: str, axis: int) -> np.ndarray:
    """A tensor as (inputs, rows)."""
    array = state[tensor].numpy()
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


@pytest.mark.parametrize(("n", "m", "units"), [(2, 4, 8), (1, 2, 6), (1, 3, 6), (2, 3, 9)])
def test_small_problems_are_solved_exactly(n: int, m: int, units: int) -> None:
    """Against every order there is. The order that it starts from is never the best one here."""
    for seed in range(5):
        weights = np.abs(np.random.default_rng(seed).standard_normal((units, 7)))
        every = (
            max(kept(weights[list(order)], n, m) for order in itertools.permutations(range(units)))
            if units < 8
            else None
        )
        if every is None:
            every = max(kept(weights[list(order)], n, m) for order in partitions(list(range(units)), m))
        found = best_order(weights, Pattern(n, m), np.random.default_rng(0), 1e9)
        assert sorted(found) == list(range(units))
        assert kept(weights[found], n, m) == pytest.approx(every)
        assert kept(weights, n, m) < every


def partitions(units: list[int], m: int) -> itertools.chain[list[int]]:
    """Every way to put units into stripes."""
    if not units:
        return itertools.chain([[]])
    first, *rest = units
    return itertools.chain.from_iterable(
        ([first, *others, *more] for more in partitions([u for u in rest if u not in others], m))
        for others in itertools.combinations(rest, m - 1)
    )


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "bert", "llama_gqa_lm", "swin")]


@pytest.mark.parametrize("name", ["resnet_bottleneck", "lstm", *SLOW])
def test_a_network_keeps_more_and_computes_the_same(name: str) -> None:
    _, inputs = network(name)
    plan, state = pg.plan(spec(name)), drawn(name)
    found = pg.reorder(plan, state)
    moved = pg.apply(plan, found.perms, state)
    for row in found.rows:  # counted again, on the weights as they come out
        for value, held in ((row.before, state), (row.after, moved)):
            assert value == pytest.approx(kept(stored(held, row.tensor, row.axis), 2, 4), rel=1e-5)
        halves = np.sort(np.abs(stored(state, row.tensor, row.axis)), axis=0)
        assert row.most == pytest.approx(float(halves[len(halves) // 2 :].sum(dtype=np.float64)), rel=1e-5)
        assert row.after <= row.most * (1 + 1e-6)
    total = found.total
    assert total.before * 1.005 < total.after and 0 < found.efficacy < 1
    twin = network.__wrapped__(name)[0].eval()
    with torch.no_grad():
        results = []
        for held in (state, moved):
            twin.load_state_dict(held)
            out = twin(*inputs)
            results.append(next(t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)))
    assert torch.allclose(*results, rtol=1e-3, atol=1e-3 * float(results[0].abs().max()))


@pytest.mark.slow
def test_heads_and_hidden_units_keep_as_much_as_a_greedy_search() -> None:
    """Of a transformer with grouped queries: v channels go together in all query heads of a key head."""
    plan, state = pg.plan(spec("llama_gqa_lm"), groups="ffn.0,heads.0/v"), drawn("llama_gqa_lm")
    found = pg.reorder(plan, state)
    rows = {row.tensor: row for row in found.rows}
    checked = 0
    for group in plan.groups:
        (place,) = (p for p in group.places if p.side == "un-permute")
        columns = stored(state, place.tensor, place.axis)
        if group.role == "ffn":
            value = greedy(columns)
        else:
            (heads,) = group.ancestors
            at = place.positions.array()
            at = np.moveaxis(at, [place.layout.index(heads), place.layout.index(group.name)], (0, 1))
            parts = (columns[one].reshape(group.size, -1) for one in at.reshape(*at.shape[:2], -1))
            value = sum(greedy(part) for part in parts)
        row = rows[place.tensor]
        assert row.after >= value * (1 - 1e-6) and value > row.before * 1.003
        checked += 1
    assert checked == len(found.rows) == 2


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "cifar_resnet_neo_v1_5e4_20", "cifar_plainnet_neo_v1_5e4_20"]
)
def test_trained_convolutions_keep_as_much_as_a_greedy_search(name: str) -> None:
    """The channels inside every block of networks of other people."""
    state = load_file(DATA / "weights" / f"{name}.safetensors")
    module = CifarNet("plain" not in name).eval()
    plan = pg.plan(pg.infer(pg.trace(module, (torch.randn(1, 3, 32, 32),))))
    rows = {row.tensor: row for row in pg.reorder(plan, state).rows}
    assert len(rows) == 19  # all but the first convolution, which reads colours
    for block in range(9):
        tensor = f"convs.{block}.conv2.weight"
        value = greedy(stored(state, tensor, 1))
        assert rows[tensor].after >= value * (1 - 1e-6) and value > rows[tensor].before


@pytest.mark.slow
def test_layers_of_usual_widths_keep_as_much_as_a_greedy_search() -> None:
    """Random weights: 64 channels between convolutions of ResNet-50, and the 64 v channels of each of three heads of a HuBERT."""
    from transformers import HubertConfig, HubertModel, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    hubert = HubertConfig(hidden_size=192, num_attention_heads=3, num_hidden_layers=1)
    for module, inputs, role, copies in (
        (ResNetForImageClassification(ResNetConfig()), {"pixel_values": torch.randn(1, 3, 64, 64)}, "cnn", 1),
        (
            HubertModel(hubert),
            {"input_values": torch.randn(1, 8000)},
            "heads/v",
            3,
        ),
    ):
        groups = pg.infer(pg.trace(module.eval(), inputs))
        chosen = [g for g in groups.groups if g.role == role and g.size == 64 and g.copies == copies][-1:]
        plan, state = pg.plan(groups, ",".join(g.name for g in chosen)), module.state_dict()
        rows = {row.tensor: row for row in pg.reorder(plan, state).rows}
        for group in chosen:
            (place,) = (p for p in group.places if p.side == "un-permute")
            columns = stored(state, place.tensor, place.axis)
            value = sum(greedy(part) for part in np.split(columns, copies))
            assert rows[place.tensor].after >= value * (1 - 1e-6) and value > rows[place.tensor].before


def test_stripes_that_hold_units_of_two_heads_are_improved_too() -> None:
    """Heads of four channels and stripes of three: every stripe holds channels of two heads."""
    plan, state = pg.plan(spec("qkv_3hd")), drawn("qkv_3hd")
    found = pg.reorder(plan, state, "1:3")
    (row,) = found.rows
    moved = pg.apply(plan, found.perms, state)
    assert row.after == pytest.approx(kept(stored(moved, "out.weight", 1), 1, 3), rel=1e-5)
    assert row.before * 1.005 < row.after <= row.most


def test_the_same_seed_gives_the_same_order() -> None:
    plan, state = pg.plan(spec("bert")), drawn("bert")
    assert pg.reorder(plan, state).perms == pg.reorder(plan, state).perms


def test_what_cannot_be_ordered_is_refused() -> None:
    plan, state = pg.plan(spec("bert")), drawn("bert")
    for typed in ("2", "4:2", "0:4", "2:4:8", "2:400"):
        with pytest.raises(UsageError, match=rf"--pattern {typed}: write N:M"):
            pg.reorder(plan, state, typed)
    with pytest.raises(PlanError, match="no product sums over units that this plan moves"):
        pg.reorder(pg.plan(spec("bert"), "heads.*/qk"), state)
    with pytest.raises(PlanError, match=r"7 divides the length of none of .*weight"):
        pg.reorder(plan, state, "2:7")
    with pytest.raises(PlanError, match="the plan has mode untied, which changes the function"):
        pg.reorder(pg.plan(spec("bert"), "heads", mode="untied"), state)


@pytest.mark.slow
def test_a_checkpoint_is_reordered_and_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {k: t.contiguous() for k, t in drawn("multihead_attention").items()}
    save_file(state, "a.safetensors")
    pg.plan(spec("multihead_attention")).save("plan.json")
    run("reorder", "plan.json", "a.safetensors", "-o", "b.safetensors", "--pattern", "1:4")
    said = capsys.readouterr()
    assert "Pattern 1:4: 0." in said.out and "efficacy" in said.out and "perms.safetensors" in said.err
    run("unapply", "plan.json", "perms.safetensors", "b.safetensors", "-o", "c.safetensors")
    assert all(torch.equal(t, state[k]) for k, t in load_file("c.safetensors").items())
    run("reorder", "plan.json", "a.safetensors", "-o", "d.safetensors", "--pattern", "4:2", "--force", code=2)
    assert "--pattern 4:2: write N:M" in capsys.readouterr().err and not Path("d.safetensors").exists()
