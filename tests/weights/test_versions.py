"""What torch keeps beside the tensors of a state dict is there in every new one: modules read it when they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import permgraph as pg

State = dict[str, Tensor]


class Scaled(nn.Linear):
    """Its weights were half as large before version 2, as torchvision's MNASNet had other widths before its own. It has an
    extra state that is no tensor."""

    _version = 2

    def get_extra_state(self) -> dict[str, int]:
        return {"width": self.out_features}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"width": self.out_features}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        if local_metadata.get("version") != 2:
            state_dict[prefix + "weight"] = 2 * state_dict[prefix + "weight"]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Scaled(3, 5), nn.ReLU(), Scaled(5, 4), nn.ReLU(), Scaled(4, 2)).double().eval()


EXAMPLE = (torch.linspace(-1, 1, 6).reshape(2, 3).double(),)
SPEC = pg.infer(pg.trace(network(), EXAMPLE))
PLAN = pg.plan(SPEC)
PERMS = pg.random_permutations(PLAN, 1)


def multiplied(state: State) -> State:
    network_, example = network(), EXAMPLE
    factors = pg.find_factors(pg.trace(network_, example), SPEC)
    return pg.multiply(SPEC, pg.random_factors(SPEC, factors), state)


def fitted(state: State) -> State:
    done = pg.fit(PLAN, network(), network(), EXAMPLE)
    assert done.state._metadata == state._metadata  # type: ignore[attr-defined]
    same = pg.match(PLAN, (state, done), "weights")
    return pg.merge_fitted(PLAN, same, state, done, (0.5, 0.5))


MADE: dict[str, Callable[[State], State]] = {
    "apply": lambda state: pg.apply(PLAN, PERMS, state),
    "unapply": lambda state: pg.unapply(PLAN, PERMS, state),
    "merge": lambda state: pg.merge(state, dict(state), (0.5, 0.5)),
    "merge_many": lambda state: pg.merge_many([state, dict(state), dict(state)]),
    "multiply": multiplied,
    "merge_fitted": fitted,
}


@pytest.mark.parametrize("verb", MADE)
def test_a_module_reads_its_version_and_the_function_stays(verb: str) -> None:
    net, other = network(), network()
    given = net.state_dict()
    made = MADE[verb](given)
    assert made._metadata == given._metadata  # type: ignore[attr-defined]
    assert list(made) == list(given)
    other.load_state_dict(made, strict=True)
    torch.testing.assert_close(other(*EXAMPLE), net(*EXAMPLE), rtol=1e-6, atol=1e-9)


def test_verbs_that_only_read_leave_extra_states_out() -> None:
    state = network().state_dict()
    perms = pg.match(PLAN, (state, pg.apply(PLAN, PERMS, state)), "weights")
    back = pg.apply(PLAN, perms, pg.apply(PLAN, PERMS, state))
    assert all(torch.equal(back[k], v) for k, v in state.items() if isinstance(v, Tensor))
    assert str(pg.compare(PLAN, state, dict(state)))
    assert pg.verify(network(), EXAMPLE, SPEC) <= 1e-9


def test_a_state_dict_without_versions_gets_none() -> None:
    made = pg.apply(PLAN, PERMS, dict(network().state_dict()))
    assert type(made) is dict


def test_the_versions_of_the_new_state_are_its_own() -> None:
    given = network().state_dict()
    made = pg.apply(PLAN, PERMS, given)
    made._metadata["0"]["version"] = 1  # type: ignore[attr-defined]
    assert given._metadata["0"]["version"] == 2  # type: ignore[attr-defined]


def test_units_are_removed_from_a_state_with_versions() -> None:
    given = network().state_dict()
    made = pg.remove(SPEC, {SPEC.groups[0].name: [0]}, given)
    assert made["0._extra_state"] == {"width": 5}
    assert made._metadata == given._metadata  # type: ignore[attr-defined]
