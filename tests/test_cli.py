"""The command line: what is typed as in the readme works; every mistake gets one message and an exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer
from safetensors.numpy import load_file, save_file
from transformers import HubertConfig, HubertModel
from typer.core import TyperGroup

from permgraph import Permutations, Plan, Trace, random_permutations
from permgraph.axes.rules import RULES
from permgraph.cli import main

SMALL = HubertConfig(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    conv_dim=(32,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
FACTORY = """
import torch
from torch import nn

class Distances(nn.Module):  # as if torch.cdist had no rule
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(5, 8), nn.Linear(6, 3)
        self.centres = nn.Parameter(torch.randn(6, 8))
    def forward(self, x):
        return self.down(torch.cdist(self.up(x), self.centres))

class Hostile(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("\\x1b[31mred", nn.Linear(5, 8))
        self.add_module("</title><script>", nn.Linear(8, 3))
    def forward(self, x):
        first, last = self.children()
        return last(torch.relu(first(x)))

def distances(): return Distances(), (torch.randn(4, 5),)
def hostile(): return Hostile(), (torch.randn(4, 5),)
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


def run(*args: object) -> Said:
    """`permgraph args`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["permgraph", *map(str, args)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            main()
    finally:
        sys.argv = before
    return Said(int(end.value.code or 0), out.getvalue(), err.getvalue())


def shell(command: str, **env: str) -> Said:
    """A line of bash in the current folder, with this environment's permgraph."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PATH": path, "PYTHONUTF8": "1", **env},
        timeout=120,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the readme's commands were typed, for a small HuBERT."""
    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        torch.manual_seed(0)
        save_noisy(HubertModel(SMALL), Path("small"))
        (folder / "net.py").write_text(FACTORY, encoding="utf-8")
        assert run("trace", "small").code == 0
        assert run("plan", "--groups", "cnn,heads,ffn2").code == 0
        random_permutations(Plan.load("plan.json"), seed=1).save("perms.safetensors")
        assert run("trace", "net.py:distances", "-o", "other.json").code == 0
        assert run("plan", "hubert", "-o", "hubert.plan.json", "-g", "ffn").code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def _there(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in that folder; nothing but the results of the fixture may be left behind."""
    monkeypatch.chdir(made)
    yield
    left = [p for p in made.iterdir() if ".partial-" in p.name]
    assert not left


def save_noisy(model: HubertModel, folder: Path) -> None:
    """Every tensor away from ones and zeros, or a wrong plan could pass."""
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.02 * torch.randn(tensor.shape))
    model.save_pretrained(folder)


# -- what is typed as in the readme ----------------------------------------------------------------------


def test_the_defaults_work_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    traced = run("trace", "hubert")
    assert traced.code == 0
    assert "Next: permgraph plan" in traced.err
    rows = [line.split()[0] for line in traced.out.splitlines() if line.startswith(("cnn", "heads", "ffn"))]
    assert rows == ["cnn.0-6", "heads.0-11", "ffn.0-11"]
    planned = run("plan", "--groups", "cnn,heads,ffn2")
    assert planned.code == 0
    roles = [g.role for g in Plan.load("plan.json").groups]
    assert {r: roles.count(r) for r in roles} == {"cnn": 7, "heads": 12, "heads/v": 12, "ffn": 12}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["permgraph.trace.json", "plan.json"]
    assert "Warning" not in traced.err + planned.err


def test_hubert_base_at_full_size_keeps_its_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """94 M random weights: plan, random permutation, apply, load back with transformers, same output."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = HubertModel(HubertConfig()).eval()
    assert sum(p.numel() for p in model.parameters()) == 94_371_712
    save_noisy(model, Path("base"))
    assert run("plan", "base", "--groups", "cnn,heads,ffn2").code == 0
    random_permutations(Plan.load("plan.json"), seed=3).save("perms.safetensors")
    applied = run("apply", "plan.json", "perms.safetensors", "base", "-o", "permuted")
    assert applied.code == 0, applied.err
    other = HubertModel.from_pretrained("permuted").eval()
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, other.get_parameter(n))]
    assert len(moved) == len({s.tensor for s in Plan.load("plan.json").steps})
    sound = torch.randn(1, 8000)
    with torch.no_grad():
        for dtype, limit in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
            a, b = (m.to(dtype)(sound.to(dtype)).last_hidden_state for m in (model, other))
            assert float((a - b).abs().max() / a.abs().max()) < limit


def test_verify_tells_a_symmetry_from_a_mode_that_is_none() -> None:
    kept = run("verify", "small", "--plan", "plan.json", "--json")
    assert kept.code == 0
    assert json.loads(kept.out)["change"] < 1e-9
    assert json.loads(kept.out)["weights"] == "loaded"
    run("plan", "-g", "ffn", "--mode", "one-sided", "--no-measure", "-o", "one-sided.json")
    broken = run("verify", "small", "--plan", "one-sided.json")
    assert broken.code == 4
    assert "THE FUNCTION IS NOT KEPT (mode one-sided" in broken.out


