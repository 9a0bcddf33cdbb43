"""Split long rows of tokens into windows.

Every window repeats the prefix and suffix tokens of its row (special tokens and prompt), so that it is a
complete row for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ragged import Ints, Ragged


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows that rows of tokens are split into.

    ``ids``: one row per window. ``rows``: int64 ``[m]``, each window's row, in ascending order.
    ``starts`` and ``sizes``: int64 ``[m]``, a window holds its row's text tokens ``[start:start + size]``.
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
    """Split rows into windows of at most ``limit`` tokens.

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
    return Windows(_copy_windows(ids, rows, starts, sizes, n_prefix, n_suffix), rows, starts, sizes)


def _copy_windows(ids: Ragged, rows: Ints, starts: Ints, sizes: Ints, n_prefix: int, n_suffix: int) -> Ragged:
    """Copy the tokens of each window: those of its row's prefix, its own text tokens, those of the suffix."""
    n_around = np.minimum(ids.lengths, n_prefix + n_suffix)[rows]  # 0 for an empty row
    lengths = sizes + n_around
    out = Ragged.from_lengths(np.empty(int(lengths.sum()), ids.values.dtype), lengths)
    position = out.positions_in_rows()
    in_prefix = position < n_prefix
    in_suffix = position >= np.repeat(n_prefix + sizes, lengths)
    # A token's position in the row minus its position in the window: 0 for prefix tokens, the window's start
    # for text tokens, the number of text tokens outside of the window for suffix tokens.
    text_shift = np.repeat(starts, lengths)
    suffix_shift = np.repeat(ids.lengths[rows] - lengths, lengths)
    shift = np.select([in_prefix, in_suffix], [0, suffix_shift], default=text_shift)
    first = np.repeat(ids.offsets[:-1][rows], lengths)
    out.values[:] = ids.values[first + position + shift]
    return out


def _divide_rounding_up(values: Ints, divisor: int) -> Ints:
    return -(-values // divisor)
