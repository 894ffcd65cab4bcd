"""Every promise in the documents is executed: their code blocks run, and print what is shown below them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from docs_pages import _TEXTS as GENERATED
from docs_pages import on_page_markdown

from permgraph.axes.rules import RULES
from permgraph.matching.matchers import MATCHERS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/tutorial.md",
    "docs/cookbook.md",
    "docs/attention.md",
    "docs/verbs.md",
    "docs/python.md",
)
# Most of what the tutorial does is run by its notebook, too, and each verb by the tests of its own.
SLOW = ("docs/tutorial.md", "docs/verbs.md")
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)
_INSTALL = re.compile(r"pip install [^&\n]+")


class Block(NamedTuple):
    kind: str
    code: str
    line: int
    reason: str | None = None


def blocks(text: str) -> list[Block]:
    """The code blocks of a Markdown text, with the reason for which one is not run."""
    return [
        Block(m["kind"], m["code"], text[: m.start("code")].count("\n") + 1, m["reason"])
        for m in _BLOCK.finditer(text)
    ]


def unresolved(text: str) -> list[int]:
    """Numbers of the lines that a merge left for someone to resolve."""
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    return [i for i, line in enumerate(text.splitlines(), 1) if line.startswith(marks)]


def test_no_merge_was_left_half_done() -> None:
    folders = ("permgraph", "specs", "tools", "tests", "docs")
    texts = [
        p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in (".md", ".py", ".toml")
    ]
    texts += [p for p in ROOT.iterdir() if p.suffix in (".md", ".toml")]
    assert len(texts) > 100
    assert not {str(p): found for p in texts if (found := unresolved(p.read_text(encoding="utf-8")))}
    assert unresolved("one\n" + "<" * 7 + " HEAD\ntwo\n" + ">" * 7 + " other\n") == [2, 4]


@pytest.fixture(autouse=True)
def _tables_put_back() -> Any:
    """CONTRIBUTING adds rows to the tables of rules and matchers."""
    rules, matchers = dict(RULES), dict(MATCHERS)
    yield
    for table, was in ((RULES, rules), (MATCHERS, matchers)):
        table.clear()  # type: ignore[attr-defined]
        table.update(was)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in DOCUMENTS],
)
def test_every_block_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(
        tmp_path
    )  # a page imports the files that it writes, as Python started there does
    space: dict[str, Any] = {"__name__": "__main__"}
    said = ""
    for block in blocks((ROOT / name).read_text(encoding="utf-8")):
        where = f"{name}:{block.line}"
        if block.reason is not None:
            continue
        if block.kind == "bash":
            said = _shell(block.code, where)
        elif block.kind == "python":
            for file in tmp_path.glob("*.py"):  # another page or test may have imported one of that name
                monkeypatch.delitem(sys.modules, file.stem, raising=False)
            source = tmp_path / f"block_{block.line}.py"  # torch reports the lines of a file
            source.write_text(block.code, encoding="utf-8")
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(compile(block.code, str(source), "exec"), space)
            said = printed.getvalue()
        elif block.kind == "text" and said:
            missing = [x for x in block.code.splitlines() if x.strip() not in said]
            assert not missing, f"{where}: shown, and not printed: {missing}\n{said}"
            said = ""
    if name == "README.md":
        assert _words(tmp_path / "hubert.svg") == _words(ROOT / "docs" / "hubert.svg"), (
            "draw the picture again"
        )
        demo = tmp_path / "permgraph-demo" / "graph.svg"
        assert _words(demo) == _words(ROOT / "docs" / "demo.svg"), "draw the picture of the demo again"


def _words(picture: Path) -> list[str]:
    """What is written in a drawing; where it stands may change with Graphviz."""
    return sorted(re.findall(r"<text[^>]*>(.*?)</text>", picture.read_text(encoding="utf-8")))


def _shell(code: str, where: str) -> str:
    """Run a block with this environment's permgraph; the installation is here already."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _INSTALL.sub("true ", code)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PATH": path, "PYTHONUTF8": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{where}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_a_wrong_promise_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found, *_) = blocks("x\n\n```bash\nfalse | cat\n```\n")
    with pytest.raises(AssertionError, match=r"here:1: exit 1"):
        _shell(found.code, "here:1")
    skipped = blocks("<!-- not run: slow -->\n```bash\nfalse\n```\n")
    assert [b.reason for b in skipped] == ["slow"]


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    """The second command of the first screen stands, word for word, in .ci/run."""
    first, second, *_ = [
        b for b in blocks((ROOT / "README.md").read_text(encoding="utf-8")) if b.kind == "bash"
    ]
    assert first.reason is None, "the main job must run here"
    assert "pytest" in second.code
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert second.code in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_architecture_shown_is_the_file() -> None:
    shown = [
        b.code for b in blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) if b.kind == "toml"
    ]
    assert shown
    for code in shown:
        first, _, body = code.partition("\n")
        assert (ROOT / first.removeprefix("# ")).read_text(encoding="utf-8") == body


PAGES = [p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("name", sorted({*DOCUMENTS, *PAGES}))
def test_links_lead_somewhere(name: str) -> None:
    """In a checkout to a file; in the documentation, texts of the root are pages of it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", text) if not t.startswith("http")]
    folder = (ROOT / name).parent
    assert not [t for t in targets if not (folder / t).exists()]
    outside = [t for t in targets if name.startswith("docs/") and t.startswith("../")]
    assert {t.removeprefix("../") for t in outside} <= set(GENERATED)
    shown = on_page_markdown(text, None, None, None)
    assert not [t for t in outside if t.removeprefix("../") in GENERATED and f"]({t})" in shown]


def test_what_the_tables_name_is_there() -> None:
    """Each row of the tables of folders and of "where does … live?" gives one path, and the path is right."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layout = text[text.index("## Layout") : text.index("## Add an op rule")]
    folders = re.findall(r"^\| `([^`]+)` \|", layout, re.M)
    answers = re.findall(r"^\| [^|`]+ \| `([^`]+)` \|$", layout, re.M)
    assert len(answers) >= 20 and len(set(answers)) == len(answers)
    assert not [path for path in (*folders, *answers) if not (ROOT / path).exists()]
    packages = {f"permgraph/{p.parent.name}/" for p in (ROOT / "permgraph").glob("[a-z]*/__init__.py")}
    assert packages <= set(folders)
