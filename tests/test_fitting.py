"""Narrower and shallower copies: their units come back to the slots that they were taken from, and what makes no sense is refused.

Judged by what was planted, by scipy's rectangular assignment, and by running the networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from networks import pretrained as p
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import FileError, PlanError, UsageError, VerificationError
from permgraph.weights.layers import by_position, layers_of

State = dict[str, Tensor]
NOISE = 1e-3


class Mlp(nn.Module):
    """(n, 5) → (n, 3)."""

    def __init__(self, first: int = 9, second: int = 7) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


INPUT = (torch.randn(4, 5, generator=torch.Generator().manual_seed(3)),)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make().eval()


def planned(model: nn.Module, inputs: tuple[Any, ...], free_output: bool = False) -> pg.Plan:
    return pg.plan(pg.infer(pg.trace(model, inputs), free_output))


def taken(
    plan: pg.Plan, model: nn.Module, small: nn.Module, inputs: tuple[Any, ...], seed: int, layers: Any = None
) -> tuple[State, dict[str, np.ndarray]]:
    """Weights of `small`: those of `model` for some of its units, in a random order, with noise; and which unit each is of A."""
    secret = pg.random_permutations(plan, seed)
    moved = pg.apply(plan, secret, model.state_dict())
    fitted = pg.fit(plan, model, small, inputs, layers)
    generator = torch.Generator().manual_seed(seed)
    names = {k: fitted.layers.of_a(k) for k in small.state_dict()}
    state = {}
    for key, tensor in small.state_dict().items():
        here = fitted.held[names[key]] != 0
        state[key] = (
            moved[names[key]][here].reshape(tensor.shape).clone() if tensor.is_floating_point() else tensor
        )
        if tensor.numel() > 1 and tensor.is_floating_point():
            state[key] += NOISE * tensor.std() * torch.randn(tensor.shape, generator=generator)
    return state, dict(secret.items())


def recovered(
    plan: pg.Plan, found: pg.Permutations, secret: dict[str, np.ndarray], sizes: dict[str, int]
) -> bool:
    """Whether slot s of A has the unit of B that was taken from it, for each that was, of groups within no other."""
    good = True
    for name, size in sizes.items():
        of_a = secret[name][:size]  # unit u of B is A's unit of_a[u]
        good = good and bool((found[name][of_a] == np.arange(size)).all())
    return good


def test_units_of_a_narrower_copy_come_back_by_weights_and_by_activations() -> None:
    model, small = seeded(Mlp, 0), seeded(lambda: Mlp(6, 4), 1)
    plan = planned(model, INPUT)
    state, secret = taken(plan, model, small, INPUT, 5)
    small.load_state_dict(state)
    fitted = pg.fit(plan, model, small, INPUT)
    sizes = {fitted.groups[g.name]: g.size for g in pg.infer(pg.trace(small, INPUT)).groups}
    assert sorted(sizes.values()) == [4, 6]
    by_weights = pg.match(plan, (model.state_dict(), fitted), "weights")
    assert recovered(plan, by_weights, secret, sizes)
    assert not recovered(plan, pg.match(plan, None, "identity"), secret, sizes)
    merged = pg.merge_fitted(plan, by_weights, model.state_dict(), fitted, (0.5, 0.5))
    for key, tensor in model.state_dict().items():  # B is A where it has numbers, but for the noise
        assert torch.allclose(merged[key], tensor, atol=0.02)
    wide = copy.deepcopy(model)
    wide.load_state_dict(fitted.state)
    batches = [torch.randn(64, 5, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    heard = pg.match(plan, pg.calibrate(plan, seeded(Mlp, 0), wide, batches))
    first = plan.spec.groups_of("layers.0.weight[0]")[0].name  # deeper units of B see fewer than A's
    assert recovered(plan, heard, secret, {first: sizes[first]})


def test_what_b_lacks_is_as_it_is_and_the_rest_is_averaged() -> None:
    model, small = seeded(Mlp, 0), seeded(lambda: Mlp(6, 4), 1)
    plan = planned(model, INPUT)
    fitted = pg.fit(plan, model, small, INPUT)
    perms = pg.random_permutations(plan, 2)
    a, b = model.state_dict(), pg.apply(plan, perms, fitted.state)
    held = pg.apply(plan, perms, fitted.held)
    merged = pg.merge_fitted(plan, perms, a, fitted, (0.25, 0.75))
    for key, tensor in a.items():
        here = held[key] != 0
        assert torch.equal(merged[key][~here], tensor[~here])
        assert torch.allclose(merged[key][here], 0.25 * tensor[here] + 0.75 * b[key][here], atol=1e-6)
    assert sum(int(h.sum()) for h in held.values()) == sum(t.numel() for t in small.state_dict().values())
    with pytest.raises(FileError, match="nothing says which of its numbers are B's"):
        from permgraph.weights.fitted import merge_fitted

        merge_fitted(a, b, {}, (0.5, 0.5))


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_is_the_rectangular_one(seed: int) -> None:
    """One hidden layer of unrelated networks: scipy assigns the table of distances, five units to nine slots."""

    def make(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    a, b = seeded(lambda: make(9), seed), seeded(lambda: make(5), 100 + seed)
    inputs = (torch.randn(2, 4),)
    plan = planned(a, inputs)
    fitted = pg.fit(plan, a, b, inputs)
    found = pg.match(plan, (a.state_dict(), fitted), "weights")
    (name,) = found

    def units(model: nn.Module) -> np.ndarray:
        s = model.state_dict()
        return torch.cat([s["0.weight"], s["0.bias"][:, None], s["2.weight"].T], 1).double().numpy()

    rows, columns = linear_sum_assignment(cdist(units(a), units(b), "sqeuclidean"))
    assert found[name][rows].tolist() == columns.tolist()


class Attention(nn.Module):
    """A residual block of attention whose heads are fewer than the stream is wide, under a norm. (n, t, 8) → the same."""

    def __init__(self, heads: int, size: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v = (nn.Linear(8, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, 8)
        self.up, self.down = nn.Linear(8, hidden), nn.Linear(hidden, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        y = self.norm(x)
        q, k, v = (f(y).view(b, t, self.heads, self.size).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1)
        x = x + self.out(y)
        return x + self.down(torch.relu(self.up(x)))


class Stack(nn.Module):
    """(n, t, 8) → (n, t, 3)."""

    def __init__(self, depth: int = 4, heads: int = 3, size: int = 4, hidden: int = 10) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(heads, size, hidden) for _ in range(depth))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


STREAM = (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(4)),)


def outer(plan: pg.Plan, fitted: Any, small: nn.Module) -> dict[str, int]:
    """Sizes in B of A's groups, of those within no other."""
    spec = pg.infer(pg.trace(small, STREAM))
    return {
        fitted.groups[g.name]: g.size
        for g in spec.groups
        if not g.ancestors and fitted.groups[g.name] in plan.selected
    }


