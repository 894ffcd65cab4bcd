"""A selected group brings what lives within it, unless a word says otherwise or it is excluded."""

from __future__ import annotations

import pytest
from networks.traced import spec

from permgraph.planning.selection import select


@pytest.mark.parametrize("term", ["residual", "residual.0", "residual.*"])
def test_blocks_of_the_residual_bring_the_channels_inside_them(term: str) -> None:
    found = spec("hubert", free_output=True)
    assert {"residual.0", "residual.0/inner"} <= set(select(found, term).names)
    assert "residual.0/inner" not in select(found, term, "residual.0/inner").names


@pytest.mark.parametrize("term", ["heads", "heads.1", "heads.0-1"])
def test_heads_bring_their_value_channels_and_not_queries_and_keys(term: str) -> None:
    names = select(spec("hubert"), term).names
    assert "heads.1/v" in names
    assert not any(name.endswith("/qk") for name in names)


def test_an_inner_group_does_not_bring_its_parent() -> None:
    assert select(spec("hubert"), "heads.1/v").names == ("heads.1/v",)
