"""Attention over packed rows on a CPU, computed for blocks of rows of similar length.

Short rows use plain matrix products. Each is padded to the next multiple of `_STEP`, so that there are few
blocks with few different shapes; oneDNN compiles a kernel for each shape. All other rows use torch's scaled
dot product attention (SDPA), in runs of equal length without a mask. How a row is computed depends only on
the row itself, so its states do not depend on its batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ..ragged import Ints

# Short rows are padded to a multiple of this length. SDPA's kernel is slow for lengths that are not a
# multiple of the CPU's vector width (benchmarks/LOG.md).
_STEP = 8
# Rows below this length are short. For longer rows, and for causal models, SDPA is faster.
_SHORT = 256
# Attention scores that are in memory at once.
_SCORES = 1 << 22
# A sum of exponentials in this range has not lost precision to overflow or underflow, in float32 and bfloat16.
_LEAST_SUM, _GREATEST_SUM = 1e-30, 1e36


class _Block(NamedTuple):
    """Short rows that are padded to the same length.

    ``rows``: their numbers. ``places`` and ``value_places``, int64 ``[n, heads, length]``: indexes into the
    batch's tokens and heads, seen as one axis. Where a row has no more tokens, ``places`` repeats its last
    token, and ``value_places`` points at a row of zeros. With one head, the row [10, 11, 12] in a block of
    length 8 has the places [10, 11, 12, 12, 12, 12, 12, 12] and the value places [10, 11, 12, z, z, z, z, z].
    """

    rows: Ints
    places: Tensor
    value_places: Tensor


class _Run(NamedTuple):
    """Neighbouring rows of equal length: ``rows`` rows of ``length`` tokens, beginning at token ``start``."""

    start: int
    rows: int
    length: int


class Blocks:
    """A packed batch, divided into blocks of rows.

    ``offsets``: int64 ``[n + 1]``, where each row starts. The blocks of short rows are kept for all layers.
    """

    def __init__(self, offsets: Ints) -> None:
        self._offsets, self._lengths = offsets, np.diff(offsets)
        self._short_blocks: dict[tuple[int, int], list[_Block]] = {}

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, sliding_window: int | None
    ) -> Tensor:
        """Compute the attention of each row over itself.

        ``q`` is ``[total, heads, d]``; ``k`` and ``v`` may have fewer heads (grouped-query attention).
        """
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        # In float16 exponentials overflow unless the maximum is subtracted first, which SDPA does.
        limit = 0 if causal or q.shape != k.shape or q.dtype == torch.float16 else _SHORT
        if sliding_window is not None:
            limit = min(limit, sliding_window + 1)  # it hides nothing in shorter rows
        remaining = self._attend_short_rows(q, k, v, scale, limit, out)
        for run in self._runs(remaining):
            _attend_run(run, q, k, v, scale, causal, sliding_window, out)
        return out

    def _attend_short_rows(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, limit: int, out: Tensor
    ) -> Ints:
        """Write the attention of rows shorter than ``limit`` to ``out``; return the numbers of all others.

        Short rows whose sums of exponentials are out of range are among the others.
        """
        blocks = self._blocks_of_short_rows(q.shape[1], limit)
        values = _append_ones(v) if blocks else v
        remaining = [np.flatnonzero(self._lengths >= limit)]
        for block in blocks:
            succeeded = _attend_block(block, q, k, values, scale, out)
            remaining.append(block.rows[~succeeded])
        return np.sort(np.concatenate(remaining))

    def _blocks_of_short_rows(self, heads: int, limit: int) -> list[_Block]:
        key = (heads, limit)
        if key not in self._short_blocks:
            self._short_blocks[key] = self._make_blocks(heads, limit)
        return self._short_blocks[key]

    def _make_blocks(self, heads: int, limit: int) -> list[_Block]:
        padded = -(-self._lengths // _STEP) * _STEP
        padded[self._lengths >= limit] = 0
        blocks = []
        for length in np.unique(padded[padded > 0]).tolist():
            rows = np.flatnonzero(padded == length)
            most = max(1, _SCORES // (heads * length**2))
            starts = range(0, len(rows), most)
            blocks += [self._make_block(rows[start : start + most], length, heads) for start in starts]
        return blocks

    def _make_block(self, rows: Ints, length: int, heads: int) -> _Block:
        own_lengths, positions = self._lengths[rows, None], np.arange(length)
        tokens = self._offsets[rows, None] + np.minimum(positions, own_lengths - 1)
        places = tokens[:, None] * heads + np.arange(heads)[:, None]
        place_of_zeros = self._offsets[-1] * heads
        value_places = np.where((positions < own_lengths)[:, None], places, place_of_zeros)
        return _Block(rows, torch.from_numpy(places), torch.from_numpy(value_places))

    def _runs(self, rows: Ints) -> list[_Run]:
        """Return the runs of neighbours of equal length among these rows."""
        lengths = self._lengths[rows]
        is_new_run = (np.diff(rows, prepend=-2) != 1) | (np.diff(lengths, prepend=-1) != 0)
        firsts = np.flatnonzero(is_new_run)
        counts = np.diff(firsts, append=len(rows))
        return [
            _Run(int(self._offsets[rows[first]]), int(count), int(lengths[first]))
            for first, count in zip(firsts, counts, strict=True)
        ]


def _attend_run(
    run: _Run,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None,
    causal: bool,
    sliding_window: int | None,
    out: Tensor,
) -> None:
    """Write the attention of a run of rows to ``out``, by SDPA."""
    tokens = slice(run.start, run.start + run.rows * run.length)

    def as_batch(x: Tensor) -> Tensor:
        batch: Tensor = x[tokens].unflatten(0, (run.rows, run.length))
        return batch.transpose(1, 2)

    mask = None
    if sliding_window is not None and sliding_window < run.length:
        mask = _sliding_window_mask(run.length, sliding_window, causal, q.device)
    attended = sdpa(
        as_batch(q),
        as_batch(k),
        as_batch(v),
        attn_mask=mask,
        is_causal=causal and mask is None and run.length > 1,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    as_batch(out).copy_(attended)


def _append_ones(v: Tensor) -> Tensor:
    """Return the values as ``[places + 1, d + 1]``: with a column of ones, and a last row of zeros."""
    out = v.new_zeros(v.shape[0] * v.shape[1] + 1, v.shape[2] + 1)
    out[:-1, :-1] = v.reshape(-1, v.shape[2])
    out[:-1, -1] = 1
    return out


def _attend_block(
    block: _Block, q: Tensor, k: Tensor, values: Tensor, scale: float | None, out: Tensor
) -> npt.NDArray[np.bool_]:
    """Write the attention of a block to ``out``; return bool ``[n]``, False where a sum is out of range.

    The column of ones in ``values`` gives the sums of the exponentials in the same product as the values. The
    maximum is not subtracted first, because finding it takes longer than all the rest; if the sums are in
    range, subtracting it would change nothing.
    """
    rows, _, length = block.places.shape
    width, places = q.shape[-1], block.places.view(-1)
    scale = width**-0.5 if scale is None else scale
    queries, keys = (x.reshape(-1, width).index_select(0, places).view(-1, length, width) for x in (q, k))
    padded_values = values.index_select(0, block.value_places.view(-1)).view(-1, length, width + 1)
    unused = queries.new_empty(())
    weights = torch.baddbmm(unused, queries, keys.transpose(1, 2), beta=0, alpha=scale).exp_()
    weighted = torch.bmm(weights, padded_values).view(-1, width + 1)
    sums = weighted[:, width:]
    out.view(-1, width).index_copy_(0, places, weighted[:, :width] / sums)
    least, greatest = sums.aminmax()
    if least > _LEAST_SUM and greatest < _GREATEST_SUM:
        return np.ones(rows, np.bool_)
    in_range = (sums > _LEAST_SUM) & (sums < _GREATEST_SUM)
    return np.asarray(in_range.view(rows, -1).all(1).numpy())


def _sliding_window_mask(length: int, sliding_window: int, causal: bool, device: torch.device) -> Tensor:
    """Return which pairs of positions are less than ``sliding_window`` apart, bool ``[length, length]``."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    near = distance.abs() < sliding_window
    return near & (distance >= 0) if causal else near
