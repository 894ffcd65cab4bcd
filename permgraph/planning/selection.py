"""Select: from what a user types after --groups to the names of groups.

cnn,heads,ffn2        words and roles (specs/presets/words.toml)
ffn.3  ffn.0-5        a group, a range of groups
heads.*/v             a glob over names
cnn+ffn+attn          a preset (specs/presets/*.toml)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from permgraph.data_files import read_toml, specs
from permgraph.errors import SelectionError, nearest
from permgraph.ir.spec import PermSpec

_RANGE = re.compile(r"(?P<role>[\w/]+)\.(?P<first>\d+)-(?P<last>\d+)(?P<inner>/.+)?")


@dataclass(frozen=True)
class Selection:
    """Names of the chosen groups in graph order, and where each is to be observed when the words say so.

    notes  what was typed twice, for the user to see
    """

    names: tuple[str, ...]
    taps: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@cache
def words() -> dict[str, dict[str, Any]]:
    """The table of words: {word: {roles, tap, about}}."""
    return read_toml(specs() / "presets" / "words.toml")


@cache
def presets() -> dict[str, dict[str, str]]:
    """The presets by name: {name: {groups, about}}."""
    files = sorted((specs() / "presets").glob("*.toml"))
    return {f.stem: read_toml(f) for f in files if f.stem != "words"}


def select(spec: PermSpec, groups: str, exclude: str = "") -> Selection:
    """Resolve a selection.

    Raises:
        SelectionError: a term names no group; it says which, the nearest names, and what holds the units in
            place when the role exists but is pinned.
    """
    chosen: dict[str, None] = {}
    taps: dict[str, str] = {}
    notes = []
    terms = _terms(groups)
    if not terms and groups.strip() not in presets():
        raise SelectionError(f"--groups {groups!r}: nothing is selected. {_menu(spec)}")
    for term in terms:
        names = _with_inner(spec, _resolve(spec, term))
        tap = words().get(term, {}).get("tap")
        for name in names:
            if tap and taps.setdefault(name, tap) != tap:
                raise SelectionError(
                    "ffn1 and ffn2 name the same units, observed at two places: choose one of them."
                )
        if names and all(n in chosen for n in names):
            notes.append(f"{term!r} is selected already")
        chosen.update(dict.fromkeys(names))
    for term in _terms(exclude):
        for name in _resolve(spec, term, "-x"):
            chosen.pop(name, None)
    order = tuple(g.name for g in spec.groups if g.name in chosen)
    return Selection(order, {k: v for k, v in taps.items() if k in chosen}, tuple(notes))


def refuse_unknown_terms(groups: str, exclude: str = "", option: str = "--groups") -> None:
    """Typos that show without a network: neither a word, a preset, nor of a role that exists. Raises SelectionError."""
    from permgraph.symmetry.names import ROLES  # with what infers groups: not needed for the groups of a file

    known = [*words(), *presets(), *ROLES]
    for typed, text in ((option, groups), ("-x", exclude)):
        for term in _terms(text):
            root = re.split(r"[./]", term)[0]
            if term not in known and root not in ROLES and not any(c in term for c in "*?["):
                raise SelectionError(
                    f"{typed} {term}: no such group, role, word or preset.{nearest(term, known)} "
                    f"Roles: {', '.join(ROLES)}. Presets: {', '.join(presets())}."
                )


def _with_inner(spec: PermSpec, names: list[str]) -> list[str]:
    """Groups with all that live within them: `residual` brings `residual/inner`.

    Where a word has the name of a group's role it says what belongs together: `heads`, and so `heads.3`, brings the
    value channels and not the queries and keys.
    """
    brought, chosen = dict.fromkeys(names), set(names)
    for group in spec.groups:
        for parent in spec.ancestors(group):
            roles = words().get(parent.role, {"roles": ["*"]})["roles"]
            if parent.name in chosen and any(fnmatchcase(group.role, role) for role in roles):
                brought[group.name] = None
    return list(brought)


def _terms(text: str) -> list[str]:
    """Terms of a list, presets replaced by what they stand for."""
    found: list[str] = []
    for term in (t.strip() for t in text.split(",")):
        if term in presets() and term not in words():
            found += _terms(presets()[term]["groups"])
        elif term:
            found.append(term)
    return found


def _resolve(spec: PermSpec, term: str, option: str = "--groups") -> list[str]:
    names = [g.name for g in spec.groups]
    if term in names:
        return [term]
    if match := _RANGE.fullmatch(term):
        first, last, inner = int(match["first"]), int(match["last"]), match["inner"] or ""
        wanted = [f"{match['role']}.{i}{inner}" for i in range(first, last + 1)]
        missing = [w for w in wanted if w not in names]
        if last < first or missing:
            raise SelectionError(f"{option} {term}: no group {(missing or [term])[0]}. {_menu(spec)}")
        return wanted
    if any(c in term for c in "*?["):
        found = [n for n in names if fnmatchcase(n, term)]
        if not found:
            raise SelectionError(f"{option} {term}: no group matches. {_menu(spec)}")
        return found
    roles = words().get(term, {"roles": [term]})["roles"]
    found = [g.name for g in spec.groups if any(fnmatchcase(g.role, r) for r in roles)]
    if not found:
        raise SelectionError(f"{option} {term}: {_why_not(spec, term)}")
    return found


def _why_not(spec: PermSpec, term: str) -> str:
    known = [
        *words(),
        *presets(),
        *dict.fromkeys(g.role for g in spec.groups),
        *(g.name for g in spec.groups),
    ]
    held = [p for p in spec.pinned if p.reason == "output"]
    if term == "residual" and held:
        where = max(held, key=lambda p: p.count)
        return (
            f"the residual stream is pinned by the output ({where.tensor}[{where.axis}] and {len(held) - 1} more axes). "
            "Trace or plan with --free-output to let it move, or see `permgraph why`."
        )
    if term in words():
        return f"this network has no such group. {_menu(spec)}"
    return f"no such group, role, word or preset.{nearest(term, known)} {_menu(spec)}"


def _menu(spec: PermSpec) -> str:
    roles = ", ".join(dict.fromkeys(g.role for g in spec.groups)) or "none"
    return f"Roles here: {roles}. Presets: {', '.join(presets())}."
