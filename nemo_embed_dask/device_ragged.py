"""Rows of token ids in a device's memory (`DeviceRagged`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .device import to_device
from .ragged import Bools, Ints, Ragged, Side, offsets_of


@dataclass(frozen=True, eq=False)
class DeviceRagged(Ragged):
    """Rows of token ids whose values are in a device's memory; their offsets are on the host.

    No method waits for the device, except `to_host`. Each sends at most a few numbers per row to the device,
    and none per value. What is an array of one number per value in `Ragged` is a tensor here.

    Parameters
    ----------
    values : Tensor of int32, shape (total,)
        The values of all rows, one row after the other.
    offsets : ndarray of int64, shape (n + 1,)
        Row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
    bounds : tuple of int
        No value is smaller than the first or greater than the second, so that ids can be checked on the host.
    """

    bounds: tuple[int, int]

    @classmethod
    def empty(cls, device: torch.device) -> DeviceRagged:
        """Return no rows."""
        return cls(torch.empty(0, dtype=torch.int32, device=device), np.zeros(1, np.int64), (0, 0))

    @classmethod
    def from_host(cls, rows: Ragged, device: torch.device) -> DeviceRagged:
        """Send rows to the device."""
        values = rows.values.astype(np.int32, copy=False)
        return cls(to_device(values, device), rows.offsets, rows.extremes())

    @classmethod
    def join(cls, parts: Iterable[Ragged]) -> DeviceRagged:
        """Return the rows of all parts, which are on the device, in order; at least one part is needed."""
        parts = list(parts)
        low, high = zip(*(part.extremes() for part in parts), strict=True)
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(torch.cat([part.values for part in parts]), offsets_of(lengths), (min(low), max(high)))

    def to_host(self) -> Ragged:
        """Return the rows in the host's memory; waits for the device."""
        return Ragged(self.values.cpu().numpy(), self.offsets)

    def extremes(self) -> tuple[int, int]:
        return self.bounds

    def positions_in_rows(self) -> Any:
        return self._range(len(self.values)) - self._repeat(self.offsets[:-1], self.lengths)

    def surround(self, prefix: Sequence[int], suffix: Sequence[int]) -> Ragged:
        if not (prefix or suffix):
            return self
        offsets = offsets_of(self.lengths + len(prefix) + len(suffix))
        out = self.values.new_empty(int(offsets[-1]))
        moved = offsets[:-1] + len(prefix) - self.offsets[:-1]
        out[self._range(len(self.values)) + self._repeat(moved, self.lengths)] = self.values
        edges = to_device(offsets, self.values.device)
        for k, value in enumerate(prefix):
            out.index_fill_(0, edges[:-1] + k, value)
        for k, value in enumerate(reversed(suffix), start=1):
            out.index_fill_(0, edges[1:] - k, value)
        added = (*prefix, *suffix, *self.bounds)
        return DeviceRagged(out, offsets, (min(added), max(added)))

    def drop_first(self, count: int) -> tuple[Any, Ints]:
        dropped = np.minimum(count, np.maximum(0, self.lengths - 1))
        lengths = self.lengths - dropped
        return self._slice_places(self.offsets[:-1] + dropped, lengths), offsets_of(lengths)

    def mask(self, side: Side = "right") -> Any:
        lengths = to_device(self.lengths, self.values.device)
        columns = self._range(int(self.lengths.max(initial=0)))
        if side == "left":
            columns = columns.flip(0)
        return columns < lengths[:, None]

    def places_in_block(self, side: Side = "right") -> Any:
        longest = int(self.lengths.max(initial=0))
        starts = np.arange(len(self)) * longest
        if side == "left":
            starts += longest - self.lengths
        return self._range(len(self.values)) + self._repeat(starts - self.offsets[:-1], self.lengths)

    def pad(self, fill: int = 0, side: Side = "right") -> Any:
        longest = int(self.lengths.max(initial=0))
        block = self.values.new_full((len(self) * longest,), fill)
        block[self.places_in_block(side)] = self.values
        return block.view(len(self), longest)

    def without(self, rows: Bools) -> Ragged:
        return self._copy_slices(self.offsets[:-1], np.where(rows, 0, self.lengths))

    def _copy_slices(self, starts: Ints, lengths: Ints) -> Ragged:
        values = self.values.index_select(0, self._slice_places(starts, lengths))
        return replace(self, values=values, offsets=offsets_of(lengths))

    def _slice_places(self, starts: Ints, lengths: Ints) -> Tensor:
        """Return the positions in ``values`` of one slice per start and length, one slice after the other."""
        offsets = offsets_of(lengths)
        return self._range(int(offsets[-1])) + self._repeat(starts - offsets[:-1], lengths)

    def _range(self, count: int) -> Tensor:
        return torch.arange(count, device=self.values.device)

    def _repeat(self, numbers: Ints, counts: Ints) -> Tensor:
        """Repeat each number on the device; the host knows the total, so that it need not wait for it."""
        sent = to_device(np.stack([numbers, counts]), self.values.device)
        return sent[0].repeat_interleave(sent[1], output_size=int(counts.sum()))
