"""Scaled dot-product attention, written as the equations it is made of."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import tile
from permgraph.axes.rules.builders import INDEX, POINTWISE, placed
from permgraph.axes.rules.table import op


def attend(
    q: LabelledTensor,
    k: LabelledTensor,
    v: LabelledTensor,
    mask: LabelledTensor | None = None,
    ordered: tuple[int, ...] = (),
) -> LabelledTensor:
    """q (… h l d), k (… h s d), v (… h s e), mask (… l s) → (… h l e); `ordered` are dims of the scores (… h l s)."""
    heads = q.shape[-3] if q.rank > 3 else 1
    if k.rank > 3 and k.shape[-3] != heads:  # enable_gqa: each key head serves a run of query heads
        k, v = (tile(x, x.rank - 3, heads // x.shape[-3], inner=True) for x in (k, v))
    shape = (*q.shape[:-2], q.shape[-2], k.shape[-2])
    scores = contract("... l d, ... s d -> ... l s", [q, k], shape)
    if mask is not None:
        scores = contract(POINTWISE, [scores, mask], shape)
    if ordered:
        scores = placed(scores, tuple(d % len(shape) for d in ordered))
    scores = contract("... l [s] -> ... l s", [scores], shape)
    return contract("... l s, ... s e -> ... l e", [scores, v], (*shape[:-1], v.shape[-1]))


@op("scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu")
def attention(
    query: LabelledTensor,
    key: LabelledTensor,
    value: LabelledTensor,
    attn_mask: LabelledTensor | None,
    is_causal: bool,
) -> LabelledTensor:
    return attend(query, key, value, attn_mask, (-2, -1) if is_causal else ())


@op("permgraph.flex_attention")
def flex_attention(
    query: LabelledTensor,
    key: LabelledTensor,
    value: LabelledTensor,
    tables: tuple[LabelledTensor, ...],
    asked: tuple[int, ...],
) -> LabelledTensor:
    """Attention whose scores a function may change, as `frontend/control_flow.py` puts it."""
    for table in tables:
        table.pin(INDEX)
    return attend(query, key, value, ordered=asked)
