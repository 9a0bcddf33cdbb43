"""Long rows of tokens as windows, and back. Pure numpy: knows tokens by their number, no text and no model.

A window repeats what frames a row (special tokens and prompt), so that each is a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ragged import Ints, Ragged


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of rows.

    ``ids``: one row a window. ``rows``: int64 ``[m]``, the row that each is of, ascending. ``starts`` and
    ``sizes``: int64 ``[m]``, which tokens of the row's own body it holds.
    """

    ids: Ragged
    rows: Ints
    starts: Ints
    sizes: Ints

    @property
    def numbers(self) -> Ints:
        """Each window's place in its row, from 0."""
        first = np.searchsorted(self.rows, self.rows)
        return np.arange(len(self.rows)) - first


def split(ids: Ragged, *, limit: int, overlap: int, n_prefix: int, n_suffix: int) -> Windows:
    """Cut rows into windows of at most ``limit`` tokens.

    Parameters
    ----------
    ids : Ragged
        Whole rows: ``n_prefix`` framing tokens, the body, ``n_suffix`` framing tokens; or no tokens at all.
    limit : int
        Tokens a window may have, its frame among them.
    overlap : int
        Tokens of the body that a window shares with the one before; fewer than ``limit - n_prefix - n_suffix``.

    Returns
    -------
    Windows
        At least one window a row; the last one of a row is as long as what is left.
    """
    body = np.maximum(0, ids.lengths - n_prefix - n_suffix)
    room = limit - n_prefix - n_suffix
    step = room - overlap
    counts = 1 + np.maximum(0, -(-(body - room) // step))
    rows = np.repeat(np.arange(len(ids)), counts)
    starts = step * (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts))
    sizes = np.minimum(room, body[rows] - starts)
    frame = np.minimum(ids.lengths, n_prefix + n_suffix)[rows]
    out = Ragged.from_lengths(np.empty(int((sizes + frame).sum()), ids.values.dtype), sizes + frame)
    places = out.positions_in_rows()
    shift = np.where(places < n_prefix, 0, np.repeat(starts, out.lengths))
    tail = places >= np.repeat(n_prefix + sizes, out.lengths)
    shift = np.where(tail, np.repeat(body[rows] - sizes, out.lengths), shift)
    out.values[:] = ids.values[places + shift + np.repeat(ids.offsets[:-1][rows], out.lengths)]
    return Windows(out, rows, starts, sizes)
