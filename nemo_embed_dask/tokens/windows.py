"""Cut long rows of tokens into windows.

Every window repeats the prefix and suffix tokens of its row (special tokens and prompt), so that it is a
complete row for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ragged import Ints, Ragged


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of rows.

    ``ids``: one row per window. ``rows``: int64 ``[m]``, the row that each window is a piece of, ascending.
    ``starts`` and ``sizes``: int64 ``[m]``, the text tokens of that row that the window holds.
    """

    ids: Ragged
    rows: Ints
    starts: Ints
    sizes: Ints

    @property
    def numbers(self) -> Ints:
        """The number of each window within its row, from 0."""
        first = np.searchsorted(self.rows, self.rows)
        return np.arange(len(self.rows)) - first


def split(ids: Ragged, *, limit: int, overlap: int, n_prefix: int, n_suffix: int) -> Windows:
    """Cut rows into windows of at most ``limit`` tokens.

    Parameters
    ----------
    ids : Ragged
        Whole rows: ``n_prefix`` tokens, the text tokens, ``n_suffix`` tokens. A row may also be empty.
    limit : int
        Most tokens of a window, prefix and suffix included.
    overlap : int
        Text tokens that a window shares with the one before; fewer than ``limit - n_prefix - n_suffix``.

    Returns
    -------
    Windows
        At least one window per row. Only the last window of a row may be shorter than the limit.

    Examples
    --------
    With limit 5, overlap 1, one prefix token P and one suffix token S, a window has room for three text
    tokens, and each window starts two text tokens after the one before::

        P a b c d e f S   ->   P a b c S     start 0, size 3
                               P c d e S     start 2, size 3
                               P e f S       start 4, size 2
    """
    text_lengths = np.maximum(0, ids.lengths - n_prefix - n_suffix)
    room = limit - n_prefix - n_suffix
    step = room - overlap
    counts = 1 + np.maximum(0, _divide_rounding_up(text_lengths - room, step))
    windows = Ragged.from_lengths(np.repeat(np.arange(len(ids)), counts), counts)
    rows, starts = windows.values, step * windows.positions_in_rows()
    sizes = np.minimum(room, text_lengths[rows] - starts)

    n_around = np.minimum(ids.lengths, n_prefix + n_suffix)[rows]  # 0 for an empty row
    lengths = sizes + n_around
    out = Ragged.from_lengths(np.empty(int(lengths.sum()), ids.values.dtype), lengths)
    position = out.positions_in_rows()
    in_prefix = position < n_prefix
    in_suffix = position >= np.repeat(n_prefix + sizes, lengths)
    # How much later in its row a token of a window is: text is shifted by the window's start, the suffix by
    # all text that is not in the window.
    shift = np.where(in_prefix, 0, np.repeat(starts, lengths))
    shift = np.where(in_suffix, np.repeat(text_lengths[rows] - sizes, lengths), shift)
    first = np.repeat(ids.offsets[:-1][rows], lengths)
    out.values[:] = ids.values[first + position + shift]
    return Windows(out, rows, starts, sizes)


def _divide_rounding_up(values: Ints, divisor: int) -> Ints:
    return -(-values // divisor)
