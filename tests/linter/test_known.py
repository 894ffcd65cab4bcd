"""Every group that others wrote down by hand is found without being told: 100 % containment, exactly checked."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from permgraph.ir.spec import PermSpec
from permgraph.linter.claims import Claim
from permgraph.linter.containment import contain
from permgraph.linter.foreign import resolve
from permgraph.linter.notations import read_foreign
from tests.linter.networks import NETWORKS
from tests.linter.reference import KNOWN, spec_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEAVY = {"bert", "vit", "clip_l", "clip_g", "sd15_unet", "sd15_vae", "mobilenet_v2", "mnasnet0_5"}
HEAVY |= {"efficientnet_b0", "densenet121", "convnext_tiny", "wide_resnet50_2"}
FILES = sorted(path for path in KNOWN.glob("*.toml") if path.stem != "counts")
ABOUT: dict[str, dict[str, Any]] = {f.stem: tomllib.loads(f.read_text(encoding="utf-8")) for f in FILES}
COUNTS = tomllib.loads((KNOWN / "counts.toml").read_text(encoding="utf-8"))


def light_or_slow(name: str, network: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow] if network in HEAVY else [])


EVERY = [light_or_slow(name, about["network"]) for name, about in ABOUT.items()]
COUNTED = [light_or_slow(name, about["network"]) for name, about in ABOUT.items() if "groups" in about]


def known(name: str) -> tuple[PermSpec, list[Claim]]:
    """Our groups on the network of a specification, and its claims; all of them fit the network."""
    about = ABOUT[name]
    spec = spec_of(about["network"], about.get("free_output", False))
    resolved = [resolve(group, spec) for group in read_foreign(KNOWN / f"{name}.toml", spec.tensors).groups]
    assert [finding for _, findings in resolved for finding in findings] == []
    return spec, [claim for claim, _ in resolved]


def orders(claims: list[Claim]) -> float:
    return sum(claim.copies * math.lgamma(claim.size + 1) for claim in claims) / math.log(10)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", EVERY)
def test_every_known_group_is_contained(name: str) -> None:
    spec, claims = known(name)
    verdicts = contain(spec, claims)
    assert verdicts and [v for v in verdicts if not v.contained] == []
    assert spec.unknown_ops == () and spec.frozen == 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", COUNTED)
def test_as_many_groups_as_the_source_counts(name: str) -> None:
    """`groups` counts what the source counts: groups without nested ones, or all copies where `elementary`."""
    about = ABOUT[name]
    _, claims = known(name)
    if about.get("elementary"):
        assert sum(claim.copies for claim in claims) == about["groups"]
    else:
        assert sum("/" not in claim.name for claim in claims) == about["groups"]


@pytest.mark.parametrize("name", EVERY)
def test_we_find_the_same_or_more(name: str) -> None:
    """Where the source is complete, ours is the same group; elsewhere it is larger, and of it nothing is lost."""
    spec, claims = known(name)
    theirs = orders(claims)
    if ABOUT[name].get("exact"):
        assert theirs == pytest.approx(spec.log10_order, rel=1e-9)
    else:
        assert theirs < spec.log10_order - 1


@pytest.mark.parametrize("name", EVERY)
def test_a_specification_names_its_source(name: str) -> None:
    assert ABOUT[name]["source"] and ABOUT[name]["network"] in NETWORKS


def counted(network: str) -> int:
    """Outermost groups: what a tool without nesting would count."""
    return sum(not group.ancestors for group in spec_of(network).groups)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("network", "groups"),
    [
        pytest.param(network, groups, marks=[pytest.mark.slow] if network in HEAVY else [])
        for table in COUNTS.values()
        for network, groups in table.items()
        if network in NETWORKS
    ],
)
def test_the_counts_of_the_pruners(network: str, groups: int) -> None:
    assert counted(network) == groups


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "groups"),
    [(n, g) for table in COUNTS.values() for n, g in table.items() if n != "source"],
)
def test_the_counts_of_the_pruners_on_torchvision(network: str, groups: int) -> None:
    import torch

    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    from permgraph.frontend.capture import capture
    from permgraph.symmetry.infer import infer

    options = {"aux_logits": False, "init_weights": False} if network in ("googlenet", "inception_v3") else {}
    size = 299 if network == "inception_v3" else 224
    with torch.device("meta"):
        module = getattr(models, network)(**options).eval()
        spec = infer(capture(module, (torch.zeros(1, 3, size, size),)))
    assert sum(not group.ancestors for group in spec.groups) == groups


def test_hubert_in_elementary_groups() -> None:
    """7 convolutions, 12 layers of (head order, 12 query-key, 12 value, feed-forward), and the residual with its output."""
    inner = spec_of("hubert")
    assert sum(group.copies for group in inner.groups) == 7 + 12 * (1 + 12 + 12 + 1) == 319
    free = spec_of("hubert", True)
    residual = {g.size: g.copies for g in free.groups if g.role.startswith("residual")}
    assert residual == {16: 1, 48: 16}
