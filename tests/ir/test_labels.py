"""A name that stands in a data file is a label: whatever verb reads the file, nothing is built or imported by it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from permgraph import infer
from permgraph.cli import main
from permgraph.demo import demo_models
from permgraph.frontend.capture import capture
from permgraph.frontend.sources import load_source
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec, UnknownOp
from permgraph.ir.trace import Node, StateTensor, Trace
from permgraph.pipeline import plan_for
from permgraph.planning.compile import compile_plan
from permgraph.weights.encoder import open_encoder

NETWORK = """
import torch
from torch import nn
def make():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (torch.zeros(2, 4),)
"""
EVIL = "import pathlib; pathlib.Path('canary').touch()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, and the same one in a file that leaves a canary when it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "evil.py").write_text(EVIL + NETWORK)
    return tmp_path


def run(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["permgraph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0)


def singing() -> bool:
    """Whether the evil file was run; takes the canary away."""
    sang = Path("canary").exists()
    Path("canary").unlink(missing_ok=True)
    sys.modules.pop("evil", None)
    return sang


def traced() -> Trace:
    source = load_source("net.py:make")
    return capture(source.module, source.args, source.kwargs, source.name)


def nodes(trace: Trace, change: Callable[[Node], Node]) -> Trace:
    return replace(trace, nodes=tuple(map(change, trace.nodes)))


def renamed_op(node: Node, text: str) -> Node:
    return replace(node, op=text) if node.op.startswith("aten.relu") else node


def renamed_state(trace: Trace, text: str) -> Trace:
    """A tensor of the network under another name, in the state and where it is read."""
    first = next(iter(trace.state))
    state = {
        (text if k == first else k): replace(t, name=text) if k == first else t
        for k, t in trace.state.items()
    }
    return replace(
        nodes(
            trace, lambda n: replace(n, options={"tensor": text}) if n.options.get("tensor") == first else n
        ),
        state=state,
    )


def state(trace: Trace, change: Callable[[StateTensor], StateTensor]) -> Trace:
    return replace(trace, state={name: change(tensor) for name, tensor in trace.state.items()})


TRACE: dict[str, Callable[[Trace, str], Trace]] = {
    "model": lambda trace, text: replace(trace, model=text),
    "op": lambda trace, text: nodes(trace, lambda n: renamed_op(n, text)),
    "module": lambda trace, text: nodes(trace, lambda n: replace(n, module=text)),
    "module_type": lambda trace, text: nodes(trace, lambda n: replace(n, module_type=text)),
    "source": lambda trace, text: nodes(trace, lambda n: replace(n, source=f"{text.partition(':')[0]}:1")),
    "dtype": lambda trace, text: state(trace, lambda t: replace(t, dtype=text)),
    "alias": lambda trace, text: state(trace, lambda t: replace(t, aliases=(f"{t.name} {text}",))),
    "state": renamed_state,
}
READ_TRACE = (
    "plan {} -g all",
    "plan {} -g all --mode one-sided",
    "plan {} -g all --mode untied",
    "plan {} -g all --strict",
    "why {} 0.bias[0]",
    "why {} 0.bias[0] 2.weight[1]",
    "draw {}",
    "lint spec.toml {}",
)
TEXTS = ("evil.py:make", "evil:make", "evil")


@pytest.mark.sampled(5)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("change", TRACE.values(), ids=TRACE.keys())
def test_nothing_is_run_by_a_name_in_a_trace(
    change: Callable[[Trace, str], Trace], text: str, folder: Path
) -> None:
    change(traced(), text).save("x.trace.json")
    Path("spec.toml").write_text('[[group]]\nname = "g"\nplaces = ["0.weight[0]", "0.bias[0]"]\n')
    codes = {line: run(*line.format("x.trace.json").split()) for line in READ_TRACE}
    assert not singing()
    assert set(codes.values()) <= {0, 2, 3, 4} and codes["draw {}"] == 0


def test_the_canary_sings_when_the_file_is_run() -> None:
    assert run("trace", "evil.py:make") == 0 and singing()
    assert run("plan", "evil.py:make", "-g", "all", "--mode", "one-sided") == 0 and singing()


def test_a_mode_is_measured_on_what_was_typed_and_else_says_what_to_type(
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace(traced(), model="evil.py:make").save("x.trace.json")
    assert run("plan", "x.trace.json", "-g", "all", "--mode", "one-sided", "-o", "a.json") == 0
    said = capsys.readouterr().err
    assert "measured on a MODEL only: permgraph plan MODEL --groups all --mode one-sided" in said
    assert run("plan", "net.py:make", "-g", "all", "--mode", "one-sided", "-o", "b.json") == 0
    assert Plan.load("a.json").change is None and (Plan.load("b.json").change or 0) > 1e-3
    assert not singing()


def everywhere(spec: PermSpec, text: str) -> PermSpec:
    """Every label of a spec that its checks leave free."""
    groups = tuple(
        replace(g, module=text, probes=tuple(replace(p, module=text) for p in g.probes)) for g in spec.groups
    )
    pins = tuple(replace(p, reason=text, node=text) for p in spec.pinned)
    unknown = (
        UnknownOp(text, text, text, f"{text.partition(':')[0]}:1", f"RULES[{text!r}] = __import__('evil')"),
    )
    places = tuple(replace(p, node=text) for p in spec.places)
    changed = replace(spec, model=text, groups=groups, places=places, pinned=pins, unknown_ops=unknown)
    return changed.completed()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("text", TEXTS)
def test_nothing_is_run_by_a_name_in_a_plan_or_in_permutations(text: str) -> None:
    source = load_source("net.py:make")
    spec = everywhere(infer(capture(source.module, source.args, source.kwargs, source.name)), text)
    plan = replace(compile_plan(spec, "all"), selection=text)
    plan.save("x.plan.json")
    labels: dict[str, Any] = {"matcher": text, "selection": text, "a": text, "b": text, "seed": 0}
    perms = replace(random_permutations(plan, 1), report=labels)
    perms.save("x.perms")
    save_file(source.module.state_dict(), "weights.safetensors")
    traced().save("x.trace.json")
    codes = [
        run("apply", "x.plan.json", "x.perms", "weights.safetensors", "-o", "moved.safetensors"),
        run("draw", "x.trace.json", "--plan", "x.plan.json"),
        run("verify", "net.py:make", "--plan", "x.plan.json"),
        run("report", "x.perms"),
        run("report", "x.perms", "--json"),
    ]
    assert codes == [0] * 5
    assert not singing()


def test_nothing_is_run_by_a_name_when_encoders_are_matched_and_merged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = demo_models()
    plan = plan_for(open_encoder(a), "ffn.0")
    plan = replace(plan, spec=everywhere(plan.spec, "evil.py:make"), selection="evil.py:make")
    plan.save("x.plan.json")
    files = ("--plan", "x.plan.json", "--perms", "x.perms")
    match = ("match", "x.plan.json", "--a", a, "--b", b, "--matcher", "identity", "-o", "x.perms")
    assert run(*match) == 3 and not singing()  # labels of groups are compared with those that are inferred
    monkeypatch.setattr("permgraph.symmetry.infer.infer", lambda *_: plan.spec)
    assert run(*match) == 0
    assert run("merge", a, b, *files, "--weights", "0.5,0.5", "-o", "merged") == 0
    assert run("report", "merged") == 0
    assert not singing()
    perms = Permutations.load("x.perms")
    assert perms.origin.plan == plan.digest and os.path.exists("merged/permgraph.json")
