"""Rows of a partition: validity and failures, with token ids (`Tokenized`) or vectors (`Embedded`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import TypeVar

import numpy as np
import torch

from .lists import Lists
from .ragged import Bools, Ints, Ragged, offsets_of
from .stats import Stats

_Key = TypeVar("_Key", bound=Hashable)
# Deduplicate only if at least this fraction of the rows are repeats: with fewer, copying rows takes more time
# than it saves.
MIN_REPEATED = 0.01


@dataclass(frozen=True, eq=False)
class Origins:
    """The text and the characters that each window comes from; int64 arrays of shape (windows,).

    ``text_positions``: positions of the texts. ``numbers``: positions of the windows in their texts, from 0.
    ``char_start``, ``char_end``: a window holds ``text[char_start:char_end]``, see `window_slices`.
    """

    text_positions: Ints
    numbers: Ints
    char_start: Ints
    char_end: Ints

    @classmethod
    def concat(cls, parts: Sequence[Origins], first_texts: Sequence[int]) -> Origins:
        """Concatenate the windows of slabs; ``first_texts`` is the position of each slab's first text."""
        empty = np.empty(0, np.int64)
        shifted = [part.text_positions + first for part, first in zip(parts, first_texts, strict=True)]
        return cls(
            text_positions=np.concatenate([empty, *shifted]),
            numbers=np.concatenate([empty, *(part.numbers for part in parts)]),
            char_start=np.concatenate([empty, *(part.char_start for part in parts)]),
            char_end=np.concatenate([empty, *(part.char_end for part in parts)]),
        )


@dataclass(kw_only=True)
class RowInfo:
    """Validity, number of tokens, truncation and failures of n rows.

    ``valid``: bool, shape (n,), False for a null and for a failed row. ``n_tokens``: int64, shape (n,), prefix
    and suffix tokens included. ``truncated``: bool, shape (n,), whether tokens were cut off. ``failures``: the
    reason for each text that failed, by the text's position. ``origins``: with one row per window, where each
    window comes from; None with one row per text.
    """

    valid: Bools
    n_tokens: Ints
    truncated: Bools
    stats: Stats = field(default_factory=Stats)
    failures: dict[int, str] = field(default_factory=dict)
    origins: Origins | None = None

    @property
    def text_positions(self) -> Ints | None:
        """With one row per window, the position of each row's text; None with one row per text."""
        return None if self.origins is None else self.origins.text_positions


@dataclass(kw_only=True)
class Tokenized(RowInfo):
    """Rows with their token ids: one row per text, empty for a null, or one row per window."""

    ids: Ragged

    @classmethod
    def from_ids(cls, ids: Ragged, valid: Bools) -> Tokenized:
        """Return rows of token ids; a row is valid if it is not null and has tokens."""
        valid = valid & (ids.lengths > 0)
        stats = Stats(rows=len(ids), nulls=int((~valid).sum()), tokens=int(ids.lengths[valid].sum()))
        truncated = np.zeros(len(ids), np.bool_)
        return cls(ids=ids, valid=valid, n_tokens=ids.lengths, truncated=truncated, stats=stats)

    @classmethod
    def from_present(cls, ids: Ragged, truncated: Bools, *, rows: Ints | Bools, count: int) -> Tokenized:
        """Return ``count`` rows: those at ``rows`` have these tokens, in order; all others are empty."""
        n_tokens, all_truncated = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        n_tokens[rows], all_truncated[rows] = ids.lengths, truncated
        return cls(
            ids=replace(ids, offsets=offsets_of(n_tokens)),
            valid=n_tokens > 0,
            n_tokens=n_tokens,
            truncated=all_truncated,
            stats=Stats(rows=count, tokens=len(ids.values), truncated=int(truncated.sum())),
        )

    def deduplicate(self) -> tuple[Tokenized, Ints | None]:
        """Return the distinct rows and each row's index into them, or all rows and None if few repeat."""
        keys = [self.ids.row(i).tobytes() if valid else None for i, valid in enumerate(self.valid)]
        _, index = deduplicate(keys)
        if index is None:
            return self, None
        _, first_rows = np.unique(index, return_index=True)  # the first row of each distinct one
        return Tokenized.from_ids(self.ids.take(first_rows), self.valid[first_rows]), index


