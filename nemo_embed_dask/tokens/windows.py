"""Long rows of tokens as windows, and back. Pure numpy: knows tokens by their number, no text and no model.

A window repeats what frames a row (special tokens and prompt), so that each is a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ragged import Ints, Ragged


@dataclass(frozen=True, eq=False)
class Chunks:
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


def split(ids: Ragged, *, limit: int, overlap: int, lead: int, trail: int) -> Chunks:
    """Cut rows into windows of at most ``limit`` tokens.

    Parameters
    ----------
    ids : Ragged
        Whole rows: ``lead`` framing tokens, the body, ``trail`` framing tokens; or no tokens at all.
    limit : int
        Tokens a window may have, its frame among them.
    overlap : int
        Tokens of the body that a window shares with the one before; fewer than ``limit - lead - trail``.

    Returns
    -------
    Chunks
        At least one window a row; the last one of a row is as long as what is left.
    """
    body = np.maximum(0, ids.lengths - lead - trail)
    room = limit - lead - trail
    step = room - overlap
    counts = 1 + np.maximum(0, -(-(body - room) // step))
    rows = np.repeat(np.arange(len(ids)), counts)
    starts = step * (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts))
    sizes = np.minimum(room, body[rows] - starts)
    frame = np.minimum(ids.lengths, lead + trail)[rows]
    out = Ragged.from_lengths(np.empty(int((sizes + frame).sum()), ids.values.dtype), sizes + frame)
    places = out.positions()
    shift = np.where(places < lead, 0, np.repeat(starts, out.lengths))
    tail = places >= np.repeat(lead + sizes, out.lengths)
    shift = np.where(tail, np.repeat(body[rows] - sizes, out.lengths), shift)
    out.values[:] = ids.values[places + shift + np.repeat(ids.offsets[:-1][rows], out.lengths)]
    return Chunks(out, rows, starts, sizes)
