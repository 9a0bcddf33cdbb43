"""Attention over packed rows on a CPU, in blocks of rows. Knows tensors only.

Short rows go through plain matrix products, in blocks of about one length: each row is padded to the next
multiple of `_STEP`, so that blocks are few, and their shapes too (oneDNN compiles a kernel for each). All other
rows go through SDPA, in blocks of one length without a mask. Which way a row goes, and what it is padded to,
follows from the row alone: its states do not depend on its batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ..ragged import Ints

# Rows below this length are short; so many scores at a time. SDPA's kernel is slow for every length that is no
# multiple of its vectors (benchmarks/LOG.md); above, and for causal models, it does better.
_STEP, _SHORT, _SCORES = 8, 256, 1 << 22
# Sums of exponentials in this range have lost nothing to overflow or underflow, in float32 and bfloat16.
_LEAST, _MOST = 1e-30, 1e36


class _Block(NamedTuple):
    """Rows padded to one length, as places of tokens' heads: int64 ``[n, heads, length]``.

    ``rows``: which. ``take``: a row's own places, its last one again where it has no more. ``values``: the
    same, but a place of zeros where it has no more.
    """

    rows: Ints
    take: Tensor
    values: Tensor


class Blocks:
    """The blocks of a packed batch: ``offsets`` int64 ``[n + 1]``. Short rows' are kept for all layers."""

    def __init__(self, offsets: Ints) -> None:
        self._offsets, self._lengths = offsets, np.diff(offsets)
        self._short: dict[tuple[int, int], list[_Block]] = {}

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, window: int | None
    ) -> Tensor:
        """Attention of each row by itself: q ``[total, heads, d]``; k, v likewise, or with fewer heads."""
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        limit = 0 if causal or q.shape != k.shape else min(_SHORT, _SHORT if window is None else window + 1)
        short = self._of_short_rows(q.shape[1], limit)
        ones = _beside_ones(v) if short else v
        left = [block.rows[~_plain_attention(block, q, k, ones, scale, out)] for block in short]
        left.append(np.flatnonzero(self._lengths >= limit))
        for start, rows, length in self._runs(np.sort(np.concatenate(left))):
            span = slice(start, start + rows * length)
            a, b, c = (x[span].unflatten(0, (rows, length)).transpose(1, 2) for x in (q, k, v))
            band = None if window is None or window >= length else _band(length, window, causal, q.device)
            block_out = sdpa(
                a, b, c, attn_mask=band, is_causal=causal and band is None and length > 1,
                scale=scale, enable_gqa=q.shape[1] != k.shape[1],
            )  # fmt: skip
            out[span].unflatten(0, (rows, length)).transpose(1, 2).copy_(block_out)
        return out

    def _of_short_rows(self, heads: int, limit: int) -> list[_Block]:
        if (heads, limit) not in self._short:
            padded = np.where(self._lengths < limit, -(-self._lengths // _STEP) * _STEP, 0)
            self._short[heads, limit] = [
                self._block(rows, int(length), heads)
                for length in np.unique(padded[padded > 0])
                for rows in _pieces(np.flatnonzero(padded == length), max(1, _SCORES // (heads * length**2)))
            ]
        return self._short[heads, limit]

    def _block(self, rows: Ints, length: int, heads: int) -> _Block:
        own, places = self._lengths[rows, None], np.arange(length)
        tokens = self._offsets[rows, None] + np.minimum(places, own - 1)
        take = tokens[:, None] * heads + np.arange(heads)[:, None]
        values = np.where((places < own)[:, None], take, self._offsets[-1] * heads)
        return _Block(rows, torch.from_numpy(take), torch.from_numpy(values))

    def _runs(self, rows: Ints) -> list[tuple[int, int, int]]:
        """Runs of neighbours of equal length among these rows: (first token, rows, length)."""
        lengths = self._lengths[rows]
        new = (np.diff(rows, prepend=-2) != 1) | (np.diff(lengths, prepend=-1) != 0)
        starts = np.flatnonzero(new)
        counts = np.diff(starts, append=len(rows))
        return [
            (int(self._offsets[rows[i]]), int(count), int(lengths[i]))
            for i, count in zip(starts, counts, strict=True)
        ]


def _pieces(rows: Ints, most: int) -> list[Ints]:
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def _beside_ones(v: Tensor) -> Tensor:
    """Values as ``[places, d]`` with a column of ones beside them, and one more place that is all zeros."""
    out = v.new_zeros(v.shape[0] * v.shape[1] + 1, v.shape[2] + 1)
    out[:-1, :-1] = v.reshape(-1, v.shape[2])
    out[:-1, -1] = 1
    return out


def _plain_attention(
    block: _Block, q: Tensor, k: Tensor, values: Tensor, scale: float | None, out: Tensor
) -> npt.NDArray[np.bool_]:
    """Attention of a block into ``out`` by its definition; bool ``[n]``, False where scores are too large.

    The column of ones gives the sums of the exponentials in the same product as the values. The maximum is not
    subtracted first: finding it would take longer than all the rest, and where the sums are in range,
    subtracting it changes nothing.
    """
    rows, _, length = block.take.shape
    width, places = q.shape[-1], block.take.view(-1)
    scale = width**-0.5 if scale is None else scale
    a, b = (x.reshape(-1, width).index_select(0, places).view(-1, length, width) for x in (q, k))
    c = values.index_select(0, block.values.view(-1)).view(-1, length, width + 1)
    weights = torch.baddbmm(a.new_empty(()), a, b.transpose(1, 2), beta=0, alpha=scale).exp_()
    sums = torch.bmm(weights, c).view(-1, width + 1)
    total = sums[:, width:]
    out.view(-1, width).index_copy_(0, places, sums[:, :width] / total)
    low, high = total.aminmax()
    if low > _LEAST and high < _MOST:
        return np.ones(rows, np.bool_)
    fine = (total > _LEAST) & (total < _MOST)
    return np.asarray(fine.view(rows, -1).all(1).numpy())


def _band(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """Which pairs a sliding window lets through, those less than ``window`` apart; ``[length, length]``."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    near = distance.abs() < window
    return near & (distance >= 0) if causal else near
