"""Codec: frozen dataclasses as strict JSON and back. The annotations of the fields are the format.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Point:
...     at: tuple[int, ...]
>>> encode(Point((1, 2)))
{'at': [1, 2]}
>>> decode(Point, {"at": [1, "x"]})
Traceback (most recent call last):
    ...
permgraph.ir.codec.Mismatch: at[1]: expected int, found "x"

A file holds every field; an unknown or a missing one is refused. `Any` is a literal: null, a boolean, a number, a
string, a tuple, a list, a dict with string keys, or a dataclass marked by `literal`. A list or dict in there is
written {"list": [...]} or {"dict": {...}}; a float that JSON lacks is {"float": "inf"} anywhere. A field with the
metadata NOT_IN_FILE is neither written nor read; a method `completed` then gives the value with it filled in.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Function = Callable[[Any], Any]

NOT_IN_FILE = {"file": False}
MAX_DEPTH = 64  # of nested literals
MAX_INT = 2**63  # what numpy and torch hold
_LITERALS: dict[str, type] = {}
_NOT_FINITE = ("inf", "-inf", "nan")


class Mismatch(ValueError):
    """Data that does not fit the annotations. Its text begins with the path of the field."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text, self.path = text, ""

    def under(self, step: str) -> None:
        """Put one more step before the path."""
        self.path = step + self.path

    def __str__(self) -> str:
        path = self.path.removeprefix(".")
        return f"{path}: {self.text}" if path else self.text


def literal(cls: type[T]) -> type[T]:
    """Let values of a dataclass stand in fields of type `Any`, as {"name of the class": {fields}}."""
    _LITERALS[cls.__name__.lower()] = cls
    return cls


def encode(value: Any) -> Any:
    """A dataclass as what `json.dumps` writes."""
    kind: Any = type(value)
    return _writer(kind)(value)


def decode(kind: type[T], data: Any) -> T:
    """The dataclass that `encode` made this of. Raises Mismatch."""
    wanted: Any = kind
    value: T = _reader(wanted)(data)
    return value


@cache
def _fields(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if f.metadata.get("file", True)}


@cache
def _writer(kind: Any) -> Function:
    arguments = get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        rows = [(name, _writer(hint)) for name, hint in _fields(kind).items()]
        return lambda value: {name: write(getattr(value, name)) for name, write in rows}
    if get_origin(kind) is tuple and set(arguments) <= {int, str, Ellipsis}:
        return list
    if get_origin(kind) is tuple:
        write_item = _writer(arguments[0])
        return lambda value: [write_item(item) for item in value]
    if get_origin(kind) is dict:
        write_value = _writer(arguments[1])
        return lambda value: {key: write_value(item) for key, item in value.items()}
    if get_origin(kind) in (Union, types.UnionType):
        write_some = _writer(_some(kind))
        return lambda value: None if value is None else write_some(value)
    return _write_literal if kind in (Any, float) else lambda value: value