@pytest.mark.parametrize(
    "layers", [None, pytest.param({"blocks": [1, 2]}, marks=pytest.mark.slow)], ids=["by position", "given"]
)
def test_fewer_layers_heads_and_hidden_units_come_back(layers: dict[str, Sequence[int]] | None) -> None:
    model, small = seeded(Stack, 0), seeded(lambda: Stack(depth=2, heads=2, hidden=6), 1)
    plan = planned(model, STREAM)
    state, secret = taken(plan, model, small, STREAM, 3, layers)
    small.load_state_dict(state)
    fitted = pg.fit(plan, model, small, STREAM, layers)
    assert fitted.layers.paired["blocks"] == ((0, 3) if layers is None else (1, 2))
    found = pg.match(plan, (model.state_dict(), fitted), "weights")
    sizes = outer(plan, fitted, small)
    assert set(sizes.values()) >= {2, 6}
    assert recovered(plan, found, secret, sizes)
    merged = pg.merge_fitted(plan, found, model.state_dict(), fitted, (0.5, 0.5))
    left = [k for k in merged if fitted.layers.left_out(k)]
    assert left and all(torch.equal(merged[k], model.state_dict()[k]) for k in left)
    assert all(torch.allclose(merged[k], t, atol=0.02) for k, t in model.state_dict().items())


def test_a_narrower_network_in_wider_shapes_computes_what_it_computes() -> None:
    """And so does what `match` and `apply` make of it; the check sees a number that is not where it belongs."""
    model, small = seeded(Stack, 0), seeded(lambda: Stack(heads=2, hidden=6), 1)
    plan = planned(model, STREAM)
    fitted = pg.fit(plan, model, small, STREAM)
    found = pg.match(plan, (model.state_dict(), fitted), "weights")
    wide = copy.deepcopy(model)
    wide.load_state_dict(pg.apply(plan, found, fitted.state))
    assert torch.allclose(wide(*STREAM), small(*STREAM), atol=1e-5)
    assert not torch.allclose(model(*STREAM), small(*STREAM), atol=1e-2)


