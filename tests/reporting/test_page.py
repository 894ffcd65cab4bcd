"""The page as text: what it holds, that nothing in it runs but its script, and the JSON for Model Explorer."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from permgraph.errors import PlanError, UsageError
from permgraph.ir.moments import Layout, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.sums import Sums
from permgraph.reporting.explorer.export import Subject, export
from permgraph.reporting.explorer.model import model
from permgraph.reporting.explorer.model_explorer import collection
from permgraph.reporting.explorer.page import page
from permgraph.reporting.explorer.results import EXACT, pooled, results
from tests.reporting import made
from tests.reporting.test_picture import HOSTILE


def network(layers: int = 3, **names: str) -> dict[str, Any]:
    trace = made.trace(layers, **names)
    prefix = {"prefix": names["prefix"]} if "prefix" in names else {}
    return model(trace, made.spec(trace, layers, **prefix))


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_every_place_of_every_group_is_at_a_box() -> None:
    trace = made.trace()
    spec = made.spec(trace)
    data = model(trace, spec)
    at: dict[int, set[tuple[str, int]]] = {}
    for box in data["boxes"]:
        for tensor, axis, layout in box.get("places", ()):
            for group in data["layouts"][layout]:
                at.setdefault(group, set()).add((tensor, axis))
    for i, group in enumerate(spec.groups):
        assert at[i] == {(place.tensor, place.axis) for place in group.places}
        assert {(t, a) for t, a, _ in data["groups"][i]["places"]} == at[i]


def test_runs_are_equal_modules_and_hold_every_box_once() -> None:
    data = network(4)
    assert [run["title"] for run in data["runs"]] == ["conv.1-2", "layers.0-3"]
    for run in data["runs"]:
        boxes = [box for copy in run["copies"] for box in copy]
        assert len(boxes) == len(set(boxes)) and len({len(copy) for copy in run["copies"]}) == 1
        titles = [[data["boxes"][box]["title"] for box in copy] for copy in run["copies"]]
        assert len(titles[0]) == 1 or all(other == titles[0] for other in titles)


def test_the_policy_allows_the_script_and_the_style_and_nothing_else() -> None:
    text = page(network())
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html.unescape(policy[1])
    assert policy[1].startswith("default-src 'none'")
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text)


@pytest.mark.parametrize(
    "name", [*HOSTILE, "</script><script>alert(1)</script>", "<!--<script>", "${evil}$evil"]
)
def test_names_stay_data(name: str) -> None:
    text = page(network(1, prefix=name, model=name))
    text.encode()
    assert text.count("<script") == 2 + page(network(1)).count("<script") - 2
    data = data_of(text)
    if len(name) < 40 and name.isprintable():
        assert data["model"] == name
        assert any(name in box.get("module", "") for box in data["boxes"])
    assert all(ord(c) > 31 for box in data["boxes"] for c in box.get("module", ""))


def test_equal_networks_give_equal_pages() -> None:
    assert page(network()) == page(network())


def _matching(tmp_path: Path) -> tuple[Subject, Plan, Permutations]:
    trace = made.trace(2)
    plan = Plan(made.spec(trace, 2), ("cnn.0", "heads.0", "heads.0/v", "ffn.0"))
    perms = random_permutations(plan, 1)
    rows = {"cnn.0": {"role": "cnn", "units": 16, "moved": 87.5, "correlation": 0.5, "identity": 0.1}}
    perms = Permutations(perms.arrays, {"groups": rows}, plan.origin)
    perms.save(tmp_path / "perms.safetensors")
    return Subject(trace, plan.spec, plan, tmp_path / "perms.safetensors"), plan, perms


def test_results_of_a_matching_are_in_the_page(tmp_path: Path) -> None:
    subject, plan, _ = _matching(tmp_path)
    (path,) = export(subject, tmp_path / "a.html")
    found = data_of(path.read_text(encoding="utf-8"))["results"]
    assert found["groups"]["cnn.0"]["correlation"] == 0.5
    assert set(found["maps"]) == set(plan.selected)
    (map_,) = found["maps"]["cnn.0"].values()
    cells = np.frombuffer(base64.b64decode(map_["values"]), np.uint8).reshape(map_["size"], -1)
    assert (cells.sum(0) == 255).all() and (cells.sum(1) == 255).all()


def test_heat_maps_of_correlation_are_before_and_after(tmp_path: Path) -> None:
    """B's units are A's in another order: after the permutation the map is a diagonal."""
    _, plan, perms = _matching(tmp_path)
    source = perms["cnn.0"]
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 16))
    b = np.empty_like(a)
    b[:, source] = a
    zero = np.zeros((1, 16))
    of_a, of_b = (Sums(len(x), zero, x.sum(0)[None], (x**2).sum(0)[None]) for x in (a, b))
    probe = ProbeMoments(Layout(("cnn.0",), (16,)), of_a, of_b, (a.T @ b)[None])
    found = results(plan, perms, Moments({"p": probe}, plan.origin))["maps"]["cnn.0"]
    before, after = (
        np.frombuffer(base64.b64decode(m["values"]), np.uint8).reshape(16, 16) for m in found.values()
    )
    assert (after.argmax(1) == np.arange(16)).all()
    assert (before.argmax(1) == source).all() and not (before.argmax(1) == np.arange(16)).all()


def test_a_heat_map_of_many_units_is_pooled() -> None:
    large = np.eye(4 * EXACT)
    assert len(pooled(large, np.max)) < EXACT
    assert (np.diag(pooled(large, np.max)) == 1).all()
    assert pooled(np.eye(EXACT), np.max).shape == (EXACT, EXACT)


def test_permutations_of_another_plan_are_refused(tmp_path: Path) -> None:
    subject, plan, _ = _matching(tmp_path)
    other = replace(subject, plan=replace(plan, selection="another"))
    with pytest.raises(PlanError, match="were made for the plan"):
        list(export(other, tmp_path / "a.html"))


def test_an_unknown_format_of_the_page_is_refused(tmp_path: Path) -> None:
    subject, _, _ = _matching(tmp_path)
    with pytest.raises(UsageError, match="--format pdf: use html or model-explorer"):
        list(export(subject, tmp_path / "a.pdf", "pdf"))


@pytest.mark.slow
def test_figures_are_written_and_equal_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    subject, _, _ = _matching(tmp_path)
    first = list(export(subject, tmp_path / "a.html", figures=tmp_path / "one"))[1:]
    second = list(export(subject, tmp_path / "a.html", figures=tmp_path / "two"))[1:]
    assert [p.name for p in first] == ["by_depth.svg", "by_depth.pdf", "orders.svg", "orders.pdf"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_model_explorer_gets_every_wire_of_a_group_as_an_overlay() -> None:
    trace = made.trace()
    spec = made.spec(trace)
    (graph,) = collection(trace, spec)["graphs"]
    (data,) = graph["tasksData"]["edgeOverlaysDataListLeftPane"]
    assert [overlay["name"] for overlay in data["overlays"]] == [group.name for group in spec.groups]
    wires = {(e["sourceNodeId"], n["id"]) for n in graph["nodes"] for e in n["incomingEdges"]}
    for overlay in data["overlays"]:
        edges = {(e["sourceNodeId"], e["targetNodeId"]) for e in overlay["edges"]}
        assert edges and edges <= wires


def test_model_explorer_reads_it() -> None:
    """Every field is one of Model Explorer's own classes, and of its type."""
    pytest.importorskip("model_explorer.graph_builder", reason="ai-edge-model-explorer is not installed")
    from model_explorer.graph_builder import GraphCollection

    trace = made.trace()
    found = collection(trace, made.spec(trace))
    _fits(found, GraphCollection)
    with pytest.raises(AssertionError):
        _fits({**found, "graf": []}, GraphCollection)


def _fits(value: Any, kind: Any) -> None:
    if is_dataclass(kind):
        known = get_type_hints(kind)
        assert set(value) <= set(known), (kind, set(value) - set(known))
        required = {f.name for f in fields(kind) if str(f.type).find("None") < 0 and _bare(f)}
        assert required <= set(value), (kind, required - set(value))
        for key, inside in value.items():
            _fits(inside, known[key])
    elif get_origin(kind) is list:
        for inside in value:
            _fits(inside, get_args(kind)[0])
    elif get_args(kind) and get_origin(kind) is not dict:
        options = [a for a in get_args(kind) if a is not type(None)]
        if len(options) == 1 and not isinstance(options[0], str):
            _fits(value, options[0])
    elif kind in (str, int, float):
        assert isinstance(value, kind), (value, kind)


def _bare(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is MISSING and field.default_factory is MISSING
