"""Mistakes that people make at the command line: what is typed, the exit code, what the message says. One table, told once.

Each is one message and an exit code, without a traceback, and leaves the folder as it was. Those in EARLY are told before
any model is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from permgraph.demo import demo_models
from permgraph.ir.permutations import random_permutations
from permgraph.ir.plan import Plan
from permgraph.pipeline import plan_for
from permgraph.weights.encoder import open_encoder
from tests.test_cli import FACTORY, run

RATE = 16_000
MATCH = "match plan.json --a A --b B"
MERGE = "merge A B --audio good"
REPLACING = ("trace", "plan", "match", "draw", "view")
EARLY = {
    "matcher": (f"{MATCH} --audio good --matcher corelation", 2, "Did you mean correlation"),
    "no data": (MATCH, 3, "give calibration data with --audio, --text, --images or --data"),
    "two kinds": (f"{MATCH} --audio good --text x.txt", 2, "calibrate on one kind of data"),
    "audio": (f"{MATCH} --audio nowhere", 3, "nowhere: no such file or folder"),
    "no audio in it": (f"{MATCH} --audio full", 3, "full: no audio files"),
    "column": (f"{MATCH} --audio list.csv --where splt=train", 3, "no column 'splt'. Did you mean split"),
    "rows": (f"{MATCH} --audio list.csv --where split=test", 3, "no audio files where"),
    "where": (f"{MATCH} --audio list.csv --where split", 2, "write COLUMN=VALUE"),
    "where alone": (f"{MATCH} --data x:f --where split=train", 2, "--where keeps rows of a manifest"),
    "text": (f"{MATCH} --text nowhere.txt", 3, "nowhere.txt: no such text file"),
    "function": (f"{MATCH} --data nowhere.py:f", 2, "no such file: nowhere.py"),
    "function name": (f"{MATCH} --data nowhere.py", 2, "write file.py:function"),
    "match onto the plan": (f"{MATCH} --audio good -o plan.json", 3, "output and input are the same"),
    "match nowhere": (f"{MATCH} --audio good -o no/p.safetensors", 3, "no does not exist. Make it first."),
    "match over another's": (f"{MATCH} --audio good -o mine.txt", 3, "permgraph did not write it"),
    "checkpoint": (f"{MATCH} --audio good --checkpoint other.safetensors", 3, "other.safetensors"),
    "checkpoint is the output": (
        f"{MATCH} --audio good -o p.safetensors --checkpoint p.safetensors",
        2,
        "is another file of this command",
    ),
    "model A": ("match plan.json --a nowhere --b B --audio good", 3, "nowhere: no such file or folder"),
    "model B": ("match plan.json --a A --b nowhere --audio good", 3, "nowhere: no such file or folder"),
    "groups": (f"{MERGE} -g cnn,hedas -o m", 2, "--groups hedas: no such group"),
    "excluded": (f"{MERGE} -x hedas.0 -o m", 2, "-x hedas.0: no such group"),
    "mode": (f"{MERGE} --mode exakt -o m", 2, "Did you mean exact?"),
    "weights": (f"{MERGE} --weights 0.9,x -o m", 2, "--weights 0.9,x"),
    "weight": (f"{MERGE} --weights 1.5 -o m", 2, "1.5 is not a weight between 0 and 1"),
    "group weights": (f"{MERGE} --group-weights fn=0.5 -o m", 2, "--group-weights fn: no such group"),
    "group weight": (f"{MERGE} --group-weights ffn -o m", 2, "write GROUPS=WEIGHT"),
    "plan and groups": (f"{MERGE} --plan plan.json -g ffn -o m", 2, "Give one or the other"),
    "plan and mode": (f"{MERGE} --plan plan.json --mode untied -o m", 2, "Give one or the other"),
    "permutations alone": (f"{MERGE} --perms other.safetensors -o m", 2, "--perms needs the --plan"),
    "other permutations": (
        "merge A B --plan plan.json --perms other.safetensors -o m",
        3,
        "other.safetensors: the permutations were made for the plan",
    ),
    "repair": ("merge A B -g none --repair -o m", 2, "--repair corrects statistics measured on data"),
    "merge exists": (f"{MERGE} -o full", 3, "full: exists"),
    "merge by force": (f"{MERGE} -o full --force", 3, "holds no permgraph.json"),
    "merge nowhere": (f"{MERGE} -o no/m", 3, "no does not exist. Make it first."),
    "merge onto A": (f"{MERGE} -o A", 3, "output and input are the same"),
    "one of a sweep exists": (f"{MERGE} --weights 0.5,0.25 -o full", 3, "full-0.50: exists"),
    "trace nowhere": ("trace hubert -o no/t.json", 3, "no does not exist. Make it first."),
    "trace over another's": ("trace hubert -o mine.txt", 3, "permgraph did not write it"),
    "plan groups": ("plan hubert -g cnn,hedas", 2, "--groups hedas: no such group"),
    "plan mode": ("plan hubert --mode exakt", 2, "Did you mean exact?"),
    "plan nowhere": ("plan hubert -o no/p.json", 3, "no does not exist. Make it first."),
    "picture": ("draw hubert -o x.gif", 2, "cannot draw a .gif"),
    "picture nowhere": ("draw hubert -o no/x.svg", 3, "no does not exist. Make it first."),
    "direction": ("draw hubert --direction up", 2, "direction 'up': use TB"),
    "page": ("view hubert --format gif", 2, "--format gif: use html or model-explorer"),
    "page of a plan elsewhere": (
        "view perms.safetensors --plan no.json",
        2,
        "perms.safetensors: a page of permutations needs their plan, and no.json is not here: --plan PLAN",
    ),
    "page of nothing": (
        "view no.safetensors",
        3,
        "no.safetensors: no such file. `permgraph match` writes it",
    ),
    "verb": ("tracee hubert", 2, "Did you mean 'trace', 'tree'? See `permgraph --help`."),
    "axis": (
        "why permgraph.trace.json a.weight",
        2,
        "write an axis as tensor[number], for example a.weight[0]",
    ),
    "a number": (f"{MERGE} --weights 0.9,abc -o m", 2, "'abc' is not a number"),
    "arguments exchanged": (
        "apply perms.safetensors plan.json A -o m",
        3,
        "perms.safetensors: not a permgraph plan file: it is not text (UTF-8).",
    ),
    "table": ("score no.csv", 3, "no.csv: cannot read: no such file or directory."),
    "report of a model": (
        "report A",
        3,
        "A: holds no permutations.safetensors, so `permgraph merge` did not write it",
    ),
    "lint of nothing": ("lint no.toml permgraph.trace.json", 3, "no.toml: no such file"),
    "benchmark": ("export A --format xaress -o m", 2, "Did you mean xares"),
    "benchmark's folder": ("export A --format marble -o m-1", 2, "letters, digits and underscores"),
    "benchmark exists": ("export A --format mteb -o full", 3, "full: exists"),
    "page nowhere": ("view hubert -o no/x.html", 3, "no does not exist. Make it first."),
    "images": (f"{MATCH} --images nowhere", 3, "nowhere: no such file or folder"),
    "no images in it": (f"{MATCH} --images good", 3, "good: no images (looked for .png"),
    "no text in it": (f"{MATCH} --text empty.txt", 3, "empty.txt: no text in it"),
    "function typo": (
        f"{MATCH} --data net.py:distancs",
        2,
        "no function 'distancs' in it. Did you mean distances",
    ),
    "function of no module": (f"{MATCH} --data nowhere.at.all:f", 2, "no module named 'nowhere'"),
    "class of a trace file": (
        "plan permgraph.trace.json --class HubertForCTC",
        2,
        "is traced already. Give MODEL",
    ),
    "class of a trace": ("tree --class HubertForCTC", 2, "permgraph.trace.json is traced already"),
}
TOLD = {
    "no model": ("trace", 2, "permgraph trace: Missing argument 'MODEL'. See `permgraph trace --help`."),
    "no such verb": ("trac hubert", 2, "No such command 'trac'"),
    "no such option": ("plan --grups cnn", 2, "No such option: --grups"),
    "bad number": ("verify A --seeds none", 2, "Invalid value for '--seeds'"),
    "alias typo": ("trace huburt", 2, "huburt: no such model. Did you mean hubert"),
    "38 group typo": (
        "plan -g cnn,hedas",
        2,
        "--groups hedas: no such group, role, word or preset. Did you mean heads",
    ),
    "38 group number": ("plan -g ffn.7", 2, "--groups ffn.7: no such group"),
    "39 empty": ("plan -g ,", 2, "nothing is selected"),
    "39 glob": ("plan -g conv*", 2, "--groups conv*: no group matches"),
    "39 range": ("plan -g ffn.0-5", 2, "--groups ffn.0-5: no group ffn.3"),
    "39 two taps": ("plan -g ffn1,ffn2", 2, "choose one of them"),
    "pinned role": ("plan -g residual", 2, "pinned by the output"),
    "no trace": ("plan nowhere.json", 3, "nowhere.json: no such file. Run `permgraph trace MODEL` first."),
    "plan as trace": (
        "plan plan.json",
        3,
        "plan.json: expected a permgraph trace file, found a permgraph plan file.",
    ),
    "trace as plan": (
        "draw --plan permgraph.trace.json",
        3,
        "expected a permgraph plan file, found a permgraph trace file",
    ),
    "40 draw": ("draw --plan hubert.plan.json", 2, "the plan was made for hubert, another architecture"),
    "40 verify": ("verify A --plan hubert.plan.json", 3, "the plan was made for hubert"),
    "40 apply": (
        "apply hubert.plan.json perms.safetensors A -o x",
        3,
        "the permutations were made for the plan",
    ),
    "no such axis": ("why A encoder.layer_norm.weight[3]", 2, "encoder.layer_norm.weight"),
    "not an axis": ("why A encoder.layer_norm.weight", 2, "write an axis as tensor[number]"),
    "output a folder": ("plan -g cnn -o full", 3, "full: exists and is not a regular file"),
    "unknown layer": (
        "draw --layer encoder.layer.0",
        2,
        "no module of that name holds a weight. Did you mean",
    ),
    "no permutations": ("apply plan.json nowhere A -o x", 3, "nowhere: no such file"),
    "no checkpoint": ("apply plan.json perms.safetensors nowhere -o x", 3, "nowhere"),
    "72 onto itself": ("apply plan.json perms.safetensors A -o A", 3, "A"),
    "class": (
        "trace A --class HubertForCTS -o t.json",
        2,
        "no such class for model_type 'hubert'. Did you mean HubertForCTC",
    ),
    "class of a factory": (
        "trace net.py:distances --class Net -o t.json",
        2,
        "no model folder, hub id or alias",
    ),
    "factory": ("trace net.py:distancs -o t.json", 2, "no function 'distancs' in it. Did you mean distances"),
    "factory of a file": (
        "trace net.py -o t.json",
        2,
        "name the function that builds the network: net.py:factory",
    ),
    "layout of a matcher": (f"{MATCH} --audio good --matcher net.py:distancs", 2, "Did you mean distances"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models A and B, a trace, plans, permutations of two plans, audio, and files that permgraph did not write."""
    folder = tmp_path_factory.mktemp("mistakes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, source in zip("AB", demo_models(), strict=True):
            Path(name).symlink_to(source)
        Path("net.py").write_text(FACTORY, encoding="utf-8")
        assert run("trace", "A").code == 0
        assert run("plan", "-g", "cnn,heads,ffn2").code == 0
        random_permutations(Plan.load("plan.json")).save("perms.safetensors")
        random_permutations(plan_for(open_encoder("A"), "ffn")).save("other.safetensors")
        assert run("plan", "hubert", "-o", "hubert.plan.json", "-g", "ffn").code == 0
        noise = 0.1 * np.random.default_rng(0).standard_normal(8 * RATE)
        for name in ("good/0.wav", "good/1.wav"):
            Path(name).parent.mkdir(exist_ok=True)
            soundfile.write(name, noise, RATE)
        Path("list.csv").write_text("path,split\ngood/0.wav,train\n", encoding="utf-8")
        Path("empty.txt").write_text("\n", encoding="utf-8")
        Path("mine.txt").write_text("not of permgraph", encoding="utf-8")
        for name in ("full", "full-0.50"):
            Path(name).mkdir()
            Path(name, "mine.txt").write_text("not of permgraph", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _there(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)


def state() -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in Path().rglob("*") if "__pycache__" not in p.parts}


def told(args: str, code: int, message: str) -> None:
    before = state()
    verb, *_ = args.split()
    forced = ["--force"] if verb in REPLACING else []  # what is there is not the mistake that is meant
    said = run(*args.split(), *forced)
    assert message in said.err and said.code == code, said.err
    assert said.err.startswith("permgraph") and said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err and "kept" not in said.err and not said.out
    assert state() == before


@pytest.mark.parametrize("args, code, message", EARLY.values(), ids=EARLY.keys())
def test_a_mistake_is_told_before_a_model_is_built(
    monkeypatch: pytest.MonkeyPatch, args: str, code: int, message: str
) -> None:
    def built(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model is built")

    # these hold the name as it is when they are imported
    import permgraph.evaluation.benchmarks
    import permgraph.evaluation.probing  # noqa: F401

    monkeypatch.setattr("permgraph.frontend.sources.load_source", built)
    monkeypatch.setattr("permgraph.weights.encoder.open_encoder", built)
    told(args, code, message)


@pytest.mark.parametrize("args, code, message", TOLD.values(), ids=TOLD.keys())
def test_a_mistake_is_one_message_and_an_exit_code(args: str, code: int, message: str) -> None:
    told(args, code, message)


def test_the_table_is_long_and_nothing_is_in_it_twice() -> None:
    typed = [args for args, _, _ in (*EARLY.values(), *TOLD.values())]
    assert len(typed) >= 40 and len(set(typed)) == len(typed)
