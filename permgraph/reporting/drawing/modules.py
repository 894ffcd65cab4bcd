"""The tree of modules that a drawing shows as clusters inside each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from permgraph.reporting.drawing.graph import Box


@dataclass
class Module:
    """A module with boxes: the names of those directly in it, and the modules in it."""

    path: str
    boxes: list[str] = field(default_factory=list)
    inside: dict[str, Module] = field(default_factory=dict)

    def all_boxes(self) -> list[str]:
        return self.boxes + [b for m in self.inside.values() for b in m.all_boxes()]


def tree(boxes: Iterable[Box], folded: dict[str, int]) -> Module:
    """The modules of some boxes. A weight stands in its module's parent, unless its module holds more boxes.

    A number is one level with the part before it ("layers.0"); a module in `folded` is always a level.
    """
    boxes = list(boxes)
    parents = {box.module.rpartition(".")[0] for box in boxes if box.module}
    root = Module("")
    for box in boxes:
        path = "" if box.kind in ("sign", "input", "output") else box.module
        own = box.kind in ("join", "tag") or path in folded
        own = own or any(p == path or p.startswith(f"{path}.") for p in parents)
        here = root
        for level in levels(path if own else path.rpartition(".")[0]):
            here = here.inside.setdefault(level, Module(level))
        here.boxes.append(box.name)
    return root


def levels(path: str) -> list[str]:
    """Paths of the modules on the way to `path`: "a.b.0.c" gives a, a.b.0, a.b.0.c."""
    parts = path.split(".") if path else []
    ends = [i + 1 for i in range(len(parts)) if i + 1 == len(parts) or not parts[i + 1].isdecimal()]
    return [".".join(parts[:end]) for end in ends]


def last_level(path: str) -> str:
    """The last level of a path: "b.0" of "a.b.0", "c" of "a.b.0.c"."""
    above = levels(path)[-2:-1]
    return path.removeprefix(f"{above[0]}." if above else "")
