"""Which rows run together. Pure numpy: knows lengths and budgets, no model and no text.

Batches are cut by a token budget, so that a batch of short rows and one of long rows cost the device
about the same, and the longest rows come first, so that a batch too large for memory shows at once.
(Length sorting as in crossfit and sentence-transformers; the token budget as in
text-embeddings-inference.)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .ragged import Ints


def batches(lengths: Ints, *, budget: int, max_rows: int, pads: bool = False, sort: bool = True) -> list[Ints]:
    """Cut rows into groups that run together.

    Parameters
    ----------
    lengths : ndarray of int64, shape (n,)
        Tokens per row.
    budget : int
        Tokens a group may cost: the sum of its lengths, or, where the runtime pads,
        its longest length times its rows. A row longer than the budget is a group alone.
    max_rows : int
        Rows a group may have (``model_inference_batch_size``).
    pads : bool
        Whether the runtime pads a group to its longest row.
    sort : bool
        Longest rows first over all rows; else groups follow the input order.

    Returns
    -------
    list of ndarray of int64
        Row positions, each once over all groups; longest first within every group.
    """
    order = np.argsort(-lengths, kind="stable") if sort else np.arange(len(lengths))
    groups = [order[start:stop] for start, stop in _cuts(lengths[order], budget, max_rows, pads)]
    return groups if sort else [g[np.argsort(-lengths[g], kind="stable")] for g in groups]


def _cuts(lengths: Ints, budget: int, max_rows: int, pads: bool) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(lengths):
        ahead = lengths[start : start + max_rows]
        rows = np.arange(1, len(ahead) + 1)
        cost = np.maximum.accumulate(ahead) * rows if pads else np.cumsum(ahead)
        stop = start + max(1, int(np.searchsorted(cost, budget, side="right")))
        yield start, stop
        start = stop


def cost(lengths: Ints, *, pads: bool) -> int:
    """Tokens that a group of these lengths costs the runtime, padding included."""
    return int(lengths.max(initial=0)) * len(lengths) if pads else int(lengths.sum())


def slabs(sizes: Ints, *, max_size: int, max_rows: int) -> list[slice]:
    """Cut consecutive rows into windows of bounded size: what bounds a partition's memory.

    Parameters
    ----------
    sizes : ndarray of int64, shape (n,)
        Size of each row (characters here).
    max_size, max_rows : int
        What a window may hold; a larger row is a window alone.
    """
    return [slice(a, b) for a, b in _cuts(sizes, max_size, max_rows, pads=False)]
