"""Default groups: what `merge` aligns when no groups are named, of the groups that this model has."""

from __future__ import annotations

from permgraph.ir.spec import PermSpec
from permgraph.matching.probes import unobserved

# Role → the word of the paper. Query and key channels stay in order, as in the paper.
_WORDS = {"ffn": "ffn2", "qk": ""}


def default_groups(spec: PermSpec) -> tuple[str, str]:
    """A selection and what is excluded from it: every role of this model whose units an activation holds.

    HuBERT: "cnn,heads,ffn2". Of a network without such groups: "none".
    """
    hidden = set(unobserved(spec))
    outermost = [g for g in spec.groups if not g.ancestors]
    roles = dict.fromkeys(g.role for g in outermost if g.name not in hidden)
    words = [_WORDS.get(role, role) for role in roles]
    text = ",".join(word for word in words if word)
    skipped = [g.name for g in spec.groups if g.name in hidden and _root(g.role) in roles]
    return text or "none", ",".join(skipped)


def _root(role: str) -> str:
    return role.partition("/")[0]
