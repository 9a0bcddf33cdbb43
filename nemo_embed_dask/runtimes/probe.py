"""Check that each row has the same token states in a batch as alone, at load and for longer rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..device import is_oom
from ..ragged import Ints, Ragged

# Rows of the batch that is tried at load.
LENGTHS = (7, 3, 12, 3)
# Greatest difference, as 1 - cosine, that counts as rounding.
_TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 2e-2}


def states_agree(states: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Return whether two sets of token states are equal up to the rounding errors of ``dtype``."""
    return states_distance(states, expected) < _TOLERANCE[dtype]


def states_distance(states: Tensor, expected: Tensor) -> float:
    """Return the greatest difference of two sets of token states, as 1 - cosine; 2 if one is not a number."""
    distance = 1 - cosine_similarity(states.float(), expected.float(), dim=1)
    return float(distance.nan_to_num(2.0).max())


def probe_batch(vocabulary: int, pad: int | None, lengths: Sequence[int] = LENGTHS) -> Ragged:
    """Return rows of random token ids, none of them the padding id."""
    ids = np.random.default_rng(0).integers(0, vocabulary, sum(lengths)).astype(np.int32)
    ids[ids == pad] = (ids[ids == pad] + 1) % vocabulary
    return Ragged.from_lengths(ids, lengths)


class BatchLengths:
    """The lengths of rows that may share a batch.

    Models have windows, blocks and thresholds that a short batch does not reach, and not all are in their
    configuration. So a batch that is longer than all before it first runs a probe of that length. If rows of
    the probe have other states than alone, the rows of such lengths run alone.

    Parameters
    ----------
    agree : callable
        Takes lengths and returns whether rows of these lengths have the same states in a batch as alone.
    hints : sequence of int
        Lengths where a failure is likely to begin, besides powers of two.
    limit : int, optional
        Rows longer than this must run alone.
    """

    def __init__(
        self, agree: Callable[[Sequence[int]], bool], hints: Sequence[int], limit: int | None = None
    ) -> None:
        self._agree, self._hints = agree, hints
        self.proven = max(LENGTHS) if limit is None else min(limit, max(LENGTHS))
        self.limit = limit

    def divide(self, ids: Ragged) -> Iterator[tuple[Ragged, bool]]:
        """Yield parts of a batch, in order, and whether a part is a row that must run alone."""
        lengths = ids.lengths
        self._prove(lengths)
        if lengths.max(initial=0) <= self.proven:
            yield ids, False
            return
        is_alone = lengths > self.proven
        starts = np.flatnonzero(is_alone | np.roll(is_alone, 1) | (np.arange(len(ids)) == 0))
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            yield ids.take(np.arange(start, stop)), bool(is_alone[start])

    def _prove(self, lengths: Ints) -> None:
        """Try the longest row that may share a batch, if it is longer than all before it."""
        if self.limit is not None:
            lengths = lengths[lengths <= self.limit]
        longest = int(lengths.max(initial=0))
        if longest <= self.proven:
            return
        try:
            if not self._try(longest):
                self.limit = self._last_hint_that_agrees(longest)
        except Exception as error:
            # The engine divides a batch that does not fit in memory; a single row then runs alone.
            if not is_oom(error) or len(lengths) > 1:
                raise

    def _last_hint_that_agrees(self, longest: int) -> int:
        powers = (1 << power for power in range(longest.bit_length()))
        for hint in sorted({*self._hints, *powers}):
            if self.proven < hint < longest and not self._try(hint):
                break
        return self.proven

    def _try(self, length: int) -> bool:
        agree = self._agree((length, length // 2 + 1, min(LENGTHS)))
        if agree:
            self.proven = length
        return agree
