"""Suggest: for an op without a rule, a row to start from.

Axes of one size get one letter, and every axis is ordered (`!`), which is always true and pins them all. Whoever
knows the op takes `!` off the axes whose order does not matter to it.
"""

from __future__ import annotations

from permgraph.ir.trace import Node, Ref, Shape, Trace

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def suggest_row(trace: Trace, node: Node) -> str:
    """A line of Python for the rule table: RULES["lib.op"] = equation("!a !b, !b -> !a !b")."""
    name = node.op.removeprefix("aten.").rpartition(".")[0] or node.op
    operands = [(i, "", a) for i, a in enumerate(node.args)]
    operands += [(len(node.args) + i, k, a) for i, (k, a) in enumerate(node.kwargs.items())]
    found = [(i, key, trace.by_name[a.node].shape) for i, key, a in operands if isinstance(a, Ref)]
    letters: dict[int, str] = {}
    terms = [_term(shape, letters) for _, _, shape in found]
    text = f"{', '.join(terms)} -> {_term(node.shape, letters)}"
    plain = [i for i, _, _ in found] == list(range(len(found)))
    where = "" if plain else "".join(f', ({i}, "{key}")' for i, key, _ in found)
    rule = f'equation("{text}"{where})'
    return f'RULES["{name}"] = {f"several({rule})" if node.multiple else rule}'


def _term(shape: Shape, letters: dict[int, str]) -> str:
    used: set[str] = set()
    term = []
    for size in shape:
        letter = letters.get(size)
        if letter is None or letter in used:  # the second axis of one size is an axis of its own
            letter = next(x for x in _LETTERS if x not in used and x not in letters.values())
            letters.setdefault(size, letter)
        used.add(letter)
        term.append(f"!{letter}")
    return " ".join(term)
