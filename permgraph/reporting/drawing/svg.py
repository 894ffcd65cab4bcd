"""DOT to SVG, in a process of its own that is stopped when it takes too long.

The wheels of pygraphviz carry Graphviz, so no system package is needed; `dot` is used when it is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from permgraph.errors import FileError
from permgraph.ir.files import write_bytes

_BUNDLED = (
    "import sys, pygraphviz\n"
    "graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())\n"
    "sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog='dot'))\n"
)


def render(dot: str, path: str | Path, timeout: float = 60) -> Path:
    """Lay out `dot` and write it to `path`: .svg, or .dot for the text itself.

    Returns the path written. Raises FileError when the layout fails or takes more than `timeout` seconds; the
    DOT text is then beside `path`, for another tool.
    """
    path = Path(path)
    if path.suffix in (".dot", ".gv"):
        write_bytes(dot.encode(), path)
        return path
    if path.suffix != ".svg":
        raise FileError(f"{path}: cannot draw a {path.suffix or 'file without suffix'}. Use .svg or .dot.")
    picture, problem = _lay_out(dot, timeout)
    if picture is None:
        text = path.with_suffix(".dot")
        write_bytes(dot.encode(), text)
        raise FileError(
            f"{path}: {problem}. Wrote {text} instead; fold repeated layers, or lay it out elsewhere."
        )
    write_bytes(picture, path)
    return path


def _lay_out(dot: str, timeout: float) -> tuple[bytes | None, str]:
    """The SVG, or None and what went wrong."""
    system = shutil.which("dot")
    command = [system, "-Tsvg"] if system else [sys.executable, "-c", _BUNDLED, "svg"]
    try:
        done = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return None, f"the layout took more than {timeout:g} s"
    except OSError as error:
        return None, f"{command[0]} does not start: {error.strerror or error}"
    if done.returncode or not done.stdout.rstrip().endswith(b"</svg>"):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no picture came out"]
        return None, f"Graphviz failed: {last[0]}"
    return done.stdout, ""
