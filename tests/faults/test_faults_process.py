"""Cases 67-82: disks, signals, locks, terminals."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from permgraph import atomic_write
from permgraph.doctor import examine
from permgraph.errors import MatchError
from permgraph.matching import calibration, observers
from permgraph.reporting.drawing.graphviz_layout import LayoutError
from tests.faults.kit import MATCH, apply, bad, good, noise, put, tree
from tests.test_cli import FACTORY, run, shell

PLANNED = ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o")
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
from permgraph.cli import main
main()
"""


def left(place: Path) -> list[str]:
    """What a run that has ended should not leave."""
    return [
        p.name for p in place.iterdir() if any(w in p.name for w in (".partial-", ".raw-", ".bak-", ".lock"))
    ]


# 67
@pytest.mark.parametrize(
    "words",
    [
        apply("B", "applied", "--force"),
        (*PLANNED, "merged", "--force"),
        ("plan", "t.json", "-o", "plan.json", "--force"),
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_leaves_the_old_output_and_no_remains(place: Path, words: tuple[str, ...]) -> None:
    before = tree(place)
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "Nothing was changed" in done.stderr, done.stderr
    assert tree(place) == before and not left(place)


def stopped(after: int, how: Callable[[], Any], *words: object) -> Any:
    """A calibration that ends while it is in its batch number `after`, and saves after every batch."""
    real, seen = observers.Observers.observe, [0]

    def observe(self: Any, *arguments: Any) -> Any:
        seen[0] += 1
        if seen[0] > after:
            how()
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observers.Observers, "observe", observe)
        patch.setitem(calibration.calibrate.__kwdefaults__, "save_every", 0.0)
        return run(*words)


# 68
@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_checkpoint_and_the_same_command_goes_on(place: Path, number: int) -> None:
    good(*MATCH, "-o", "whole.st")
    words = (*MATCH, "--checkpoint", "c.st", "-o", "p.st")
    said = stopped(1, lambda: os.kill(os.getpid(), number), *words)
    assert said.code == 5 and "the same command goes on where it stopped" in said.err
    assert Path("c.st").exists() and not Path("p.st").exists()
    good(*words)
    assert Path("p.st").read_bytes() == Path("whole.st").read_bytes()


class Killed(BaseException):
    """Instead of SIGKILL: nothing is done any more."""


def _die() -> None:
    raise Killed


# 69
@pytest.mark.sampled(1)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_killed_at_any_batch_it_resumes_to_the_same_bytes(place: Path, after: int) -> None:
    good(*MATCH, "-o", "whole.st")
    words = (*MATCH, "--checkpoint", "c.st", "-o", "p.st")
    with pytest.raises(Killed):
        stopped(after, _die, *words)
    good(*words)
    assert Path("p.st").read_bytes() == Path("whole.st").read_bytes()


def half(place: Path) -> None:
    with pytest.raises(Killed):
        stopped(1, _die, *MATCH, "--checkpoint", "c.st", "-o", "p.st")


# 69
@pytest.mark.sampled(1)
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_refused(place: Path, how: str) -> None:
    half(place)
    data = bytearray(Path("c.st").read_bytes())
    data[-9] ^= 4
    Path("c.st").write_bytes({"flip": data, "cut": data[:-100], "empty": b""}[how])
    assert "c.st: " in bad(*MATCH, "--checkpoint", "c.st", "-o", "p.st")


def _other_audio() -> None:
    put("audio/2.wav", -noise(2)[::-1].copy())


OTHERS: dict[str, tuple[Callable[[], Any], tuple[str, ...], str]] = {
    "batch": (lambda: None, ("--batch", "2"), "other batch (4, now 2)"),
    "content": (_other_audio, (), "other data"),
    "clips": (lambda: None, ("--clips", "7"), "other data"),
    "seconds": (lambda: None, ("--seconds", "0.25"), "other seconds (0.3, now 0.25)"),
    "stride": (lambda: None, ("--frame-stride", "2"), "other stride (none, now 2)"),
    "normalisation": (
        lambda: Path("A/preprocessor_config.json").write_text(
            '{"do_normalize": true, "sampling_rate": 16000}'
        ),
        (),
        "other received by a",
    ),
    "plan": (lambda: good("plan", "t.json", "-g", "ffn", "-o", "plan.json", "--force"), (), "another plan"),
    "weights": (
        lambda: os.replace("applied/model.safetensors", "B/model.safetensors"),
        (),
        "other weights of B",
    ),
}


# 70
@pytest.mark.sampled(2)
@pytest.mark.parametrize("what", OTHERS)
def test_another_calibration_is_not_resumed_and_the_difference_is_named(place: Path, what: str) -> None:
    half(place)
    change, options, words = OTHERS[what]
    change()
    said = bad(*MATCH, *options, "--checkpoint", "c.st", "-o", "p.st")
    assert words in said and not Path("p.st").exists()


# 70
@pytest.mark.slow
def test_the_same_audio_elsewhere_is_the_same_calibration(place: Path) -> None:
    good(*MATCH, "-o", "whole.st")
    half(place)
    os.rename("audio", "moved")
    good(*MATCH[:7], "moved", *MATCH[8:], "--checkpoint", "c.st", "-o", "p.st")
    one, other = (json.dumps(str(Path(p).read_bytes()[-1000:])) for p in ("p.st", "whole.st"))
    assert one == other


# 71
@pytest.mark.sampled(2)
@pytest.mark.parametrize("verb", ["apply", "merge", "plan", "match"])
def test_a_kill_before_the_swap_leaves_the_old_and_the_next_run_sweeps(
    place: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {
        "apply": apply("B", "applied", "--force"),
        "merge": (*PLANNED, "merged", "--force"),
        "plan": ("plan", "t.json", "-o", "plan.json", "--force"),
        "match": (*MATCH, "-o", "perms.safetensors", "--force"),
    }[verb]
    before = tree(place)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(atomic_write, "_swap", lambda *_: _die())
        patch.setattr(atomic_write, "_remove", lambda *_: None)  # the dead remove nothing
        run(*words)
    assert {k: v for k, v in tree(place).items() if ".partial-" not in k} == before
    assert any(".partial-" in p.name for p in place.iterdir())
    good(*words)
    assert not left(place)


OUTPUTS = {
    "trace": "trace A -o OUT.json",
    "plan": "plan t.json -o OUT.json",
    "match": " ".join(MATCH) + " -o OUT.safetensors",
    "calibrate": " ".join(("calibrate", *MATCH[1:])) + " -o OUT.safetensors",
    "moments": "moments merge moments.safetensors -o OUT.safetensors",
    "draw": "draw t.json -o OUT.svg",
    "dot": "draw t.json -o OUT.dot",
    "view": "view t.json -o OUT.html",
    "explorer": "view t.json -o OUT.html --format model-explorer",
    "apply": "apply plan.json perms.safetensors B/model.safetensors -o OUT.safetensors --no-check",
    "folder": "apply plan.json perms.safetensors B -o OUT",
    "merge": "merge A B -g none -o OUT",
    "demo": "demo -o OUT",
}


# 72
@pytest.mark.sampled(5)
@pytest.mark.parametrize("verb", OUTPUTS)
def test_no_output_replaces_what_is_there(place: Path, verb: str) -> None:
    words = OUTPUTS[verb].split()
    at = next(i for i, word in enumerate(words) if word.startswith("OUT"))
    out = Path(words[at])
    if out.suffix:
        target = out.with_suffix(".json") if verb == "explorer" else out
        target.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    before = tree(place)
    assert "exists" in bad(*words)
    assert tree(place) == before
    for name in ("link", "device"):
        other = Path(name).with_suffix(".json" if verb == "explorer" else out.suffix)
        other.symlink_to("nowhere") if name == "link" else os.mkfifo(other)
        said = bad(*[str(Path(name).with_suffix(out.suffix)) if word == str(out) else word for word in words])
        assert "a link; refusing" in said or "exists" in said
    assert {k: v for k, v in tree(place).items() if not k.startswith(("link", "device"))} == before


# 72
@pytest.mark.parametrize(
    "words",
    [
        "apply plan.json perms.safetensors B/model.safetensors -o perms.safetensors --force",
        "apply plan.json perms.safetensors B -o B --force",
        "apply plan.json perms.safetensors B -o B/inner --force",
        "merge A B -g none -o . --force",
        "merge A B -g none -o audio --force",
        "plan t.json -o t.json --force",
        "draw t.json --plan plan.json -o plan.json --format svg --force",
        "match plan.json --moments moments.safetensors -o moments.safetensors --force",
        "moments merge moments.safetensors -o moments.safetensors --force",
        " ".join(MATCH) + " -o audio/0.wav --force",
        " ".join(MATCH) + " -o p.st --checkpoint audio/0.wav",
        "trace A -o B/config.json --force",
        "view perms.safetensors --plan plan.json --trace t.json -o perms.safetensors --force",
    ],
)
def test_no_output_replaces_an_input_or_what_another_wrote(place: Path, words: str) -> None:
    before = tree(place)
    assert bad(*words.split())
    assert tree(place) == before


# 73
def test_files_have_the_mode_of_the_umask(place: Path) -> None:
    before = os.umask(0o027)
    try:
        good(*apply())
        good("plan", "t.json", "-o", "new.json")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (*Path("out").iterdir(), Path("new.json"))}
    assert modes <= {0o640} and stat.S_IMODE(Path("out").stat().st_mode) == 0o750


# 74
def test_a_second_run_to_one_output_or_checkpoint_is_told(place: Path) -> None:
    for words, lock in (
        (("plan", "t.json", "-o", "new.json"), ".new.json.lock"),
        (apply(), ".out.lock"),
        ((*MATCH, "--checkpoint", "c.st", "-o", "p.st"), ".c.st.run"),
    ):
        with FileLock(lock):
            assert "locked: another run" in bad(*words)
        good(*words)


# 75
def test_read_only_models_and_no_home_are_enough(place: Path) -> None:
    for path in (*Path("B").iterdir(), Path("B")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    env = {"HOME": "/nonexistent", "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent/cache"}
    said = shell("permgraph apply plan.json perms.safetensors B -o out", **env)
    Path("B").chmod(0o755)
    assert said.code == 0, said.err


# 76
def test_the_memory_is_told_first_and_what_cannot_fit_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Calibration needs about" in good(*MATCH, "-o", "p.st").err
    monkeypatch.setattr("permgraph.matching.memory.available", lambda: 1000)
    assert "Let the groups take turns with --max-memory" in bad(*MATCH, "-o", "q.st")


# 77: one rank of several dies. `permgraph calibrate` runs under torchrun, which ends the others; each rank has a checkpoint of
# its own, named here, and resumes from it like any calibration (68-70). Two ranks run in tests/matching/test_ranks.py.
def test_every_rank_has_a_checkpoint_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from permgraph.matching.ranks import Ranks

    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    found = Ranks.of_environment()
    assert found is not None and (found.rank, found.world) == (1, 2)
    seen: list[Any] = []

    def refused(checkpoint: Path, *_: Any) -> None:
        seen.append(checkpoint.name)
        raise MatchError("seen enough.")

    monkeypatch.setattr("permgraph.cli.calibrator.refuse_checkpoint", refused)
    bad("calibrate", *MATCH[1:], "--checkpoint", "c.st", "-o", "m.st")
    assert seen == ["c.st.1-of-2"]


# 78
def test_ranks_that_see_other_files_stop(place: Path) -> None:
    from permgraph.ir.moments import Moments
    from permgraph.matching.ranks import _Header, _refuse_different

    one = Moments.load("moments.safetensors")
    put("audio/2.wav", noise(9))
    good("calibrate", *MATCH[1:], "-o", "other.st")
    headers = [_Header.of(m) for m in (one, Moments.load("other.st"))]
    _refuse_different(headers[:1] * 2)
    with pytest.raises(MatchError, match="ranks 0 and 1 calibrate different files"):
        _refuse_different(headers)


# 79
@pytest.mark.parametrize("why", ["no Graphviz here", "the layout took more than 60 s"])
def test_without_a_layout_the_text_is_written(place: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise LayoutError(why)

    monkeypatch.setattr("permgraph.reporting.drawing.picture.Picture.scene", fails)
    assert why in bad("draw", "t.json", "-o", "new.svg")
    assert Path("new.dot").read_text().startswith(("digraph", "strict", "//"))
    Path("kept.dot").write_text("mine")
    assert "exists" in bad("draw", "t.json", "-o", "kept.svg") and Path("kept.dot").read_text() == "mine"


EVIL = "\x1b[31mA\u202e<script>alert(1)<|script>`](javascript:x)|"


# 80
@pytest.mark.slow
def test_names_of_others_are_neutral_wherever_they_are_shown(place: Path) -> None:
    os.rename("A", EVIL)
    said = [
        good("trace", EVIL, "-o", "e.json"),
        good("tree", "e.json"),
        good("draw", "e.json", "-o", "e.svg"),
    ]
    said += [good("view", "e.json", "-o", "e.html"), good("verify", EVIL)]
    said.append(good("merge", EVIL, "B", "-g", "ffn", *MATCH[6:], "-o", "m"))
    card, page, picture = (Path(p).read_text() for p in ("m/README.md", "e.html", "e.svg"))
    for text in (*(s.out + s.err for s in said), card, page, picture):
        assert "\x1b" not in text and "\u202e" not in text
    assert "<script>alert" not in page and "<script" not in picture
    for line in card.splitlines():
        if not line.startswith("- command: `"):
            assert "<script>" not in line and "](javascript" not in line.replace("\\](", "")
    assert card.split("---")[1].strip().splitlines() == [
        "library_name: transformers",
        "tags: [model-merging, permgraph]",
    ]


# 80
def test_names_of_layers_are_neutral(place: Path) -> None:
    Path("net.py").write_text(FACTORY, encoding="utf-8")
    good("trace", "net.py:hostile", "-o", "h.json")
    for form in ("svg", "dot"):
        good("draw", "h.json", "-o", f"h.{form}")
        text = Path(f"h.{form}").read_text()
        assert "\x1b" not in text and (form == "dot" or "<script" not in text)


CLOSED = {
    "permgraph tree t.json | head -1": 0,
    "permgraph tree t.json >&-": 0,
    "permgraph plan t.json -o a.json 2>&-": 0,
    "permgraph plan t.json -o a.json >&- 2>&-": 0,
    "permgraph plan nowhere.json -o a.json 2>&-": 3,
    "permgraph plan nowhere.json >&- 2>&-": 3,
    "permgraph tree t.json >/dev/full": 3,
    "permgraph plan t.json -o a.json 2>/dev/full": 0,
    "permgraph plan nowhere.json >/dev/full 2>/dev/full": 3,
    "permgraph --version >/dev/full": 3,
    "TERM=dumb NO_COLOR=1 PYTHONIOENCODING=ascii permgraph tree t.json": 0,
}


# 81
@pytest.mark.sampled(4)
@pytest.mark.parametrize("line", CLOSED)
def test_a_stream_that_takes_nothing_is_no_traceback(place: Path, line: str) -> None:
    said = shell(f"set -o pipefail; {line}")
    assert said.code == CLOSED[line], said
    assert "Traceback" not in said.out + said.err and "Exception ignored" not in said.err
    if "2>&-" in line:
        assert "written" not in said.out and "no such file" not in said.out


NUMBERS = {
    "--seconds": ["inf", "nan", "-1", "1e300", "x"],
    "--seed": ["-1", "99999999999999999999", "x"],
    "--batch": ["0", "99999999999999999999"],
    "--clips": ["0", "99999999999999999999"],
    "--max-bad": ["nan", "inf", "-1", "2"],
    "--frame-stride": ["0", "99999999999999999999"],
    "--min-frames": ["-1", "nan"],
    "--weights": ["nan,0.1", "1e999", ",", "0.5,0.5,0.5,x"],
}


# 81
@pytest.mark.parametrize(("option", "value"), [(o, v) for o, values in NUMBERS.items() for v in values])
def test_numbers_that_are_none_are_a_mistake_and_no_crash(place: Path, option: str, value: str) -> None:
    words = MATCH if option != "--weights" else ("merge", "A", "B", "-g", "none")
    assert option in bad(*words, "-o", "new.st", option, value, code=2)


NOWHERE = ["n" * 300, "\udcff"]
BREAKS = ["\n", "\r", "\x85", "\x1b[2K", "\u202e", "\u2028"]


# 80, 81
@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", [*NOWHERE, *(f"a{broken}permgraph: all is well. b" for broken in BREAKS)])
def test_a_name_breaks_no_line_of_a_message(place: Path, name: str) -> None:
    """Whatever is typed: one message, in which no line begins with what stands behind the break."""
    for words in (
        ("trace", name, "-o", "new.json"),
        ("trace", "A", "-o", f"{name}/x.json"),
        ("plan", f"{name}.json", "-o", "new.json"),
        ("plan", "t.json", "-g", name, "-o", "new.json"),
        ("why", "t.json", name),
        ("apply", name, "perms.safetensors", "B", "-o", "out"),
        ("apply", "plan.json", name, "B", "-o", "out"),
        ("apply", "plan.json", "perms.safetensors", name, "-o", "out"),
        ("merge", "A", name, "-g", "none", "-o", "out"),
        (*MATCH[:7], name, "-o", "new.st"),
        (*MATCH[:7], "audio", "--where", name, "-o", "new.st"),
        (*MATCH, "--matcher", name, "-o", "new.st"),
        ("report", name),
        ("score", name),
        ("export", "A", "--format", "s3prl", "-o", f'x"{name}'),
        ("lint", name, "t.json"),
        ("verify", name),
        ("moments", "merge", name, "-o", "new.st"),
        (name,),
        ("tree", "t.json", f"--{name}"),
    ):
        said = run(*words)
        assert said.code in (2, 3) and "Traceback" not in said.err, (words[0], said)
        assert "this is a fault of permgraph" not in said.err, (words[0], said.err)
        assert [line[:9] for line in said.err.splitlines()] == ["permgraph"], (words[0], said.err)
        assert said.err.rstrip("\n").isprintable()


# 80
@pytest.mark.sampled(1)
@pytest.mark.parametrize("broken", BREAKS[::3] + BREAKS[-1:])
def test_a_name_that_is_there_breaks_no_line_either(place: Path, broken: str) -> None:
    """Files with such names, which are used: what is said and printed of them, a table, details below a message."""
    name = f"a{broken}permgraph: all is well."
    os.rename("A", name)
    os.rename("t.json", f"{name}.json")
    for i in range(4):
        Path("audio", f"{name}{i}.wav").write_text("no audio")
    Path("t.csv").write_text(f'encoder,task,value\n"{name}","{name}",0.5\nFBANK,"{name}",0.1\n', newline="")
    for words in (
        ("plan", f"{name}.json", "-o", f"{name}.plan.json"),
        ("tree", f"{name}.json"),
        ("verify", name),
        (*MATCH[:3], name, *MATCH[4:], "--max-bad", "1", "-o", f"{name}.st"),
        (*MATCH[:3], name, *MATCH[4:], "-o", "new.st"),
        ("merge", name, "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "m"),
        ("report", "m"),
        ("score", "t.csv"),
    ):
        said = run(*words)
        assert "this is a fault of permgraph" not in said.err, (words[0], said.err)
        for line in (said.out + said.err).split("\n"):
            assert line.isprintable() and not line.lstrip().startswith("permgraph: all"), (words[0], line)


# 82
def test_the_installation_is_looked_at() -> None:
    assert {"Python", "torch", "transformers", "Graphviz"} <= {finding.name for finding in examine()}