@pytest.mark.parametrize(
    "args",
    [f"{words} -o again.json --force" for words in ("trace small", "plan -g ffn", "plan small -g none")],
)
def test_json_is_all_there_is_on_standard_output(args: str) -> None:
    said = run(*args.split(), "--json")
    assert said.code == 0
    assert json.loads(said.out)["permgraph"] in ("spec", "plan")


def test_why_reads_a_trace_file() -> None:
    said = run("why", "permgraph.trace.json", "encoder.layers.0.feed_forward.output_dense.weight[1]")
    assert said.code == 0
    assert "un-permute by ffn.0 96" in " ".join(said.out.split())
    assert "aten." in said.out


# -- mistakes --------------------------------------------------------------------------------------------


def test_39_what_is_selected_twice_is_said_and_taken_once() -> None:
    said = run("plan", "-g", "ffn,ffn.0", "-o", "twice.json")
    assert said.code == 0
    assert "Note: 'ffn.0' is selected already." in said.err
    assert Plan.load("twice.json").selected == ("ffn.0", "ffn.1")


def _rewritten(**changes: Any) -> str:
    return json.dumps({**json.loads(Path("plan.json").read_text(encoding="utf-8")), **changes})


def _shortened(text: str) -> str:
    data = json.loads(text)
    del data["spec"]["places"][3]
    return json.dumps(data)


