"""The stored results of `tools/zoo.py`: reading, counting, and the table in docs/zoo.md."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Records = dict[tuple[str, str], Record]
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "zoo.jsonl"
TABLE = ROOT / "docs" / "zoo.md"
FOLDERS = ROOT / "docs" / "folders.md"


def load(path: Path = RESULTS) -> Records:
    if not path.exists():
        return {}
    rows = [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
    return {(row["collection"], row["model"]): row for row in rows}


def save(records: Records, path: Path = RESULTS) -> None:
    """All results, sorted, without what is empty, written whole beside the file and renamed."""
    rows = [{k: v for k, v in records[key].items() if v not in ({}, None)} for key in sorted(records)]
    text = "".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def captured(record: Record) -> bool:
    return not record["status"].startswith("not ")


def complete(record: Record) -> bool:
    """Captured, inferred and verified with no op lacking a rule and nothing held for want of a reading, and no exchange
    outside the group, where that was tried."""
    whole = not record.get("unknown") and not record.get("frozen")
    return record["status"] == "ok" and whole and not record.get("bound", {}).get("beyond")


def bounded(record: Record) -> bool:
    """Whether exchanges outside the group were tried to the end."""
    return "beyond" in record.get("bound", {})


@cache
def rules_digest() -> str:
    """16 hex digits of the code that captures networks and infers their groups, without comments and docstrings."""
    digest = hashlib.sha256()
    for room in ("frontend", "axes", "symmetry"):
        for path in sorted((ROOT / "permgraph" / room).rglob("*.py")):
            digest.update(
                path.relative_to(ROOT).as_posix().encode() + _code(path.read_text(encoding="utf-8"))
            )
    return digest.hexdigest()[:16]


def _code(text: str) -> bytes:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree).encode()


def is_stale(record: Record) -> bool:
    """Whether other code than today's made the row."""
    return str(record.get("made", {}).get("rules")) != rules_digest()


def summary(records: Records) -> dict[str, Any]:
    """Counts over all collections, and per collection."""
    rows = list(records.values())
    made = [
        f"{name} {v}" for r in rows for name, v in r.get("made", {}).items() if name not in ("date", "rules")
    ]
    dates = [r["made"]["date"] for r in rows if "made" in r]
    return {
        **_counts(rows),
        "versions": sorted(set(made)),
        "date": max(dates, default=""),
        "collections": {
            c: _counts([r for r in rows if r["collection"] == c]) for c, _ in _by_collection(rows)
        },
    }


def _by_collection(rows: list[Record]) -> list[tuple[str, list[Record]]]:
    names = sorted({r["collection"] for r in rows})
    return [(n, [r for r in rows if r["collection"] == n]) for n in names]


def _counts(rows: list[Record]) -> dict[str, int]:
    return {
        "models": len(rows),
        "captured": sum(map(captured, rows)),
        "unsound": sum(r["status"] == "unsound" for r in rows),
        "complete": sum(map(complete, rows)),
        "bounded": sum(map(bounded, rows)),
        "beyond": sum(bounded(r) and r["bound"]["beyond"] > 0 for r in rows),
        "failed": sum(r["status"].startswith("failed") for r in rows),
        "not_captured": sum(r["status"] == "not captured" for r in rows),
        "random": sum(bool(r.get("random")) for r in rows),
        "stale": sum(map(is_stale, rows)),
        "not_built": sum(r["status"] == "not built" for r in rows),
    }


def write_table(records: Records, path: Path = TABLE) -> None:
    """docs/zoo.md: the counts, why the rest was not captured, and one row per network."""
    rows = list(records.values())
    counts = summary(records)
    parts = [
        "# The zoo\n\nWritten by `python tools/zoo.py --table` from `docs/zoo.jsonl`; do not edit.\n",
        f"Last run {counts['date']} with {', '.join(counts['versions'])}.\n",
        "A network is *complete* when no op lacks a rule and every free point was read as part of a group, "
        "and no exchange outside the group was found. *Bounded*: of so many (small) networks such exchanges were tried by "
        "brute force on random weights: of the first two units of every size that divides an axis, on those sets of axes that "
        "gradients tell to hold together, and on every set where few axes are left (`tools/oracles/bound.py`); *beyond*: some "
        "were found. "
        "*Error* is the largest relative change of any output, in float64, under a random element of the whole "
        "group (two seeds); where rounding alone changes an ill-conditioned network by more than 1e-9, a hundred times "
        "that is allowed, and given. Every group moves in each of them. *Random*: networks that draw random values; constants "
        "stand for those. *Stale*, and † in a row: made by other code of frontend, axes or symmetry than today's. "
        "Where such a row is run again and the same groups and places are inferred, its function check holds and is not repeated. "
        "*Not built*: the tool found no small configuration or input.\n",
        _counts_table(counts),
        _beyond([r for r in rows if r.get("bound", {}).get("beyond")]),
    ]
    for name, mine in _by_collection(rows):
        parts += [f"## {name}\n", _rows([r for r in mine if captured(r)]), _reasons(mine)]
    path.write_text("\n".join(parts))


