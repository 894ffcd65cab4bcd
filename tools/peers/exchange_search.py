"""The greedy channel search for N:M sparsity: of all exchanges of two channels of different stripes the one that gains most, until none
gains (Pool and Yu, NeurIPS 2021, without the escapes). Written for comparison; it has no code of permgraph.

What a stripe keeps is a sum over its M slots of sorted magnitudes. Let x be the N-th largest magnitude, row by row, of a stripe
without slot s: unit u in s adds max(0, |u| - x) to what the others keep. So the worth of every unit in every slot is a table, and an
exchange changes two of its entries; after it the rows of two stripes are counted anew.
"""

from __future__ import annotations

import numpy as np


def exchanged(weights: np.ndarray, kept: int, of: int, most: int = 10**6) -> np.ndarray:
    """The order of units that the search ends in, from the order they have.

    weights   (units, rows); `kept` of every `of` are kept
    most      exchanges
    """
    sizes = np.abs(weights.astype(np.float32))
    order = np.arange(len(sizes))
    stripe = order // of
    worth = np.stack([_worth(sizes, order, slot, kept, of) for slot in range(len(sizes))])
    for _ in range(most):
        now = worth[np.arange(len(order)), order]
        across = worth[:, order]  # what the unit of one slot is worth in another
        gain = across + across.T - now[:, None] - now
        gain[stripe[:, None] == stripe] = -np.inf
        a, b = np.unravel_index(gain.argmax(), gain.shape)
        if gain[a, b] <= 1e-6 * max(float(now.sum()), 1e-30):
            break
        order[[a, b]] = order[[b, a]]
        for slot in np.flatnonzero((stripe == stripe[a]) | (stripe == stripe[b])):
            worth[slot] = _worth(sizes, order, int(slot), kept, of)
    return order


def _worth(sizes: np.ndarray, order: np.ndarray, slot: int, kept: int, of: int) -> np.ndarray:
    first = slot // of * of
    others = [order[i] for i in range(first, first + of) if i != slot]
    limit = np.sort(sizes[others], axis=0)[of - 1 - kept]
    return np.asarray(np.maximum(sizes - limit, 0).sum(axis=1, dtype=np.float64))


def magnitude(weights: np.ndarray, order: np.ndarray, kept: int, of: int) -> float:
    """The share of the magnitude that is kept in this order."""
    sizes = np.sort(np.abs(weights[order].astype(np.float64)).reshape(-1, of, weights.shape[1]), axis=1)
    return float(sizes[:, of - kept :].sum() / sizes.sum())
