"""Rows of unequal length as one flat array and its offsets (`Ragged`).

The package passes all tokens in this form. It needs no padding, and variable-length attention uses the same
offsets. Arrow's list arrays and thinc's ``Ragged`` have the same layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Side = Literal["left", "right"]


def offsets_of(lengths: npt.ArrayLike) -> Ints:
    """Return where rows of these lengths start and end, one after the other; int64, shape (n + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, dtype=np.int64))])


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of unequal length.

    Parameters
    ----------
    values : ndarray, shape (total,)
        The values of all rows, one row after the other; int32 token ids in this package. `DeviceRagged` has a
        tensor here.
    offsets : ndarray of int64, shape (n + 1,)
        Row ``i`` is ``values[offsets[i]:offsets[i + 1]]``. The first offset is 0, the last one ``total``.

    Examples
    --------
    The rows [5, 6], [] and [7]:

    >>> Ragged(np.array([5, 6, 7], np.int32), np.array([0, 2, 2, 3])).lengths
    array([2, 0, 1])
    """

    values: Any
    offsets: Ints

    @classmethod
    def from_lengths(cls, values: npt.NDArray[Any], lengths: npt.ArrayLike) -> Ragged:
        """Return rows of these lengths, which share the memory of ``values``."""
        return cls(values, offsets_of(lengths))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], dtype: npt.DTypeLike = np.int32) -> Ragged:
        """Return one row per inner sequence."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.fromiter(chain.from_iterable(rows), dtype, int(lengths.sum()))
        return cls.from_lengths(flat, lengths)

    @classmethod
    def concat(cls, parts: Iterable[Ragged]) -> Ragged:
        """Return the rows of all parts, in order."""
        parts = list(parts)
        if not parts:
            return cls(np.empty(0, np.int32), np.zeros(1, np.int64))
        lengths = np.concatenate([part.lengths for part in parts])
        return cls.from_lengths(np.concatenate([part.values for part in parts]), lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """The length of each row, int64, shape (n,)."""
        return np.diff(self.offsets)

    def to_host(self) -> Ragged:
        """Return the rows in the host's memory."""
        return self

    def extremes(self) -> tuple[int, int]:
        """Return the smallest and the greatest value; at most and at least 0."""
        return int(self.values.min(initial=0)), int(self.values.max(initial=0))

    def row(self, i: int) -> Any:
        """Return row ``i`` as a view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def positions_in_rows(self) -> Any:
        """Return the position of each value in its row, counted from 0; int64, shape (total,)."""
        return np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)

    def take(self, rows: npt.ArrayLike) -> Ragged:
        """Return copies of the rows at these positions, in this order."""
        picked = np.asarray(rows, dtype=np.int64)
        return self._copy_slices(self.offsets[picked], self.lengths[picked])

    def clip(self, limit: int, side: Side = "right") -> Ragged:
        """Shorten every row to ``limit`` values by cutting on this side: "right" keeps the first values."""
        lengths = np.minimum(self.lengths, limit)
        starts = self.offsets[:-1] if side == "right" else self.offsets[1:] - lengths
        return self._copy_slices(starts, lengths)

    def without(self, rows: Bools) -> Ragged:
        """Return a copy in which the rows marked in ``rows`` are empty."""
        kept = np.repeat(~rows, self.lengths)
        return Ragged.from_lengths(self.values[kept], np.where(rows, 0, self.lengths))

    def _copy_slices(self, starts: Ints, lengths: Ints) -> Ragged:
        """Copy one slice of ``values`` per start and length; the slices become the rows."""
        out = Ragged.from_lengths(np.empty(int(lengths.sum()), self.values.dtype), lengths)
        out.values[:] = self.values[out.positions_in_rows() + np.repeat(starts, lengths)]
        return out

    def surround(self, prefix: Sequence[int], suffix: Sequence[int]) -> Ragged:
        """Put the prefix before every row and the suffix after it."""
        if not (prefix or suffix):
            return self
        lengths = self.lengths + len(prefix) + len(suffix)
        out = Ragged.from_lengths(np.empty(int(lengths.sum()), self.values.dtype), lengths)
        starts, ends = out.offsets[:-1], out.offsets[1:]
        first_values = np.repeat(starts + len(prefix), self.lengths)
        out.values[first_values + self.positions_in_rows()] = self.values
        for k, value in enumerate(prefix):
            out.values[starts + k] = value
        for k, value in enumerate(reversed(suffix), start=1):
            out.values[ends - k] = value
        return out

    def drop_first(self, count: int) -> tuple[Any, Ints]:
        """Find the values that remain if each row loses its first ``count``; every row keeps its last value.

        Returns
        -------
        kept : ndarray of int64
            The positions in ``values`` of the values that remain.
        offsets : ndarray of int64, shape (n + 1,)
            The offsets of the rows over ``values[kept]``.
        """
        dropped = np.minimum(count, np.maximum(0, self.lengths - 1))
        kept = np.flatnonzero(self.positions_in_rows() >= np.repeat(dropped, self.lengths))
        return kept, Ragged.from_lengths(kept, self.lengths - dropped).offsets

    def mask(self, side: Side = "right") -> Any:
        """Return which cells hold a value if the rows are padded on this side; bool, shape (n, longest)."""
        lengths = self.lengths
        columns = np.arange(int(lengths.max(initial=0)))
        if side == "left":
            columns = columns[::-1]
        return columns[None, :] < lengths[:, None]

    def places_in_block(self, side: Side = "right") -> Any:
        """Return the position of each value in the flat result of `pad`; int64, shape (total,)."""
        return np.flatnonzero(self.mask(side))

    def pad(self, fill: int = 0, side: Side = "right") -> Any:
        """Return the rows as a block of shape (n, longest), padded with ``fill`` on this side."""
        mask = self.mask(side)
        block = np.full(mask.shape, fill, self.values.dtype)
        block[mask] = self.values
        return block
