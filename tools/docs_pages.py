"""Pages of the documentation that are written elsewhere: README.md, CONTRIBUTING.md, and what `--help` prints.

A hook of mkdocs (see mkdocs.yml), so that each text stands in one place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

ROOT = Path(__file__).resolve().parents[1]
_TEXTS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}


def command_line() -> str:
    """Every verb with its arguments and options, as Markdown."""
    import permgraph.cli  # noqa: F401  (it registers the verbs)
    from permgraph.cli.app import app

    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="permgraph")
    return get_docs_for_click(obj=command, ctx=context, name="permgraph", title="Command line")


def moved(text: str) -> str:
    """A text of the root, with its links as they are inside docs/. Links to other files of the root point to their pages."""
    text = text.replace("](docs/", "](")
    for source, page in _TEXTS.items():
        text = text.replace(f"]({source})", f"]({page})")
    return re.sub(r"<!-- not run: .*? -->\n", "", text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs asks for the text of a page; links to files of the root, as a checkout shows them, point to their pages."""
    for source, target in _TEXTS.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    return markdown


def on_files(files: Any, config: Any) -> Any:
    """mkdocs asks which files there are; the pages of elsewhere are added."""
    from mkdocs.structure.files import File

    pages = {page: moved((ROOT / source).read_text(encoding="utf-8")) for source, page in _TEXTS.items()}
    pages["cli.md"] = command_line()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files
