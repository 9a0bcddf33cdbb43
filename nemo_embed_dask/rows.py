"""What is known about each row of a partition, with its tokens (`Tokenized`) or its vector (`Embedded`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from .ragged import Ints, Ragged
from .settings import Stats

Bools = npt.NDArray[np.bool_]
_Key = TypeVar("_Key", bound=Hashable)
# Deduplicate only if at least this fraction of the rows are repeats; for fewer, copying rows costs more.
_MIN_REPEATED = 0.01


@dataclass(frozen=True, eq=False)
class Origins:
    """The text and the characters that each window comes from; int64 arrays of shape (windows,).

    ``texts``: position of the text. ``numbers``: position of the window in its text, from 0. ``char_start``,
    ``char_end``: the window holds ``text[char_start:char_end]``.
    """

    texts: Ints
    numbers: Ints
    char_start: Ints
    char_end: Ints

    @classmethod
    def concat(cls, parts: Sequence[Origins], first_texts: Sequence[int]) -> Origins:
        """Concatenate the windows of slabs; ``first_texts`` is the position of each slab's first text."""
        none = np.empty(0, np.int64)
        shifted = [part.texts + first for part, first in zip(parts, first_texts, strict=True)]
        return cls(
            texts=np.concatenate([none, *shifted]),
            numbers=np.concatenate([none, *(part.numbers for part in parts)]),
            char_start=np.concatenate([none, *(part.char_start for part in parts)]),
            char_end=np.concatenate([none, *(part.char_end for part in parts)]),
        )


@dataclass(kw_only=True)
class RowInfo:
    """What is known about each of n rows.

    ``valid``: bool, shape (n,), False for a null and for a failed row. ``n_tokens``: int64, shape (n,), prefix
    and suffix tokens included. ``truncated``: bool, shape (n,), whether tokens were cut off. ``failures``: the
    reason for each text that failed, by the text's position. ``origins``: for one row per window, where each
    comes from; None for one row per text.
    """

    valid: Bools
    n_tokens: Ints
    truncated: Bools
    stats: Stats = field(default_factory=Stats)
    failures: dict[int, str] = field(default_factory=dict)
    origins: Origins | None = None

    def text_of(self, row: int) -> int:
        """Return the position of the text that a row belongs to."""
        return row if self.origins is None else int(self.origins.texts[row])


@dataclass(kw_only=True)
class Tokenized(RowInfo):
    """Rows with their token ids: one row per text, empty for a null, or one row per window."""

    ids: Ragged

    @classmethod
    def from_ids(cls, ids: Ragged, valid: Bools) -> Tokenized:
        """Return rows of token ids; rows without tokens are not valid either."""
        valid = valid & (ids.lengths > 0)
        stats = Stats(rows=len(ids), nulls=int((~valid).sum()), tokens=int(ids.lengths[valid].sum()))
        none = np.zeros(len(ids), np.bool_)
        return cls(ids=ids, valid=valid, n_tokens=ids.lengths, truncated=none, stats=stats)

    def deduplicate(self) -> tuple[Tokenized, Ints | None]:
        """Return the distinct rows and each row's index into them, or all rows and None if few repeat."""
        keys = [self.ids.row(i).tobytes() if valid else None for i, valid in enumerate(self.valid)]
        _, index = deduplicate(keys)
        if index is None:
            return self, None
        first = np.unique(index, return_index=True)[1]
        return Tokenized.from_ids(self.ids.take(first), self.valid[first]), index


@dataclass(kw_only=True)
class Embedded(RowInfo):
    """Rows with their vectors, on the runtime's device.

    ``matrix``: shape (n, d), of the settings' ``embedding_dtype``; rows that are not valid hold zeros.
    ``extra``: one more matrix per extra output, by its name.
    """

    matrix: torch.Tensor
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def from_tokens(cls, tokens: Tokenized, matrix: torch.Tensor) -> Embedded:
        """Return the same rows with a matrix for their vectors."""
        return cls(
            matrix=matrix,
            valid=tokens.valid.copy(),
            n_tokens=tokens.n_tokens,
            truncated=tokens.truncated,
            stats=replace(tokens.stats),
            failures=dict(tokens.failures),
            origins=tokens.origins,
        )

    @classmethod
    def concat(cls, parts: Sequence[Embedded], matrix: torch.Tensor, first_texts: Sequence[int]) -> Embedded:
        """Concatenate what is known about the rows of several slabs.

        Parameters
        ----------
        parts : sequence of Embedded
            The slabs, in order.
        matrix : Tensor
            The vectors of all slabs.
        first_texts : sequence of int
            The position of each slab's first text in the partition.
        """
        origins = [part.origins for part in parts if part.origins is not None]
        out = cls(
            matrix=matrix,
            valid=np.concatenate([np.empty(0, np.bool_), *(part.valid for part in parts)]),
            n_tokens=np.concatenate([np.empty(0, np.int64), *(part.n_tokens for part in parts)]),
            truncated=np.concatenate([np.empty(0, np.bool_), *(part.truncated for part in parts)]),
            origins=Origins.concat(origins, first_texts) if origins else None,
        )
        for part, first in zip(parts, first_texts, strict=True):
            out.stats += part.stats
            out.failures |= {first + text: reason for text, reason in part.failures.items()}
        return out

    def fail(self, row: int, reason: str) -> None:
        """Record why a row failed: it becomes null, and its vector zeros."""
        self.failures[self.text_of(row)] = reason
        self.valid[row] = False
        self.matrix[row] = 0.0

    def expand(self, index: Ints, nulls: int) -> Embedded:
        """Return one row per input row, where row i is a copy of row ``index[i]``; undoes `deduplicate`."""
        distinct = self.stats.rows - self.stats.nulls
        repeats = len(index) - nulls - distinct
        return replace(
            self,
            matrix=self.matrix[torch.from_numpy(index).to(self.matrix.device)],
            valid=self.valid[index],
            n_tokens=self.n_tokens[index],
            truncated=self.truncated[index],
            stats=replace(self.stats, rows=len(index), nulls=nulls, shared=repeats),
            failures=expand_failures(self.failures, index),
        )


def deduplicate(values: Sequence[_Key]) -> tuple[Sequence[_Key], Ints | None]:
    """Return the distinct values and each row's index into them, or all values and None if few repeat.

    Hashing costs a thousandth of embedding. Values of other types than str, bytes and None may not be
    hashable: with any of these, nothing is deduplicated.
    """
    if set(map(type, values)) - {str, bytes, NoneType}:
        return values, None
    positions: dict[_Key, int] = {}
    indices = (positions.setdefault(value, len(positions)) for value in values)
    index = np.fromiter(indices, np.int64, len(values))
    if len(positions) > (1 - _MIN_REPEATED) * len(values):
        return values, None
    return list(positions), index


def expand_failures(failures: dict[int, str], index: Ints | None) -> dict[int, str]:
    """Return the failures of all rows, given those of the distinct rows; no index: all rows are distinct."""
    if index is None or not failures:
        return failures
    return {row: failures[k] for row, k in enumerate(index.tolist()) if k in failures}
