"""Every verb: `--json` prints the fields that docs/json.md lists and nothing else; `-h`, `--version` and completion answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from permgraph import Plan, __version__, random_permutations
from permgraph.cli.app import app
from permgraph.demo import demo_models
from tests.test_cli import run, shell

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
TREE: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = sorted(
    name if inner is None else f"{name} {inner}"
    for name, command in TREE.items()
    for inner in getattr(command, "commands", [None])
)
SPECIFICATION = Path(__file__).resolve().parents[1] / "specs" / "known" / "hubert.toml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, source in zip("AB", demo_models(), strict=True):
            Path(name).symlink_to(source)
        assert run("trace", "A").code == 0
        assert run("plan", "-g", "ffn").code == 0
        random_permutations(Plan.load("plan.json")).save("perms.safetensors")
        merged = ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "first")
        assert run(*merged, "--no-check").code == 0
    return folder


COMMANDS = {
    "trace": "trace A -o t.json",
    "plan": "plan -g ffn -o p.json",
    "tree": "tree plan.json",
    "why": "why permgraph.trace.json encoder.layers.0.attention.q_proj.weight[0]",
    "apply": "apply plan.json perms.safetensors A -o applied",
    "verify": "verify A --plan plan.json",
    "draw": "draw plan.json -o x.dot",
    "view": "view plan.json",
    "match": "match plan.json --a A --b B --matcher identity -o m.safetensors",
    "merge": "merge A B --plan plan.json --matcher identity --no-check -o merged",
    "replay": "replay first --a A --b B -o again --statement first.json",
    "report": "report perms.safetensors",
    "lint": f"lint {SPECIFICATION} permgraph.trace.json --no-measure",
    "doctor": "doctor",
    "methods": "methods",
    "scramble": "scramble plan.json A -o scrambled --perms s.safetensors --no-check",
    "slices": "slices plan.json",
    "reorder": "reorder plan.json A -o reordered --perms r.safetensors --no-check",
    "factors": "factors A",
    "multiply": "multiply plan.json --a A --b B -o multiplied --no-check",
    "compare": "compare A B --plan plan.json --shuffles 1",
}


@pytest.mark.sampled(11)
@pytest.mark.parametrize("verb", [v for v in VERBS if v in COMMANDS])
def test_json_holds_what_the_document_lists(verb: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    said = run(*COMMANDS[verb].split(), "--json")
    assert said.code in ((0, 4) if verb == "lint" else (0,)), said.err
    data = json.loads(said.out)
    for path in data.get("written", ()):
        assert Path(path).exists()
    if verb in ("trace", "plan", "tree"):
        assert {"permgraph", "format", "digest"} <= set(data)
    elif verb == "report":
        assert set(data) == {"perms.safetensors"}
    else:
        assert set(data) <= listed(verb), set(data) - listed(verb)


def listed(verb: str) -> set[str]:
    """The fields of a verb in the document: of its row of the table, and of the paragraph that begins with it."""
    rows = [
        line for line in DOCUMENT.splitlines() if line.startswith("|") and f"`{verb}`" in line.split("|")[1]
    ]
    assert rows, f"docs/json.md does not list {verb}"
    text = " ".join(rows) + "".join(re.findall(rf"^`{verb}`:.*?(?=\n\n)", DOCUMENT, re.M | re.S))
    return set(re.findall(r"`(\w+)`", text))


def test_reports_hold_what_the_document_lists(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    said = run(*COMMANDS["match"].split(), "--json", "--force")
    report: dict[str, Any] = json.loads(said.out)["report"]
    known = set(re.findall(r"`(\w+)`", DOCUMENT[DOCUMENT.index("## Reports") :]))
    assert set(report) <= known
    assert all(set(row) <= known for row in report["groups"].values())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json_and_short_help(verb: str) -> None:
    said = run(*verb.split(), "-h")
    assert said.code == 0 and "--json" in said.out and said.out == run(*verb.split(), "--help").out
    assert f"`{verb}`" in DOCUMENT


def test_version_and_completion() -> None:
    assert run("--version").out == f"permgraph {__version__}\n"
    for words, offered in (("permgraph tr", {"trace", "tree"}), ("permgraph plan --unf", {"--unfold"})):
        count = str(len(words.split()) - 1)
        asked = {"_PERMGRAPH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
        said = shell("permgraph", **asked)
        assert said.code == 0 and set(said.out.split()) == offered, said


def test_a_fault_of_permgraph_has_a_code_and_shows_its_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error, code, message in (
        (ZeroDivisionError("x"), 1, "ZeroDivisionError: x"),
        (SystemExit(7), 3, "sys.exit(7)"),
        (PermissionError(13, "Permission denied", "a.json"), 3, "permgraph: a.json: Permission denied."),
        (MemoryError(), 3, "out of memory"),
    ):

        def fails(*args: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("permgraph.ir.trace.Trace.load", fails)
        said = run("plan", "--force")
        assert (said.code, message in said.err) == (code, True), said.err
        assert "Traceback" not in said.err and ("--debug" in said.err) == (code == 1)
        assert "Traceback" in run("plan", "--force", "--debug").err
