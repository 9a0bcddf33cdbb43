"""Cut rows into batches (one forward pass each) and slabs (in memory at once).

Batches have a token budget, so that a batch of short rows takes the device about as long as one of long
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
    order = _longest_first(lengths) if sort else np.arange(len(lengths))
    found = [order[start:stop] for start, stop in _cut(lengths[order], budget, max_rows, pads)]
    if sort:
        return found
    return [rows[_longest_first(lengths[rows])] for rows in found]


def _longest_first(lengths: Ints) -> Ints:
    """Return the positions of the lengths in descending order; equal lengths keep their order."""
    return np.argsort(-lengths, kind="stable")


def _cut(lengths: Ints, budget: int, max_rows: int, pads: bool) -> Iterator[tuple[int, int]]:
    """Yield start and stop of consecutive slices, each as long as the budget and ``max_rows`` allow."""
    start = 0
    while start < len(lengths):
        ahead = lengths[start : start + max_rows]
        rows = np.arange(1, len(ahead) + 1)
        # The cost of a batch of the next 1, 2, ... rows.
        costs = np.maximum.accumulate(ahead) * rows if pads else np.cumsum(ahead)
        stop = start + max(1, int(np.searchsorted(costs, budget, side="right")))
        yield start, stop
        start = stop


def cost(lengths: Ints, *, pads: bool) -> int:
    """Return the number of tokens, padding included, of a batch of rows of these lengths."""
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
    return [slice(start, stop) for start, stop in _cut(sizes, max_size, max_rows, pads=False)]
