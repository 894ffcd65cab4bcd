"""Notations: how other people write their groups down. Files are read as data, nothing in them is run.

Three are read:

- Git Re-Basin's, as JSON or a Python literal: {group: [[tensor, axis], …]} or {tensor: [group or null per axis]};
- mergekit's architecture files, as JSON or YAML: weights with an input_space and an output_space;
- ours, as TOML (specs/known/*.toml):

      repeat = { i = 12 }                                 # {i} in a name counts 0…11, {i+1} is the next
      [[group]]
      name = "heads.{i}/v"                                # a group for every value; {a,b} in a place lists names
      size = 64
      copies = 12                                         # twelve independent ones
      places = ["layers.{i}.{v_proj.weight,v_proj.bias}[0] = c u", "layers.{i}.out_proj.weight[1] = c u"]

  What follows the = lays the axis out, slowest first: `u` the units, `c` the copies, a number what each owns,
  `*` as many as are left. Without it the units fill the axis. `@640` starts at coordinate 640. `, rows[0] = c 48`
  says that the order holds for those rows of another axis only (a grouped convolution). A letter of `repeat`
  that the name does not have is spelt out inside the group.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from permgraph.data_files import read_toml
from permgraph.errors import FileError, UsageError, reason
from permgraph.ir.files import refuse_special, strict_json
from permgraph.linter.foreign import Foreign, ForeignGroup, ForeignPlace

MAX_BYTES = 32 * 2**20
MAX_REPEAT = 10_000
MAX_DEPTH = 64
_PLACE = re.compile(
    r"(?P<tensor>[^\[\]\s]+)\[(?P<axis>\d+)\](?:\s*=\s*(?P<layout>[uc*\d ]+?))?(?:\s*@(?P<start>\d+))?"
    r"(?:\s*,\s*rows\[(?P<rows_axis>\d+)\]\s*=\s*(?P<rows>[uc*\d ]+))?"
)
_VARIABLE = re.compile(r"\{(\w+)([+-]\d+)?\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
Shapes = Mapping[str, tuple[int, ...]]


def read_foreign(path: str | Path, shapes: Shapes) -> Foreign:
    """Read a specification in any of the three notations.

    Args:
        shapes: tensors of the network it is about; mergekit's files leave the number of layers to it.

    Raises:
        FileError: the file is missing, too large or not what its name says.
        UsageError: it is data, and not a specification.
    """
    path = Path(path)
    data = _load(path)
    if not isinstance(data, dict):
        raise UsageError(
            f"{path}: expected a table of groups or tensors, found a {type(data).__name__}. {_FORMS}"
        )
    try:
        if path.suffix == ".toml":
            return Foreign("permgraph", tuple(_ours(data)), {k: v for k, v in data.items() if k != "group"})
        if "layer_templates" in data or "pre_weights" in data:
            return Foreign("mergekit", tuple(_mergekit(data, shapes)))
        return Foreign("git-re-basin", tuple(_re_basin(data)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not a specification ({error}). {_FORMS}") from error


_FORMS = (
    "Known are {group: [[tensor, axis], …]}, {tensor: [group or null per axis]}, mergekit's architecture files, "
    "and the notation of specs/known/*.toml."
)


def _load(path: Path) -> Any:
    try:
        refuse_special(path)
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path}: {path.stat().st_size:,} bytes is more than a specification can be.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot read: {reason(error)}.") from error
    try:
        if path.suffix == ".toml":
            return read_toml(path)
        if path.suffix in (".yaml", ".yml"):
            return _yaml(text)
        return strict_json(text) if path.suffix == ".json" else ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise FileError(f"{path}: not {path.suffix.lstrip('.') or 'a Python literal'}: {error}.") from error


def _yaml(text: str) -> Any:
    """YAML as plain data; aliases are refused, a few of them unfold to more than memory holds."""
    import yaml

    depths = itertools.accumulate({"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0) for character in text)
    if max(depths, default=0) > MAX_DEPTH:  # PyYAML takes minutes for some kilobytes of them
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("it uses aliases (*name); write them out")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _re_basin(data: dict[str, Any]) -> Iterator[ForeignGroup]:
    """Git Re-Basin (Ainsworth et al., 2023): perm_to_axes or axes_to_perm, whichever is there."""
    data = data.get("perm_to_axes", data.get("axes_to_perm", data))
    by_tensor = all(all(p is None or isinstance(p, str) for p in value) for value in data.values())
    found: dict[str, list[ForeignPlace]] = {}
    for name, value in data.items():
        if by_tensor:
            for axis, group in enumerate(value):
                if group is not None:
                    found.setdefault(group, []).append(ForeignPlace(name, axis))
            continue
        for tensor, axis in value:
            if not isinstance(tensor, str) or not isinstance(axis, int) or axis < 0:
                raise ValueError(f"group {name!r}: expected [tensor, axis], found {[tensor, axis]!r}")
            found.setdefault(name, []).append(ForeignPlace(tensor, axis))
    return (ForeignGroup(name, tuple(places)) for name, places in found.items())


def _mergekit(data: dict[str, Any], shapes: Shapes) -> Iterator[ForeignGroup]:
    """mergekit: a space that weights read from or write to is a group; the layers are those the network has."""
    templates = data.get("layer_templates", {}).get("weights", [])
    weights = [*data.get("pre_weights", []), *_layers(templates, shapes), *data.get("post_weights", [])]
    found: dict[str, list[ForeignPlace]] = {}
    for weight in weights:
        names = [weight["name"], *(weight.get("aliases") or ())]
        name = next((n for n in names if n in shapes), names[0])
        if weight.get("optional") and name not in shapes:
            continue
        vector = weight.get("is_vector") or len(shapes.get(name, (0, 0))) == 1
        flipped = bool(weight.get("is_embed"))  # rows of an embedding are tokens, its columns the space
        for key, axis in (("input_space", 1), ("output_space", int(flipped))):
            if weight.get(key):
                found.setdefault(weight[key], []).append(ForeignPlace(name, 0 if vector else axis))
    return (ForeignGroup(name, tuple(places)) for name, places in found.items())


def _layers(templates: list[dict[str, Any]], shapes: Shapes) -> Iterator[dict[str, Any]]:
    index = 0
    while any(t["name"].replace("${layer_index}", str(index)) in shapes for t in templates):
        for template in templates:
            yield {k: _numbered(v, index) for k, v in template.items()}
        index += 1


def _numbered(value: Any, index: int) -> Any:
    if isinstance(value, list):
        return [_numbered(v, index) for v in value]
    return value.replace("${layer_index}", str(index)) if isinstance(value, str) else value


def _ours(data: dict[str, Any]) -> Iterator[ForeignGroup]:
    for row in data["group"]:
        ranges = {**data.get("repeat", {}), **row.get("repeat", {})}
        named = [v for v in ranges if re.search(rf"\{{{re.escape(v)}(?:[+-]\d+)?\}}", row["name"])]
        for values in _every(named, ranges):
            places = [p for text in row["places"] for p in spelt_places(text, values, ranges)]
            size, copies = row.get("size"), row.get("copies", 1)
            if not places or copies < 1 or (size is None and "*" in places[0].layout) or (size or 1) < 1:
                raise ValueError(
                    f"group {row['name']!r}: give places, and a positive size beside a layout with *"
                )
            yield ForeignGroup(_filled(row["name"], values), tuple(places), size, copies)


def spelt_places(text: str, values: dict[str, int], ranges: dict[str, Any]) -> Iterator[ForeignPlace]:
    inside = [v for v in dict.fromkeys(m[1] for m in _VARIABLE.finditer(text)) if v not in values]
    for more in _every(inside, ranges):
        for spelt in _spelt(_filled(text, values | more)):
            match = _PLACE.fullmatch(spelt.strip())
            if match is None:
                raise ValueError(f"{text!r}: expected tensor[axis], or tensor[axis] = layout")
            yield ForeignPlace(
                match["tensor"],
                int(match["axis"]),
                tuple((match["layout"] or "").split()),
                _number(match["start"]),
                _number(match["rows_axis"]),
                tuple((match["rows"] or "").split()),
            )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _every(letters: list[str], ranges: dict[str, Any]) -> Iterator[dict[str, int]]:
    counted = [_range(ranges[letter]) for letter in letters]
    if math.prod(len(values) for values in counted) > MAX_REPEAT:
        raise ValueError(f"repeat: more than {MAX_REPEAT:,} combinations of {', '.join(letters)}")
    for values in itertools.product(*counted):
        yield dict(zip(letters, values, strict=True))


def _range(value: int | list[int]) -> list[int]:
    """12 is 0…11; a list says which."""
    if isinstance(value, int) and not 0 < value <= MAX_REPEAT:
        raise ValueError(f"repeat = {value}: from 1 to {MAX_REPEAT:,}")
    return list(range(value)) if isinstance(value, int) else list(value)


def _filled(text: str, values: dict[str, int]) -> str:
    return _VARIABLE.sub(lambda m: str(values[m[1]] + int(m[2] or 0)) if m[1] in values else m[0], text)


def _spelt(text: str) -> Iterator[str]:
    """Every reading of the {a,b} in a text."""
    match = _CHOICE.search(text)
    if match is None:
        yield text
        return
    for choice in match[1].split(","):
        yield from _spelt(text[: match.start()] + choice.strip() + text[match.end() :])