BROKEN = {
    "truncated": (lambda text: text[: len(text) // 2], "not a permgraph plan file"),
    "empty": (lambda text: "", "not a permgraph plan file"),
    "binary": (lambda text: "\x80\x81", "plan file"),
    "43 key twice": (
        lambda text: text.replace('"mode":', '"mode":"exact","mode":', 1),
        "key 'mode' appears twice",
    ),
    "43 NaN": (lambda text: text.replace('"change":null', '"change":NaN'), "NaN is not allowed"),
    "43 deep": (lambda text: "[" * 100_000, "nested too deeply"),
    "44 newer": (lambda text: _rewritten(format=99), "plan format 99 needs a newer permgraph"),
    "44 older": (lambda text: _rewritten(format=1), "plan format 1 is of an older permgraph: make it again"),
    "41 a place left out": (lambda text: _shortened(text), "changed after permgraph wrote it"),
    "41 another group": (lambda text: _rewritten(selection="ffn"), "changed after permgraph wrote it"),
    "41 a key missing": (lambda text: _rewritten(spec={}), "broken.json: spec: field 'model' is missing"),
    "41 a key too many": (lambda text: _rewritten(steps=[]), 'broken.json: unknown field "steps"'),
}


@pytest.mark.parametrize("change, message", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plan_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    plan = tmp_path / "broken.json"
    plan.write_text(change(Path("plan.json").read_text(encoding="utf-8")), encoding="utf-8")
    said = run("apply", plan, "perms.safetensors", "small", "-o", tmp_path / "out")
    assert (said.code, message in said.err) == (3, True), said.err
    assert str(plan) in said.err
    assert not (tmp_path / "out").exists()


def _twice(a: Any) -> Any:
    a[..., 0] = a[..., 1]
    return a


INDICES = {
    "twice": ("ffn.0", _twice, "every index must appear exactly once"),
    "negative": ("ffn.0", lambda a: a - 1, "every index must appear exactly once"),
    "out of range": ("ffn.0", lambda a: a + 1, "every index must appear exactly once"),
    "floats": ("ffn.0", lambda a: a.astype(np.float32), "'ffn.0' is not an array of integers of 64 bits"),
    "short": ("ffn.0", lambda a: a[:-1], "the group needs (96,)"),
    "42 one order for all heads": ("heads.0/v", lambda a: a[0], "the group needs (4, 12)"),
    "42 flat": ("heads.0/v", lambda a: a.reshape(-1), "the group needs (4, 12)"),
}


@pytest.mark.parametrize("group, change, message", INDICES.values(), ids=INDICES.keys())
def test_41_42_what_is_no_permutation_is_refused(
    group: str, change: Any, message: str, tmp_path: Path
) -> None:
    perms = Permutations.load("perms.safetensors")
    arrays = {**perms.arrays, group: np.ascontiguousarray(change(perms[group].copy()))}
    replace(perms, arrays=arrays).save(tmp_path / "perms.safetensors")
    said = run("apply", "plan.json", tmp_path / "perms.safetensors", "small", "-o", tmp_path / "out")
    assert said.code == 3
    assert repr(group) in said.err
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_45_46_applied_twice_or_in_part_is_refused(tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert run("apply", "plan.json", "perms.safetensors", "small", "-o", first).code == 0
    again = run("apply", "plan.json", "perms.safetensors", first, "-o", tmp_path / "again")
    assert (again.code, "was already applied to it" in again.err) == (3, True)
    assert not (tmp_path / "again").exists()
    weights = load_file("small/model.safetensors")
    del weights["encoder.layers.1.feed_forward.output_dense.weight"]
    save_file(weights, tmp_path / "part.safetensors")
    part = run(
        "apply",
        "plan.json",
        "perms.safetensors",
        tmp_path / "part.safetensors",
        "-o",
        tmp_path / "x.safetensors",
    )
    assert part.code == 3
    assert "encoder.layers.1.feed_forward.output_dense.weight" in part.err
    assert not (tmp_path / "x.safetensors").exists()


def test_28_an_op_without_a_rule_pins_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "cdist", raising=False)
    said = run("trace", "net.py:distances", "-o", "other.json", "--force")
    assert said.code == 0
    assert "aten.cdist" in said.out
    assert "net.py:" in said.out
    strict = run("trace", "net.py:distances", "-o", "other.json", "--strict", "--force")
    assert strict.code == 3
    assert "--strict: 1 calls of ops without a rule, the first aten.cdist.default at cdist" in strict.err


def test_79_without_a_layout_the_text_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "permgraph.reporting.drawing.graphviz_layout._CODE", "raise SystemExit('no Graphviz here')"
    )
    said = run("draw", "plan.json", "-o", tmp_path / "picture.svg")
    assert said.code == 3
    assert "no Graphviz here" in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["picture.dot"]


def test_a_plan_alone_in_a_folder_asks_for_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Path("plan.json").resolve()
    monkeypatch.chdir(tmp_path)
    for verb in ("draw", "view"):
        said = run(verb, plan)
        assert said.code == 2
        assert f"Give both: TRACE --plan {plan}" in said.err


def test_the_trace_of_a_plan_may_be_named_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, trace = Path("plan.json").resolve(), Path("permgraph.trace.json").resolve()
    monkeypatch.chdir(tmp_path)
    assert run("view", plan, "--trace", trace, "-o", "one.html").code == 0
    assert run("view", trace, "--plan", plan, "-o", "two.html").code == 0
    assert Path("one.html").read_bytes() == Path("two.html").read_bytes()
    said = run("view", trace, "--trace", trace, "-o", "three.html")
    assert said.code == 2 and "is what is shown, and no plan" in said.err


def test_80_hostile_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    trace = tmp_path / "t.json"
    traced = run("trace", "net.py:hostile", "-o", trace)
    assert traced.code == 0
    planned = run("plan", trace, "-o", tmp_path / "p.json")
    why = run("why", trace, "\x1b[31mred.weight[0]")
    typed = run("plan", trace, "-g", "\x1b[31mffn", "--force")
    assert typed.code == 2
    for said in (traced, planned, why, typed):
        assert "\x1b" not in said.out + said.err
        assert "x1b[31m" in said.out + said.err
    assert run("draw", trace, "-o", tmp_path / "p.svg").code == 0
    picture = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert "\x1b" not in picture
    assert "<script" not in picture


def test_81_a_reader_that_leaves_is_no_error() -> None:
    said = shell("permgraph plan hubert.trace.json --json -o x.json | head -1; exit ${PIPESTATUS[0]}")
    assert said.code == 3  # no such file: the pipe does not hide an error
    command = (
        "set -o pipefail; for verb in 'plan --json --force' 'plan --force' '--help'; "
        "do permgraph $verb | head -c 1 || exit; done"
    )
    said = shell(command)
    assert (said.code, said.out) == (0, "{sU")
    assert "Traceback" not in said.err
    assert "Exception ignored" not in said.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}]
)
def test_81_any_terminal_will_do(env: dict[str, str]) -> None:
    said = shell("permgraph plan -g cnn -o y.json --force && permgraph draw y.json -o y.svg --force", **env)
    assert said.code == 0, said.err
    assert "\x1b" not in said.out + said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "args", ["--help", "plan -g ffn -o z.json", "draw plan.json -o z.svg", "plan --help"]
)
def test_torch_is_not_loaded_for_what_is_in_files(args: str) -> None:
    heavy = "{'torch', 'transformers', 'soundfile'}"
    code = f"""
import sys
sys.argv = ["permgraph", *{args.split()!r}]
from permgraph.axes.rules import RULES
from permgraph.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_interrupt_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trace, "load", interrupted)
    assert run("plan", "--force") == Said(
        5, "", "permgraph: interrupted. With --checkpoint, the same command goes on where it stopped.\n"
    )


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ImportError("cannot import HubertModel") from RuntimeError(
            "operator torchvision::nms does not exist"
        )

    monkeypatch.setattr(sys.modules["permgraph.frontend.sources"], "load_source", broken)
    said = run("trace", "hubert", "-o", "x.json")
    assert said.code == 3
    assert "torchvision::nms does not exist. `permgraph doctor --try` says what is wrong." in said.err


def test_help_lists_every_verb_in_whole_sentences_in_the_order_of_use() -> None:
    """At 80 columns no sentence is cut, and a verb that is not in the order would be lost."""
    from permgraph.cli.app import ORDER, app

    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup) and sorted(command.commands) == sorted(ORDER)
    listed = run("-h").out.split("Commands:")[1].strip().splitlines()
    assert [line.split()[0] for line in listed] == list(ORDER)
    assert all(line.endswith(".") and not line.endswith("..") and len(line) <= 80 for line in listed)
    for name in ORDER:
        assert command.commands[name].get_short_help_str(1000).endswith("."), name
    assert "..." not in run("moments", "-h").out.split("Commands:")[1]
