"""Graphviz as a layout engine: sizes in, positions out. In a process of its own, stopped when it takes too long.

The wheels of pygraphviz carry Graphviz, so that no system package is needed and every machine lays out alike.
Only sizes and ids of our own go in: a name from a model never stands where DOT has syntax, and no font of
Graphviz's is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from permgraph.errors import FileError
from permgraph.reporting.drawing.scene import Point

_CODE = (
    "import json, sys, pygraphviz\n"
    "job = json.load(sys.stdin)\n"
    "for text in job['graphs']:\n"
    "    graph = pygraphviz.AGraph(string=text)\n"
    "    out = graph.draw(format=job['format'], prog=job['engine'])\n"
    "    sys.stdout.buffer.write(len(out).to_bytes(8, 'big') + out)\n"
)


class LayoutError(FileError):
    """Graphviz failed or took too long."""


@dataclass(frozen=True)
class Positions:
    """Where Graphviz has put things, in pixels from the upper left corner.

    nodes    id → centre
    frames   id of a cluster → left, top, right, bottom
    wires    (tail, head) → points of a chain of Bézier curves
    """

    width: float
    height: float
    nodes: dict[str, Point]
    frames: dict[str, tuple[float, float, float, float]]
    wires: dict[tuple[str, str], tuple[Point, ...]]


def run(
    graphs: Sequence[str],
    form: str = "json",
    engine: str = "dot",
    timeout: float = 60,
    environment: dict[str, str] | None = None,
) -> list[bytes]:
    """What Graphviz makes of each graph. Raises LayoutError."""
    job = json.dumps({"graphs": list(graphs), "format": form, "engine": engine}).encode()
    command = [sys.executable, "-c", _CODE]
    try:
        done = subprocess.run(
            command,
            input=job,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise LayoutError(f"the layout took more than {timeout:g} s") from error
    except OSError as error:
        raise LayoutError(f"{command[0]} does not start: {error.strerror or error}") from error
    found = _parted(done.stdout)
    if done.returncode or len(found) != len(graphs):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no picture came out"]
        raise LayoutError(f"Graphviz failed: {last[0]}")
    return found


def _parted(output: bytes) -> list[bytes]:
    found = []
    while len(output) >= 8:
        size = int.from_bytes(output[:8], "big")
        found.append(output[8 : 8 + size])
        output = output[8 + size :]
    return found


def positions(graphs: Sequence[str], timeout: float = 60) -> list[Positions]:
    """Lay out each graph. Raises LayoutError."""
    return [_positions(json.loads(text)) for text in run(graphs, timeout=timeout)]


def _positions(data: dict[str, Any]) -> Positions:
    _, _, width, height = _numbers(data["bb"])
    objects = data.get("objects", [])
    nodes = {o["name"]: _flip(_numbers(o["pos"]), height)[0] for o in objects if "pos" in o}
    frames = {}
    for o in objects:
        if o["name"].startswith("cluster_") and "bb" in o:
            left, bottom, right, top = _numbers(o["bb"])
            frames[o["name"]] = (left, height - top, right, height - bottom)
    names = {o["_gvid"]: o["name"] for o in objects}
    wires = {
        (names[e["tail"]], names[e["head"]]): _spline(e["pos"], height)
        for e in data.get("edges", [])
        if "pos" in e
    }
    return Positions(width, height, nodes, frames, wires)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.replace(",", " ").split()]


def _flip(numbers: list[float], height: float) -> tuple[Point, ...]:
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple((round(x, 2), round(height - y, 2)) for x, y in pairs)


def _spline(text: str, height: float) -> tuple[Point, ...]:
    """Points "x0,y0 x1,y1 …" of a wire without arrow heads."""
    return _flip(_numbers(text), height)