class Wide(nn.Module):
    """A stream that may move, under a norm that mixes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(5, width), nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.norm(self.up(x))))


def gated(middle: nn.Module, width: int = 7) -> Mlp:
    """With other operations under the same names."""
    found = Mlp(9, 14)
    found.layers[3], found.layers[4] = middle, nn.Linear(width, 3)
    return found


REFUSED: dict[
    str, tuple[Callable[[], tuple[nn.Module, nn.Module, tuple[Any, ...], Any]], type[Exception], str]
] = {
    "B is wider": (
        lambda: (Mlp(6, 4), Mlp(6, 5), INPUT, None),
        PlanError,
        "B is the wider one. Name the wider model as A",
    ),
    "B is deeper": (
        lambda: (Stack(2), Stack(3), STREAM, None),
        PlanError,
        "blocks: B has 3 layers and A 2: B is the deeper",
    ),
    "head sizes": (
        lambda: (Stack(1, 3, 4), Stack(1, 3, 2), STREAM, None),
        PlanError,
        "2 units inside each of heads.0 in B and 4 in A",
    ),
    "a norm": (
        lambda: (Wide(9), Wide(6), INPUT, None),
        VerificationError,
        "as a norm over a narrower stream does",
    ),
    "an output": (
        lambda: (
            nn.Sequential(*Mlp().layers),
            nn.Sequential(*Mlp().layers[:4], nn.Linear(7, 2)),
            INPUT,
            None,
        ),
        PlanError,
        "4.weight[0]: 2 in B and 3 in A, and its units may not move freely",
    ),
    "units that own more": (
        lambda: (Mlp(9, 14), gated(nn.GLU()), INPUT, None),
        PlanError,
        "their operations differ",
    ),
    "other operations": (
        lambda: (Mlp(9, 14), gated(nn.Softmax(-1), 14), INPUT, None),
        VerificationError,
        "A has other operations than B",
    ),
    "other tensors": (
        lambda: (Mlp(), nn.Sequential(nn.Linear(5, 3)), INPUT, None),
        PlanError,
        "nothing like it",
    ),
    "no such layers": (
        lambda: (Stack(3), Stack(2), STREAM, {"layers": [0, 1]}),
        UsageError,
        "no such list of layers. There are: blocks",
    ),
    "layers that fall": (
        lambda: (Stack(3), Stack(2), STREAM, {"blocks": [1, 0]}),
        UsageError,
        "for each of B's 2, rising",
    ),
    "weight norm": (
        lambda: (normed(9), normed(6), INPUT, None),
        PlanError,
        "computed from parts (weight norm), and narrower in B: remove the parametrization first",
    ),
}


def normed(width: int) -> nn.Module:
    norm = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(5, width)), nn.Tanh(), nn.Linear(width, 3))


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(what: str) -> None:
    make, kind, words = REFUSED[what]
    a, b, inputs, layers = make()
    with pytest.raises(kind) as error:
        pg.fit(planned(a.eval(), inputs), a.eval(), b.eval(), inputs, layers)
    assert words in str(error.value)


def test_layers_are_paired_evenly_and_rising() -> None:
    for many in range(1, 13):
        for few in range(1, many + 1):
            found = by_position(many, few)
            assert len(found) == few and found[0] == 0 and (few == 1 or found[-1] == many - 1)
            assert all(x < y for x, y in pairwise(found))
    assert by_position(5, 5) == (0, 1, 2, 3, 4)
    names = ["a.0.w", "a.1.w", "a.2.w", "b.0.w", "b.2.w"]
    assert layers_of(names, ["a.0.w", "b.0.w"]).paired == {"a": (0,)}


@p.needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_cnn_a", "res8_firefox_seed403959"])
def test_narrower_copies_of_real_networks_come_back(name: str) -> None:
    model = p.load(name)
    small = copy.deepcopy(model)
    if name.startswith("mnist"):
        small.conv2, small.fc1, small.fc2 = nn.Conv2d(10, 14, 5), nn.Linear(14 * 16, 35), nn.Linear(35, 10)
    else:  # the units of conv1 and conv3; the stream stays as wide
        for i, width in ((1, 30), (3, 40)):
            small.add_module(f"conv{i}", nn.Conv2d(45, width, 3, padding=1, bias=False))
            small.add_module(f"bn{i}", nn.BatchNorm2d(width, affine=False))
            small.add_module(f"conv{i + 1}", nn.Conv2d(width, 45, 3, padding=1, bias=False))
    inputs, small = p.example(name), small.eval()
    plan = planned(model, inputs)
    state, secret = taken(plan, model, small, inputs, 1)
    small.load_state_dict(state)
    fitted = pg.fit(plan, model, small, inputs)
    spec = pg.infer(pg.trace(small, inputs))
    sizes = {fitted.groups[g.name]: g.size for g in spec.groups if not g.ancestors}
    found = pg.match(plan, (model.state_dict(), fitted), "weights")
    assert any(size < plan.spec.by_name[name].size for name, size in sizes.items())
    assert recovered(plan, found, secret, sizes)
