"""The permutation graph for Google's Model Explorer, with the groups as overlays of edges.

The JSON of a graph collection (model_explorer/graph_builder.py of https://github.com/google-ai-edge/model-explorer),
in which the `tasksData` of a graph hold overlays of edges: one for each group.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx

from permgraph.ir.files import write_bytes
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.reporting.drawing import facts
from permgraph.reporting.drawing.cards import Look
from permgraph.reporting.drawing.graph import Box, Layout, Wire, build
from permgraph.reporting.text import clean


def collection(trace: Trace, spec: PermSpec, plan: Plan | None = None) -> dict[str, Any]:
    """The graph collection: {"label", "graphs"} as Model Explorer's schema has it."""
    graph, look = build(trace, spec, plan), Look(spec, plan)
    ids = {name: str(i) for i, name in enumerate(graph)}
    nodes = [_node(graph, name, ids) for name in graph]
    overlays = [
        overlay for group in spec.groups if (overlay := _overlay(graph, group.name, look, ids))["edges"]
    ]
    data = {"type": "edge_overlays", "name": "Permutation groups", "overlays": overlays}
    tasks = {"edgeOverlaysDataListLeftPane": [data]}
    label = clean(trace.model, 200)
    return {"label": label, "graphs": [{"id": label, "nodes": nodes, "tasksData": tasks}]}


def write(data: dict[str, Any], path: str | Path, force: bool = True) -> Path:
    """Write the JSON; `force` replaces a file. Raises FileError."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    write_bytes(text.encode("utf-8", "backslashreplace"), path, force)
    return Path(path)


def _node(graph: nx.DiGraph, name: str, ids: dict[str, str]) -> dict[str, Any]:
    box: Box = graph.nodes[name]["box"]
    edges = [
        {"sourceNodeId": ids[tail], "sourceNodeOutputId": "0", "targetNodeInputId": str(i)}
        for i, tail in enumerate(graph.predecessors(name))
    ]
    lines = facts.of_box(box).splitlines()
    return {
        "id": ids[name],
        "label": clean(box.title, 200),
        "namespace": clean(box.module.rpartition(".")[0].replace(".", "/"), 300),
        "incomingEdges": edges,
        "attrs": [{"key": f"{i:02}", "value": line} for i, line in enumerate(lines)],
    }


def _overlay(graph: nx.DiGraph, group: str, look: Look, ids: dict[str, str]) -> dict[str, Any]:
    def carries(layouts: frozenset[Layout]) -> bool:
        return any(group in layout for layout in layouts)

    wires: list[tuple[str, str, Wire]] = list(graph.edges(data="wire"))
    edges = [
        {"sourceNodeId": ids[a], "targetNodeId": ids[b], "label": clean(group, 100)}
        for a, b, wire in wires
        if carries(wire.layouts)
    ]
    return {"name": clean(group, 100), "edges": edges, "edgeColor": look.inks[group].colour, "edgeWidth": 2}