def _write_literal(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, tuple):
        return [_write_literal(item) for item in value]
    if isinstance(value, list):
        return {"list": [_write_literal(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": {key: _write_literal(item) for key, item in value.items()}}
    if type(value) in _LITERALS.values():
        return {type(value).__name__.lower(): encode(value)}
    return value


@cache
def _reader(kind: Any) -> Function:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _read_literal
    if kind is int or kind is float:
        return _read_int if kind is int else _read_float
    if origin is tuple and arguments[0] is int:
        return _read_ints
    if origin is tuple:
        return _tuple_reader(_reader(arguments[0]))
    if origin is dict:
        return _dict_reader(_reader(arguments[1]))
    if origin in (Union, types.UnionType):
        read_some = _reader(_some(kind))
        return lambda data: None if data is None else read_some(data)
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_reader(kind)
    return lambda data: data if type(data) is kind else _wrong(kind.__name__, data)


def _dataclass_reader(cls: type) -> Function:
    readers = {name: _reader(hint) for name, hint in _fields(cls).items()}
    completed: Function = getattr(cls, "completed", lambda value: value)

    def read(data: Any) -> Any:
        if type(data) is not dict:
            _wrong("an object", data)
        if data.keys() != readers.keys():
            _refuse_fields(data, readers)
        values = {}
        name = ""
        try:
            for name, reader in readers.items():
                values[name] = reader(data[name])
        except Mismatch as error:
            error.under(f".{name}")
            raise
        return completed(cls(**values))

    return read


def _tuple_reader(read_item: Function) -> Function:
    def read(data: Any) -> Any:
        if type(data) is not list:
            _wrong("a list", data)
        values: list[Any] = []
        try:
            for item in data:
                values.append(read_item(item))
        except Mismatch as error:
            error.under(f"[{len(values)}]")
            raise
        return tuple(values)

    return read


def _dict_reader(read_value: Function) -> Function:
    def read(data: Any) -> Any:
        if type(data) is not dict:
            _wrong("an object", data)
        values = {}
        key = ""
        try:
            for key, item in data.items():
                values[key] = read_value(item)
        except Mismatch as error:
            error.under(f"[{key!r}]")
            raise
        return values

    return read


def _read_int(data: Any) -> Any:
    if type(data) is not int:
        _wrong("int", data)
    if not -MAX_INT <= data < MAX_INT:
        raise Mismatch("an integer of more than 64 bits")
    return data


def _read_ints(data: Any) -> tuple[int, ...]:
    """Long lists of integers are most of a large file: checked as a whole, and one by one only to name a wrong one."""
    if type(data) is list and set(map(type, data)) == {int} and -min(data) <= MAX_INT > max(data):
        return tuple(data)
    values: tuple[int, ...] = _tuple_reader(_read_int)(data)
    return values


def _read_float(data: Any) -> Any:
    if type(data) is dict and data.keys() == {"float"} and data["float"] in _NOT_FINITE:
        return float(data["float"])
    if type(data) is int:
        data = float(_read_int(data))
    if type(data) is not float:
        _wrong("a number", data)
    if not math.isfinite(data):  # 1e999
        raise Mismatch("a number of more than 64 bits")
    return data


def _read_literal(data: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise Mismatch(f"nested more than {MAX_DEPTH} deep")
    kind = type(data)
    if kind is int:
        return _read_int(data)
    if kind is float:
        return _read_float(data)
    if kind is list:
        return _tuple_reader(lambda item: _read_literal(item, depth + 1))(data)
    if kind is dict:
        return _read_tagged(data, depth + 1)
    return data


def _read_tagged(data: dict[str, Any], depth: int) -> Any:
    tag, inner = next(iter(data.items())) if len(data) == 1 else ("", None)
    try:
        if tag == "dict":
            return _dict_reader(lambda item: _read_literal(item, depth))(inner)
        if tag == "list":
            return list(_tuple_reader(lambda item: _read_literal(item, depth))(inner))
        if tag in _LITERALS:
            return decode(_LITERALS[tag], inner)
    except Mismatch as error:
        error.under(f".{tag}")
        raise
    if tag == "float":
        return _read_float(data)
    return _wrong(f"one of {', '.join(['dict', 'list', 'float', *_LITERALS])}", data)


def _some(kind: Any) -> Any:
    """The X of X | None."""
    (some,) = (a for a in get_args(kind) if a is not type(None))
    return some


def _refuse_fields(data: dict[str, Any], known: dict[str, Function]) -> None:
    for name in data:
        if name not in known:
            raise Mismatch(f"unknown field {_shown(name)}")
    missing = next(name for name in known if name not in data)
    raise Mismatch(f"field {missing!r} is missing")


def _wrong(expected: str, data: Any) -> Any:
    raise Mismatch(f"expected {expected}, found {_shown(data)}")


def _shown(data: Any) -> str:
    """A value as in JSON's words, cut short; never the whole of a large one."""
    if isinstance(data, dict):
        return "an object"
    if isinstance(data, list):
        return "a list"
    text = json.dumps(data) if not isinstance(data, (int, float)) or abs(data) < MAX_INT else "a large number"
    return text if len(text) <= 60 else f"{text[:57]}…"
