"""What the report in a file of permutations has to hold where it is printed; it may hold more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from permgraph.ir.codec import Mismatch

Fields = Mapping[str, tuple[type, ...]]

_NUMBER: tuple[type, ...] = (int, float)
_MAYBE: tuple[type, ...] = (int, float, type(None))
_LIST: tuple[type, ...] = (list, tuple)
_ROW: Fields = {"role": (str,), "units": (int,), "moved": _NUMBER}
_ROW_MAY: Fields = {
    **dict.fromkeys(("by_chance", "dead_a", "dead_b", "correlation", "identity", "shuffled"), _MAYBE),
    **{"observed": (str,), "warnings": _LIST},
}
_SOURCE: Fields = {"files": (int,), "clips": (int,), "seconds": _NUMBER, "dropped": (dict,)}
_CALIBRATION_MAY: Fields = {"seconds": _NUMBER, "data": _LIST, "audio": _LIST, "sources": (dict,)}
_CHECK_MAY: Fields = {
    **dict.fromkeys(("change", "limit", "noise", "nan", "rounding"), _NUMBER),
    **{"trials": (int,), "control": _MAYBE, "remedy": (str,)},
    **dict.fromkeys(("random", "groups", "tensors"), _LIST),
}
_REPORT_MAY: Fields = {"groups": (dict,), "calibration": (dict,), "function_check": (dict,), "read_as": _LIST}


def check_report(report: Mapping[str, Any]) -> None:
    """Raises Mismatch, whose text begins with the path of the field."""
    _fits("report", report, {}, _REPORT_MAY)
    for where, row in _objects("report.groups", report.get("groups", {})):
        _fits(where, row, _ROW, _ROW_MAY)
        if row["units"] < 1:
            raise Mismatch(f"{where}.units: a group has units, found {row['units']}")
        _texts(f"{where}.warnings", row.get("warnings", ()))
    _texts("report.read_as", report.get("read_as", ()))
    calibration = report.get("calibration", {})
    _fits("report.calibration", calibration, {}, _CALIBRATION_MAY)
    for where, used in _objects("report.calibration.sources", calibration.get("sources", {})):
        _fits(where, used, _SOURCE, {})
    for key in ("data", "audio"):
        _texts(f"report.calibration.{key}", calibration.get(key, ()))
    _fits("report.function_check", report.get("function_check", {}), {}, _CHECK_MAY)


def _objects(where: str, rows: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, row in rows.items():
        if type(row) is not dict:
            raise Mismatch(f"{where}[{name[:100]!r}]: expected an object")
        yield f"{where}[{name[:100]!r}]", row


def _fits(where: str, row: Mapping[str, Any], needed: Fields, may: Fields) -> None:
    for key in needed:
        if key not in row:
            raise Mismatch(f"{where}: field {key!r} is missing")
    for key, kinds in {**needed, **may}.items():
        if key in row and type(row[key]) not in kinds:
            raise Mismatch(f"{where}.{key}: expected {' or '.join(kind.__name__ for kind in kinds)}")


def _texts(where: str, values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise Mismatch(f"{where}: expected a list of texts")