def _counts_table(counts: dict[str, Any]) -> str:
    keys = [k for k in _counts([])]
    head = (
        "| collection | " + " | ".join(k.replace("_", " ") for k in keys) + " |\n|---|" + "---:|" * len(keys)
    )
    body = [(name, c) for name, c in counts["collections"].items()] + [("all", counts)]
    return "\n".join([head, *(f"| {n} | " + " | ".join(str(c[k]) for k in keys) + " |" for n, c in body), ""])


def _beyond(rows: list[Record]) -> str:
    """Networks of which exchanges outside the group were found, and what the spec says of these axes."""
    if not rows:
        return ""
    head = "| beyond | exchanges | on, for example | what the spec says of these axes |\n|---|---:|---|---|"
    lines = [
        f"| {r['model']} | {r['bound']['beyond']} | {', '.join(r['bound']['axes'][0])} "
        f"| {'; '.join(r['bound'].get('said', [])) or 'nothing'} |"
        for r in rows
    ]
    return "\n".join([head, *lines, ""])


def _rows(rows: list[Record]) -> str:
    head = (
        "| model | class | parameters | groups | log10 order | error | no rule for | frozen "
        "| export s | infer s | verify s |\n|---|---|---:|---:|---:|---:|---|---:|---:|---:|---:|"
    )
    return "\n".join([head, *map(_row, rows), ""])


def _row(r: Record) -> str:
    seconds = r.get("seconds", {})
    error = f"{r['error']:.0e}" if "error" in r else r["status"]
    error += f" (rounding: {r['limit']:.0e})" if "limit" in r else ""
    unknown = ", ".join(f"{op} ×{n}" for op, n in sorted(r.get("unknown", {}).items()))
    numbers = [f"{seconds[s]:.1f}" if s in seconds else "" for s in ("capture", "infer", "verify")]
    cells = [
        r["model"] + (" †" if is_stale(r) else ""),
        r.get("kind", ""),
        f"{r.get('params', 0):,}",
        r.get("groups", ""),
        r.get("log10_order", ""),
    ]
    return "| " + " | ".join(map(str, [*cells, error, unknown, r.get("frozen", ""), *numbers])) + " |"


def _reasons(rows: list[Record]) -> str:
    left = [r for r in rows if not captured(r)]
    if not left:
        return ""
    head = "| not captured | where | reason |\n|---|---|---|"
    lines = [
        f"| {r['model']} | {r['status']} | {r.get('reason', '').replace('|', '/')[:160]} |" for r in left
    ]
    kinds = Counter(r["status"] for r in left)
    told = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return "\n".join([f"{told}:\n", head, *lines, ""])


def write_folders(records: Records, path: Path = FOLDERS) -> None:
    """docs/folders.md: the counts, one row per network whose folder was checked, and why the others were not."""
    rows = [records[key] for key in sorted(records) if key[0] == "transformers"]
    tried = [r for r in rows if "folder" in r]
    counts = Counter(r["folder"]["status"] for r in tried)
    columns = ("model", "class", "groups", "stored", "shards", "renamed", "fused", "result")
    body = [
        [
            r["model"],
            r.get("kind", ""),
            r.get("groups", ""),
            *(r["folder"].get(k, "") for k in columns[3:7]),
            r["folder"]["status"],
        ]
        for r in tried
    ]
    left = [(r["model"], r["folder"]["status"], r["folder"].get("reason", "")) for r in tried]
    left += [(r["model"], r["status"], r.get("reason", "")) for r in rows if "folder" not in r]
    parts = [
        "# Model folders of transformers\n\nWritten by `python tools/zoo.py --table` from `docs/zoo.jsonl`; do not edit.\n",
        f"Of {len(rows)} networks {len(tried)} were tried: {', '.join(f'{n} {s}' for s, n in counts.most_common())}.\n",
        "*ok*: the folder that `save_pretrained` wrote was permuted by a random element of the whole group, and "
        "`from_pretrained` gave the tensors of `permgraph.apply` on the network's own state, bit for bit, under the keys they "
        "had. *Renamed* and *fused* count the stored tensors that have another name in the model, and the model's tensors "
        "made of several (or the reverse). *Not reloaded*: transformers itself does not load what it saved.\n",
        _table(columns, body),
        _table(("not ok", "where", "reason"), [(m, s, why[:160]) for m, s, why in left if s != "ok"]),
    ]
    path.write_text("\n".join(parts))


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(str(c).replace("|", "/") for c in row) + " |\n" for row in cells)
