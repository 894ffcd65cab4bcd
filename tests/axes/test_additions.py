"""What is added at places that the network computes moves with the index that says where; what is written does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks.randomise import noise, randomise
from oracles.law import law
from torch import Tensor, nn

import permgraph as pg

pytestmark = [
    pytest.mark.filterwarnings("ignore:index_reduce.. is in beta"),
    pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter"),
]
INPUTS = (noise(7, 3),)
Put = Callable[[Tensor, Tensor, Tensor], Tensor]


def columns(index: Tensor) -> Tensor:
    return index.reshape(-1, 1).expand(-1, 3)


ADDED: dict[str, Put] = {
    "index_add": lambda z, i, y: z.index_add(0, i.reshape(-1), y.reshape(-1, 3)),
    "index_reduce": lambda z, i, y: z.index_reduce(0, i.reshape(-1), y.reshape(-1, 3), "amax"),
    "scatter_add": lambda z, i, y: z.scatter_add(0, columns(i), y.reshape(-1, 3)),
    "scatter_reduce": lambda z, i, y: z.scatter_reduce(0, columns(i), y.reshape(-1, 3), "mean"),
    "scatter reduce=add": lambda z, i, y: z.scatter(0, columns(i), y.reshape(-1, 3), reduce="add"),
    "index_put": lambda z, i, y: z.index_put((i,), y, accumulate=True),
    "two indices": lambda z, i, y: (
        z[:, None].repeat(1, 4, 1).index_put((i, i % 4), y, accumulate=True).sum(1)
    ),
}
WRITTEN: dict[str, Put] = {
    "index_copy": lambda z, i, y: z.index_copy(0, i.reshape(-1), y.reshape(-1, 3)),
    "scatter": lambda z, i, y: z.scatter(0, columns(i), y.reshape(-1, 3)),
    "index_put": lambda z, i, y: z.index_put((i,), y),
}


class ExpertChoice(nn.Module):
    """Each of four experts takes the two tokens that it likes best (Zhou et al., 2022, arXiv:2202.09368)."""

    def __init__(self, put: Put) -> None:
        super().__init__()
        self.put, self.router = put, nn.Linear(3, 4)
        self.up, self.down = nn.Parameter(torch.randn(4, 3, 5)), nn.Parameter(torch.randn(4, 5, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight, index = self.router(x).softmax(-1).t().topk(2, -1)  # (experts, capacity)
        hidden = torch.einsum("ecd,edh->ech", x[index], self.up).relu()
        result = torch.einsum("ech,ehd->ecd", hidden, self.down) * weight[..., None]
        return self.put(torch.zeros_like(x), index, result)


class Given(nn.Module):
    """Rows of a weight added where an input says, a table, or a table shifted by what is computed."""

    def __init__(self, put: Put, where: str) -> None:
        super().__init__()
        self.put, self.where = put, where
        self.rows = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("table", torch.tensor([0, 2, 1, 3]))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        given = {"input": index, "table": self.table, "shifted": (self.table + (x.sum() > 0).long()) % 5}
        return self.put(torch.zeros_like(x), given[self.where], self.rows)


def inferred(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[pg.PermSpec, float]:
    """The spec, and the largest change that some elements of its group make."""
    module = randomise(module)
    spec = pg.infer(pg.trace(module, inputs))
    return spec, max(
        (law(module, inputs, spec, seed)[0] for seed in range(4)), default=0
    ) if spec.groups else 0


@pytest.mark.parametrize("name", ADDED)
def test_experts_that_choose_their_tokens_may_change_places(name: str) -> None:
    spec, change = inferred(ExpertChoice(ADDED[name]), INPUTS)
    assert {(group.size, group.copies) for group in spec.groups} == {(4, 1), (5, 4)}
    assert change < 1e-12


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_last_stays(name: str) -> None:
    spec, change = inferred(ExpertChoice(WRITTEN[name]), INPUTS)
    assert {(group.size, group.copies) for group in spec.groups} == {(5, 1)}
    assert len(spec.groups) == 4 and change < 1e-12


@pytest.mark.parametrize("where", ["input", "table", "shifted"])
@pytest.mark.parametrize("name", [name for name in ADDED if name != "two indices"])
def test_rows_stay_where_the_index_has_an_order_of_its_own(name: str, where: str) -> None:
    module = Given(ADDED[name], where)
    spec, _ = inferred(module, (*INPUTS, torch.tensor([0, 2, 1, 3])))
    assert not spec.groups


def test_of_a_source_that_is_longer_than_the_index_the_rest_is_not_read() -> None:
    class Longer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.rows = nn.Linear(3, 3), nn.Parameter(torch.randn(5, 3))

        def forward(self, x: Tensor) -> Tensor:
            index = (self.router(x)[0] > 0).long()
            return torch.zeros(4, 3, dtype=x.dtype).scatter_add(0, columns(index), self.rows)

    spec, change = inferred(Longer(), INPUTS)
    assert [group.size for group in spec.groups] == [3]
    assert change < 1e-12
