"""The tree of modules that a drawing shows as frames inside each other, and what each box is called in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from permgraph.reporting.drawing.graph import Box


@dataclass
class Module:
    """A module with boxes.

    path     "encoder.layers.0"; "" for the network
    title    what its frame says: "layers.0-11"
    count    how many equal modules it stands for
    boxes    names of the boxes directly in it
    inside   modules in it, by path
    """

    path: str
    title: str = ""
    count: int = 1
    boxes: list[str] = field(default_factory=list)
    inside: dict[str, Module] = field(default_factory=dict)

    def all_boxes(self) -> list[str]:
        return self.boxes + [b for m in self.inside.values() for b in m.all_boxes()]

    def walk(self) -> Iterable[Module]:
        """All modules in it, itself not, those outside before those inside them."""
        for module in self.inside.values():
            yield module
            yield from module.walk()


@dataclass(frozen=True)
class Caption:
    """What a box is called, and how many equal ones it stands for."""

    title: str
    count: int = 1


def frames(
    boxes: Iterable[Box], copies: dict[str, int], titles: dict[str, str]
) -> tuple[Module, dict[str, Caption]]:
    """The frames around some boxes, and a caption for each box.

    A module with one box is that box, under a longer name; one with one module is a longer name for it.

    Args:
        copies, titles: how many modules a folded one stands for, and its title ("layers.0-11"), by path.
    """
    by_name = {box.name: box for box in boxes}
    root = tree(by_name.values(), copies)
    captions = {name: Caption(by_name[name].title) for name in by_name}
    _simplify(root, by_name, copies, titles, captions)
    return root, captions


def _simplify(
    module: Module,
    boxes: dict[str, Box],
    copies: dict[str, int],
    titles: dict[str, str],
    captions: dict[str, Caption],
) -> None:
    kept: dict[str, Module] = {}
    for child in module.inside.values():
        title = child.title or titles.get(child.path, last_level(child.path))
        while not child.boxes and len(child.inside) == 1 and child.path not in copies:
            (child,) = child.inside.values()
            title = _dotted(title, titles.get(child.path, last_level(child.path)))
        child.title, child.count = title, copies.get(child.path, 1)
        names = child.all_boxes()
        if len(names) == 1:
            captions[names[0]] = _caption(child, boxes[names[0]], copies)
            module.boxes.append(names[0])
        else:
            _simplify(child, boxes, copies, titles, captions)
            kept[child.path] = child
    module.inside = kept


def _caption(module: Module, box: Box, copies: dict[str, int]) -> Caption:
    rest = box.module.removeprefix(module.path).strip(".")
    own = box.title if box.kind != "weight" or rest else ""
    return Caption(_dotted(module.title, own), max(copies.get(p, 1) for p in (module.path, box.module)))


def _dotted(*parts: str) -> str:
    return ".".join(p for p in parts if p)


def tree(boxes: Iterable[Box], folded: dict[str, int]) -> Module:
    """The modules of some boxes. A weight stands in its module's parent, unless its module holds more boxes.

    A number is one level with the part before it ("layers.0"); a module in `folded` is always a level.
    """
    boxes = list(boxes)
    parents = {box.module.rpartition(".")[0] for box in boxes if box.module}
    root = Module("")
    for box in boxes:
        here = root
        for level in levels(home(box, parents, folded)):
            here = here.inside.setdefault(level, Module(level))
        here.boxes.append(box.name)
    return root


def home(box: Box, parents: Collection[str], folded: Collection[str]) -> str:
    """Path of the module in which a box stands; `parents` are the modules that hold modules with boxes."""
    path = "" if box.kind in ("port", "input", "output", "beyond") else box.module
    own = box.kind == "join" or path in folded
    own = own or any(p == path or p.startswith(f"{path}.") for p in parents)
    return path if own else path.rpartition(".")[0]


def levels(path: str) -> list[str]:
    """Paths of the modules on the way to `path`: "a.b.0.c" gives a, a.b.0, a.b.0.c."""
    parts = path.split(".") if path else []
    ends = [i + 1 for i in range(len(parts)) if i + 1 == len(parts) or not parts[i + 1].isdecimal()]
    return [".".join(parts[:end]) for end in ends]


def last_level(path: str) -> str:
    """The last level of a path: "b.0" of "a.b.0", "c" of "a.b.0.c"."""
    above = levels(path)[-2:-1]
    return path.removeprefix(f"{above[0]}." if above else "")
