"""What a notebook shows: short, an HTML table, safe against names from a model; and values that are used like a dict."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import permgraph as pg
from permgraph.errors import SelectionError, UsageError
from permgraph.evaluation.results import Evaluation, Prediction, Result
from permgraph.evaluation.tables import table_of_clips

HOSTILE = '<img src=x onerror="alert(1)">'


class Net(nn.Module):
    def __init__(self, name: str = "up") -> None:
        super().__init__()
        self.add_module(name, nn.Linear(4, 6))
        self.add_module("down", nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up, down = self.children()
        return down(torch.relu(up(x)))


def values(name: str, label: str) -> dict[str, Any]:
    """One of each kind of value, of a network with this module, called so."""
    torch.manual_seed(0)
    model, other, inputs = Net(name), Net(name), (torch.randn(8, 4),)
    trace = pg.trace(model, inputs, name=label)
    spec = pg.infer(trace)
    plan = pg.plan(spec)
    moments = pg.calibrate(plan, model, other, [torch.randn(64, 4)])
    perms = pg.match(plan, moments)
    return {
        "trace": trace,
        "spec": spec,
        "plan": plan,
        "moments": moments,
        "perms": perms,
        "report": pg.report(perms),
        "check": pg.verify(model, inputs, spec),
        "evaluation": evaluation(label),
        "scores": pg.score(table_of_clips(evaluation(label).predictions), [f"{label}1"]),
    }


def evaluation(name: str) -> Evaluation:
    """Two encoders and a baseline on 500 clips."""
    results, predictions = [], []
    for k, encoder in enumerate(("log-mel", f"{name}1", f"{name}2")):
        results.append(Result("ks", name, encoder, "ridge", "accuracy", 0.5, 0.4, 0.6, "clips", 500, 0.1))
        for i in range(500):
            where = ("ks", name, encoder, "0", "0", "ridge", "0", f"{name}{i}", "", "x", "y")
            predictions.append(Prediction(*where, int(i % 7 > 3 - k)))
    return Evaluation(tuple(results), tuple(predictions), notes=(name,))


@pytest.fixture(scope="module")
def net() -> dict[str, Any]:
    return values("up", "net")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs
        self.seen.add(tag)
        self.cells += tag == "td"


KINDS = ("trace", "spec", "plan", "moments", "perms", "report", "check", "evaluation", "scores")


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_shows_a_short_line_and_a_table(net: dict[str, Any], kind: str) -> None:
    line, page = repr(net[kind]), net[kind]._repr_html_()
    assert len(line) < 400 and "\n" not in line
    tags = Tags()
    tags.feed(page)
    assert tags.seen <= {"div", "p", "b", "table", "tr", "th", "td"} and tags.cells > 0
    assert len(page) < 30_000


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [HOSTILE, "a\x1b[31mb", "\u202eb", "x" * 5000])
def test_hostile_names_are_inert(kind: str, name: str) -> None:
    found = values(name, name)[kind]
    tags = Tags()
    tags.feed(found._repr_html_())
    assert tags.seen <= {"div", "p", "b", "table", "tr", "th", "td"}
    shown = repr(found) + found._repr_html_()
    assert "\x1b" not in shown and "\u202e" not in shown and "<img" not in found._repr_html_()
    assert len(shown) < 40_000


def test_sums_of_a_probe_are_a_short_line(net: dict[str, Any]) -> None:
    assert all(len(repr(probe)) < 200 for probe in net["moments"].probes.values())


def test_a_large_network_is_short_too() -> None:
    trace = pg.trace("hubert")
    spec = pg.infer(trace)
    plan = pg.plan(spec)
    for value in (trace, spec, plan, pg.random_permutations(plan)):
        assert len(repr(value)) < 400 and len(value._repr_html_()) < 30_000
    assert repr(plan).startswith("Plan('hubert', 'all': 55 of 55 elementary groups, 138 steps")
    assert "98 more" in plan._repr_html_()


def test_a_spec_is_asked_by_group_and_by_axis(net: dict[str, Any]) -> None:
    spec: pg.PermSpec = net["spec"]
    assert spec["ffn.0"] is spec.by_name["ffn.0"] and "ffn.0" in spec and 0 not in spec
    assert list(spec) == [group.name for group in spec.groups]
    for group in spec.groups:
        for place in group.places:
            assert group in spec.groups_of(str(place)) and group in spec.groups_of(place.tensor)
    assert spec.groups_of("up.weight[-2]") == spec.groups_of("up.weight[0]") == (spec["ffn.0"],)
    assert spec.groups_of("up.weight[1]") == ()
    with pytest.raises(SelectionError, match=r"fn\.0: net has no such group\. Did you mean ffn\.0"):
        spec["fn.0"]
    with pytest.raises(UsageError, match=r"no such tensor\. Did you mean up\.weight"):
        spec.groups_of("up.wieght[0]")
    with pytest.raises(UsageError, match="2 axes, 0 to 1"):
        spec.groups_of("up.weight[2]")


def test_permutations_are_used_like_a_dict_and_compared(net: dict[str, Any], tmp_path: Path) -> None:
    perms: pg.Permutations = net["perms"]
    assert dict(perms.items()).keys() == set(perms.keys()) == set(perms)
    assert "ffn.0" in perms and len(list(perms.values())) == len(perms)
    perms.save(tmp_path / "p.safetensors")
    again = pg.Permutations.load(tmp_path / "p.safetensors")
    assert again == perms and hash(again) == hash(perms) and perms != "perms"
    turned = pg.Permutations({name: array[::-1] for name, array in perms.items()}, perms.report, perms.origin)
    assert turned != perms and pg.Permutations(perms.arrays) != perms  # of another plan
    assert re.search(r"\d+ of 6 units move", repr(perms))


def test_moments_traces_specs_and_plans_are_compared(net: dict[str, Any], tmp_path: Path) -> None:
    same, other = values("up", "net"), values("over", "net")
    for kind in ("trace", "spec", "plan", "moments"):
        assert same[kind] == net[kind] and other[kind] != net[kind]
    net["moments"].save(tmp_path / "m.safetensors")
    assert pg.Moments.load(tmp_path / "m.safetensors") == net["moments"]
    assert net["moments"] + net["moments"] != net["moments"]


def test_a_report_is_what_the_command_prints(net: dict[str, Any], tmp_path: Path) -> None:
    net["perms"].save(tmp_path / "p.safetensors")
    found = pg.report(tmp_path / "p.safetensors")
    assert str(found) == str(net["report"]) and found.rows[0]["units"] == "6"
    assert pg.report(net["perms"], by_section=False).rows[0]["section"] == "ffn.0"
