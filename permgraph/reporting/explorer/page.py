"""The page: one HTML file that shows a network, its groups and what a matching has made of them. No network needed.

Names come from models and are not trusted. They are data: JSON that no browser runs, put into the page as text
nodes. The policy of the page allows the one script and the one style that are in it, by their digests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from permgraph.ir.files import write_bytes
from permgraph.reporting.drawing import fonts
from permgraph.reporting.text import clean

_ASSETS = Path(__file__).with_name("assets")
# In the order in which they use each other. Dagre (MIT, dagre.LICENSE) lays out.
_SCRIPTS = ("visible", "cards", "layout", "render", "results", "panel", "viewport", "main")


def page(model: dict[str, Any]) -> str:
    """The page for what `explorer.model.model` returned, with "results" where permutations are given."""
    style = fonts.css() + _asset("page.css")
    script = _script()
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = json.dumps({**model, "widths": fonts.widths()}, ensure_ascii=False, separators=(",", ":"))
    return Template(_asset("page.html")).substitute(
        policy=policy,
        title=escape(clean(str(model["model"]), 100)),
        style=style,
        script=script,
        # "<" would let a name end the element or begin a comment in it
        data=data.replace("<", "\\u003c").encode("utf-8", "backslashreplace").decode(),
    )


def write(model: dict[str, Any], path: str | Path, force: bool = True) -> Path:
    """Write the page; `force` replaces a file. Raises FileError."""
    write_bytes(page(model).encode(), path, force)
    return Path(path)


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    own = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    read = 'const DATA = JSON.parse(document.getElementById("data").textContent);'
    library = _asset("dagre.min.js").partition("//# sourceMappingURL")[0]
    licence = _asset("dagre.LICENSE").replace("*/", "")
    return f'/*! dagre\n{licence}*/\n{library}\n(() => {{\n"use strict";\n{read}\n{own}}})();\n'


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
