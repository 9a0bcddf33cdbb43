"""Cut rows into batches (one forward pass each) and slabs (in memory at once).

Batches have a token budget, so that a batch of short rows costs the device about as much as one of long
rows. The longest rows run first, so that a batch that does not fit in memory fails at the start. crossfit
and sentence-transformers sort by length too; the token budget is as in text-embeddings-inference.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .ragged import Ints


def batches(lengths: Ints, *, budget: int, max_rows: int, pads: bool = False, sort: bool = True) -> list[Ints]:
    """Cut rows into batches.

    Parameters
    ----------
    lengths : ndarray of int64, shape (n,)
        Tokens per row.
    budget : int
        Largest `cost` of a batch. A row that exceeds it is a batch by itself.
    max_rows : int
        Most rows of a batch (``model_inference_batch_size``).
    pads : bool
        Whether the runtime pads the rows of a batch to the longest one.
    sort : bool
        Whether to sort all rows by length, longest first. If not, batches follow the input order.

    Returns
    -------
    list of ndarray of int64
        Row positions of each batch, longest row first. Every row is in exactly one batch.
    """
    order = np.argsort(-lengths, kind="stable") if sort else np.arange(len(lengths))
    cut = [order[start:stop] for start, stop in _cut(lengths[order], budget, max_rows, pads)]
    return cut if sort else [rows[np.argsort(-lengths[rows], kind="stable")] for rows in cut]


def _cut(lengths: Ints, budget: int, max_rows: int, pads: bool) -> Iterator[tuple[int, int]]:
    """Yield the ends of consecutive slices, each as long as the budget and ``max_rows`` allow."""
    start = 0
    while start < len(lengths):
        ahead = lengths[start : start + max_rows]
        rows = np.arange(1, len(ahead) + 1)
        costs = np.maximum.accumulate(ahead) * rows if pads else np.cumsum(ahead)  # of the first 1, 2, ... rows
        stop = start + max(1, int(np.searchsorted(costs, budget, side="right")))
        yield start, stop
        start = stop


def cost(lengths: Ints, *, pads: bool) -> int:
    """Return the tokens that a batch of rows of these lengths has, padding included."""
    return int(lengths.max(initial=0)) * len(lengths) if pads else int(lengths.sum())


def slabs(sizes: Ints, *, max_size: int, max_rows: int) -> list[slice]:
    """Cut consecutive rows into slabs of bounded size, so that a partition of any size fits in memory.

    Parameters
    ----------
    sizes : ndarray of int64, shape (n,)
        Size of each row, for example in characters.
    max_size, max_rows : int
        Largest size and most rows of a slab. A row that exceeds ``max_size`` is a slab by itself.
    """
    return [slice(a, b) for a, b in _cut(sizes, max_size, max_rows, pads=False)]
