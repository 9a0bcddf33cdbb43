"""Ragged: many rows of unequal length as one flat array and its offsets. Pure numpy.

The one form in which tokens travel: no padding in memory or in transit, and the offsets are what
variable-length attention takes. (The layout is Arrow's list array and thinc's ``Ragged``.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Side = Literal["left", "right"]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of unequal length.

    Parameters
    ----------
    values : ndarray, shape (total,)
        All rows, one after the other (int32 token ids here).
    offsets : ndarray of int64, shape (n + 1,)
        Row ``i`` is ``values[offsets[i]:offsets[i + 1]]``; starts at 0, ends at ``total``.
    """

    values: npt.NDArray[Any]
    offsets: Ints

    @classmethod
    def from_lengths(cls, values: npt.NDArray[Any], lengths: npt.ArrayLike) -> Ragged:
        """Rows of the given lengths over ``values``."""
        counts = np.asarray(lengths, dtype=np.int64)
        return cls(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], dtype: npt.DTypeLike = np.int32) -> Ragged:
        """One row per inner sequence."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.fromiter(chain.from_iterable(rows), dtype, int(lengths.sum()))
        return cls.from_lengths(flat, lengths)

    @classmethod
    def concat(cls, parts: Iterable[Ragged]) -> Ragged:
        """All rows of all parts, in order."""
        parts = list(parts)
        if not parts:
            return cls(np.empty(0, np.int32), np.zeros(1, np.int64))
        lengths = np.concatenate([part.lengths for part in parts])
        return cls.from_lengths(np.concatenate([part.values for part in parts]), lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Length of each row, int64, shape (n,)."""
        return np.diff(self.offsets)

    def row(self, i: int) -> npt.NDArray[Any]:
        """Row ``i``, a view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def positions_in_rows(self) -> Ints:
        """Each value's place in its own row, from 0; int64, shape (total,)."""
        return np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)

    def take(self, rows: npt.ArrayLike) -> Ragged:
        """The named rows, in the order named."""
        picked = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[picked]
        out = Ragged.from_lengths(np.empty(int(lengths.sum()), self.values.dtype), lengths)
        out.values[:] = self.values[out.positions_in_rows() + np.repeat(self.offsets[picked], lengths)]
        return out

    def clip(self, limit: int, side: Side = "right") -> Ragged:
        """At most ``limit`` values a row: the first ones (``side="right"``) or the last ones."""
        lengths = np.minimum(self.lengths, limit)
        starts = self.offsets[:-1] if side == "right" else self.offsets[1:] - lengths
        out = Ragged.from_lengths(np.empty(int(lengths.sum()), self.values.dtype), lengths)
        out.values[:] = self.values[out.positions_in_rows() + np.repeat(starts, lengths)]
        return out

    def surround(self, prefix: Sequence[int], suffix: Sequence[int]) -> Ragged:
        """The rows with the same values put before and after each."""
        if not (prefix or suffix):
            return self
        lengths = self.lengths + len(prefix) + len(suffix)
        out = Ragged.from_lengths(np.empty(int(lengths.sum()), self.values.dtype), lengths)
        starts, ends = out.offsets[:-1], out.offsets[1:]
        for k, value in enumerate(prefix):
            out.values[starts + k] = value
        for k, value in enumerate(reversed(suffix), start=1):
            out.values[ends - k] = value
        out.values[self.positions_in_rows() + np.repeat(starts + len(prefix), self.lengths)] = self.values
        return out

    def drop_first(self, skip: int) -> tuple[Ints, Ints]:
        """What is left of rows without their first ``skip`` values; of every row at least its last one.

        Returns
        -------
        kept : ndarray of int64
            Where in ``values`` they are.
        offsets : ndarray of int64, shape (n + 1,)
            Where each row starts among those kept.
        """
        dropped = np.minimum(skip, np.maximum(0, self.lengths - 1))
        kept = np.flatnonzero(self.positions_in_rows() >= np.repeat(dropped, self.lengths))
        return kept, Ragged.from_lengths(kept, self.lengths - dropped).offsets

    def mask(self, side: Side = "right") -> npt.NDArray[np.bool_]:
        """Which cells of the padded block hold a value; bool, shape (n, longest)."""
        lengths = self.lengths
        columns = np.arange(int(lengths.max(initial=0)))
        if side == "left":
            columns = columns[::-1]
        return columns[None, :] < lengths[:, None]

    def pad(self, fill: int = 0, side: Side = "right") -> npt.NDArray[Any]:
        """The rows as a block of shape (n, longest), ``fill`` on the given side."""
        mask = self.mask(side)
        block = np.full(mask.shape, fill, self.values.dtype)
        block[mask] = self.values
        return block

    @classmethod
    def unpad(cls, block: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Ragged:
        """The inverse of `pad`: the cells that ``mask`` names, row by row."""
        return cls.from_lengths(block[mask], mask.sum(axis=1))
