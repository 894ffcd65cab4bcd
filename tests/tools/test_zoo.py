"""The zoo: networks that draw random values are judged, and rows of other code are marked."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo_row
from networks.randomise import randomise
from oracles import bound
from torch import Tensor, nn
from zoo_models import Entry
from zoo_table import bounded, complete, is_stale, load, rules_digest, summary, write_folders, write_table

import permgraph as pg


class Sampler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.dropout(torch.tanh(self.one(x)), 0.5, True))  # type: ignore[no-any-return]


class Remembers(nn.Module):
    """Its outputs differ from call to call, and no op is random."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.calls = nn.Linear(3, 5), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.one(x) * self.calls  # type: ignore[no-any-return]


def judged(module: nn.Module) -> dict[str, Any]:
    entry = Entry("handmade", "it", lambda: (module, (torch.ones(1, 3),), {}))
    record: dict[str, Any] = {"collection": "handmade", "model": "it", "seconds": {}}
    try:
        for _ in zoo_row.stages(entry, record):
            pass
    finally:
        signal.setitimer(
            signal.ITIMER_PROF, 0
        )  # a network that is refused leaves its stage's limit armed, in this process too
    return record


def test_a_network_that_draws_random_values_is_judged_as_it_runs() -> None:
    record = judged(Sampler())
    assert record["status"] == "ok" and record["random"] == 1 and record["groups"] == 1


def test_a_network_that_changes_by_itself_is_not_called_unsound() -> None:
    try:
        judged(Remembers())
    except RuntimeError as error:
        assert "no random op explains it" in str(error)
    else:
        raise AssertionError("it was judged")


def test_a_row_of_other_code_is_stale(tmp_path: Path) -> None:
    rows = [
        {
            "collection": "handmade",
            "model": name,
            "status": "ok",
            "made": {"rules": rules, "date": "2026-01-01"},
        }
        for name, rules in (("new", rules_digest()), ("old", "0" * 16))
    ]
    path = tmp_path / "zoo.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = load(path)
    assert [is_stale(r) for r in records.values()] == [False, True]
    assert summary(records)["stale"] == 1
    write_table(records, tmp_path / "zoo.md")
    text = (tmp_path / "zoo.md").read_text()
    assert "| old † |" in text and "| new |" in text


def rows_of(known: dict[str, Any] | None, **changed: Any) -> tuple[dict[str, Any], list[str]]:
    entry = Entry("handmade", "it", lambda: (randomise(Sampler()), (torch.ones(1, 3),), {}))
    record: dict[str, Any] = {"collection": "handmade", "model": "it", "seconds": {}}
    try:
        stages = list(zoo_row.stages(entry, record, known=known and known | changed))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return record, stages


def test_checks_of_the_same_groups_hold_and_are_not_repeated() -> None:
    first, stages = rows_of(None)
    assert stages == ["build", "capture", "infer", "verify"] and first["status"] == "ok"
    again, stages = rows_of(first, error=1.5e-16)
    assert stages == ["build", "capture", "infer"]
    assert again["status"] == "ok" and again["error"] == 1.5e-16 and "verify" in again["seconds"]
    for other in ({"spec": "0"}, {"kind": "Other"}, {"params": 1}, {"status": "unsound"}, {"random": 0}):
        again, stages = rows_of(first, error=1.5e-16, **other)
        assert stages[-1] == "verify" and again["error"] != 1.5e-16, other
    _, stages = rows_of(first, folder={"status": "failed"})
    assert stages[-1] == "verify"


def transformers_entry() -> Entry:
    from networks.small import text

    def build() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        return *text("Bert")(), {}

    return Entry("transformers", "bert", build)


class Pipe:
    """Keeps what a worker would send."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


def worked(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    for module, name in ((resource, "setrlimit"), (signal, "signal"), (signal, "setitimer")):
        monkeypatch.setattr(module, name, lambda *_: None)  # limits of a process of its own
    pipe = Pipe()
    zoo_row.run(transformers_entry(), pipe, 1)  # type: ignore[arg-type]
    *stages, record = pipe.sent
    return record, stages


def test_a_network_of_transformers_is_saved_permuted_and_loaded_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, stages = worked(monkeypatch)
    assert stages == ["build", "capture", "infer", "verify", "folder", "bound"] and record["status"] == "ok"
    assert record["folder"]["status"] == "ok" and record["folder"]["stored"] == len(
        transformers_entry().build()[0].state_dict()
    )
    write_folders({("transformers", "bert"): record}, tmp_path / "folders.md")
    text = (tmp_path / "folders.md").read_text()
    assert "Of 1 networks 1 were tried: 1 ok." in text and "| bert | BertModel |" in text


def test_a_folder_that_comes_back_wrong_is_told_and_does_not_hide_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import zoo_models.folder

    def forgets(plan: Any, perms: Any, source: Path, out: Path) -> None:
        shutil.copytree(source, out)

    monkeypatch.setattr(zoo_models.folder, "apply_checkpoint", forgets)
    record, _ = worked(monkeypatch)
    assert record["status"] == "ok" and record["folder"]["status"] == "failed"
    assert "tensors come back wrong" in record["folder"]["reason"]


def test_an_exchange_that_inference_missed_is_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bound does not know of one of two groups, it finds by brute force."""
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    whole = judged(net)
    assert whole["bound"] == {"beyond": 0} and complete(whole) and bounded(whole)
    known = bound.generators_of
    monkeypatch.setattr(
        bound,
        "generators_of",
        lambda spec: [g for g in known(spec) if all(step.tensor != "0.weight" for step in g)],
    )
    less = judged(net)
    assert less["bound"]["beyond"] and not complete(less) and less["status"] == "ok"
    assert {axis.split("[")[0] for axes in less["bound"]["axes"] for axis in axes} <= {
        "0.weight",
        "0.bias",
        "2.weight",
    }


def test_tensors_that_are_one_are_moved_as_one_when_exchanges_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    net[4].weight = nn.Parameter(net[0].weight.detach().T)
    twice = nn.Sequential(net, nn.Tanh(), nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 2))
    twice[2].weight = net[0].weight
    assert judged(twice)["bound"] == {"beyond": 0}
    monkeypatch.setattr(bound, "generators_of", lambda spec: [])
    assert judged(twice)["bound"]["beyond"]


def test_where_an_output_is_infinite_no_exchange_is_said_to_have_been_tried() -> None:
    class Masked(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x), torch.full((1, 1), -torch.inf)], 1)

    with pytest.raises(ArithmeticError, match="infinite"):
        judged(Masked(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))


@pytest.mark.parametrize("name", ["Bert", "Llama"])
def test_every_group_of_a_transformer_is_found_on_numbers_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the bound could not fail: sizes that coincide, casts to float32 and biases of 0 hid these groups from it."""
    from networks.small import text

    net, inputs = text(name)()
    spec = pg.infer(pg.trace(net, inputs))
    monkeypatch.setattr(bound, "generators_of", lambda spec: [])
    found = bound.above(randomise(net), inputs, spec, pairs=1)
    axes = {(tensor, axis) for move in found for tensor, axis, _ in move}
    assert spec.groups
    for group in spec.groups:
        assert axes & {(place.tensor, place.axis) for place in group.places}, group.name


def test_a_network_is_judged_on_other_weights_than_it_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange without its bias of 0 keeps the function only until the bias is trained."""
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    nn.init.zeros_(net[0].bias)
    monkeypatch.setattr(bound, "generators_of", lambda spec: [])
    assert judged(net)["bound"]["axes"][0] == ["0.bias[0]", "0.weight[0]", "2.weight[1]"]