@dataclass(kw_only=True)
class Embedded(RowInfo):
    """Rows with their vectors, on the runtime's device.

    ``matrix``: shape (n, d), of the settings' ``embedding_dtype``; rows that are not valid hold zeros.
    ``extra``: one more matrix per extra output, by its name. ``lists``: with a pooling of `LIST_COLUMNS` a list
    per row, on the host, and a matrix without dimensions; else None. A list of a row that is not valid is not
    meaningful.
    """

    matrix: torch.Tensor
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    lists: Lists | None = None

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
        """Concatenate the rows of several slabs.

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
        lists = [part.lists for part in parts if part.lists is not None]
        out = cls(
            matrix=matrix,
            valid=np.concatenate([np.empty(0, np.bool_), *(part.valid for part in parts)]),
            n_tokens=np.concatenate([np.empty(0, np.int64), *(part.n_tokens for part in parts)]),
            truncated=np.concatenate([np.empty(0, np.bool_), *(part.truncated for part in parts)]),
            origins=Origins.concat(origins, first_texts) if origins else None,
            lists=Lists.concat(lists) if lists else None,
        )
        for part, first in zip(parts, first_texts, strict=True):
            out.stats += part.stats
            out.failures |= {first + text: reason for text, reason in part.failures.items()}
        return out

    def fail(self, row: int, reason: str) -> None:
        """Record why a row failed: it becomes null, and its vectors zeros."""
        text = row if self.text_positions is None else int(self.text_positions[row])
        self.failures[text] = reason
        self.valid[row] = False
        for matrix in (self.matrix, *self.extra.values()):
            matrix[row] = 0

    def expand(self, index: Ints, nulls: int) -> Embedded:
        """Undo `deduplicate`: return one row per original row, where row i is a copy of row ``index[i]``."""
        n_distinct = self.stats.rows - self.stats.nulls
        repeats = len(index) - nulls - n_distinct
        rows = torch.from_numpy(index).to(self.matrix.device)
        return replace(
            self,
            matrix=self.matrix[rows],
            extra={name: matrix[rows] for name, matrix in self.extra.items()},
            lists=None if self.lists is None else self.lists.take(index),
            valid=self.valid[index],
            n_tokens=self.n_tokens[index],
            truncated=self.truncated[index],
            stats=replace(self.stats, rows=len(index), nulls=nulls, shared=repeats),
            failures=expand_failures(self.failures, index),
        )


def deduplicate(values: Sequence[_Key]) -> tuple[Sequence[_Key], Ints | None]:
    """Return the distinct values and each row's index into them, or all values and None if few repeat.

    Nothing is deduplicated if a value is not a str, bytes or None, because other types may not be hashable.
    Hashing takes a thousandth of the time of embedding.
    """
    if set(map(type, values)) - {str, bytes, NoneType}:
        return values, None
    positions: dict[_Key, int] = {}
    # A new value gets the next position, a repeated one keeps its own.
    indices = (positions.setdefault(value, len(positions)) for value in values)
    index = np.fromiter(indices, np.int64, len(values))
    if len(positions) > (1 - MIN_REPEATED) * len(values):
        return values, None
    return list(positions), index


def expand_failures(failures: dict[int, str], index: Ints | None) -> dict[int, str]:
    """Return the failures of all rows, given those of the distinct rows; without an index all are distinct."""
    if index is None or not failures:
        return failures
    rows = enumerate(index.tolist())
    return {row: failures[distinct] for row, distinct in rows if distinct in failures}
