"""Scaled dot-product attention, written as the four equations it is made of."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.movement import tile
from permgraph.axes.rules.builders import INDEX, Rule, placed, several
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def attend(
    context: Context, q: Value, k: Value, v: Value, mask: Value | None, ordered: tuple[int, ...] = ()
) -> Value:
    """q (… h l d), k (… h s d), v (… h s e), mask (… l s) → (… h l e); `ordered` are dims of the scores (… h l s)."""
    lead = q.shape[:-2]
    heads = q.shape[-3] if len(q.shape) > 3 else 1
    if len(k.shape) > 3 and k.shape[-3] != heads:  # enable_gqa: each key head serves a run of query heads
        k, v = (tile(context, x, len(x.shape) - 3, heads // x.shape[-3], inner=True) for x in (k, v))
    shape = (*lead, q.shape[-2], k.shape[-2])
    scores = contract(context, "... l d, ... s d -> ... l s", [q, k], shape)
    if mask is not None:
        scores = contract(context, "..., ... -> ...", [scores, mask], shape)
    if ordered:
        scores = placed(context, scores, tuple(d % len(shape) for d in ordered))
    scores = contract(context, "... l [s] -> ... l s", [scores], shape)
    return contract(context, "... l s, ... s e -> ... l e", [scores, v], (*lead, q.shape[-2], v.shape[-1]))


def _sdpa(context: Context) -> Value:
    q, k, v = context.need(0, "query"), context.need(1, "key"), context.need(2, "value")
    causal = (-2, -1) if context.arg(5, "is_causal", False) else ()
    return attend(context, q, k, v, context.operand(3, "attn_mask"), causal)


def _flash(context: Context) -> Value:
    q, k, v = context.need(0, "query"), context.need(1, "key"), context.need(2, "value")
    causal = (-2, -1) if context.arg(4, "is_causal", False) else ()
    return attend(context, q, k, v, context.operand(5, "attn_mask"), causal)


def _flex(context: Context) -> Value:
    """Attention whose scores a function may change, as `trace/control.py` puts it."""
    asked, read = context.node.args[3:5]
    for table in filter(None, map(context.value, read)):
        context.pin(table.arrays, INDEX)
    q, k, v = (context.need(i, name) for i, name in enumerate(("query", "key", "value")))
    return attend(context, q, k, v, None, tuple(asked))


RULES: dict[str, Rule] = {
    "scaled_dot_product_attention": _sdpa,
    "permgraph.flex_attention": several(_flex),
    "_scaled_dot_product_flash_attention_for_cpu": several(_flash),
}
