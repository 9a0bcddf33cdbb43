"""The texts of a partition in a GPU's memory: nulls, prompts and equal texts.

The caller passes the dataframe library's functions (`GpuTextOps`). Besides, only such methods of a column are
used as pandas has too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..ragged import Bools, Ints
from ..rows import MIN_REPEATED
from ..settings import Settings
from .reader import TextReader
from .wordpiece import WordPiece


class GpuTextOps(Protocol):
    """The functions for text columns on a GPU; `frames.cudf_wordpiece` has them."""

    def make_column(self, texts: Sequence[str]) -> Any:
        """Make a column of texts."""

    def read_texts(self, column: Any) -> list[str]:
        """Return the texts of a column without nulls on the host."""

    def factorize(self, column: Any) -> tuple[Ints, Any]:
        """Return each row's index into the distinct texts, on the host, and the column of these."""

    def int_tensor(self, column: Any) -> Tensor:
        """Return a column of integers as an int32 tensor on the GPU."""

    def packed_chars(self, column: Any) -> Tensor:
        """Return the UTF-8 bytes of every character as one int32, as `decode_utf8` takes them."""

    def normalize(self, column: Any, wordpiece: WordPiece) -> Any:
        """Normalize texts, and put blanks around punctuation."""

    def tokenize(self, column: Any, wordpiece: WordPiece) -> tuple[Tensor, Tensor]:
        """Return the ids of normalized texts and their n + 1 offsets, int32 tensors on the GPU."""


@dataclass(frozen=True)
class GpuTexts:
    """The texts of a partition on the GPU.

    ``column``: the texts that are not null, with the prompt. ``valid``: which rows have a text. ``index``: each
    row's index into these rows, if equal texts were deduplicated. ``nulls``: nulls of the partition.
    """

    column: Any
    valid: Bools
    index: Ints | None
    nulls: int


def read_column(
    series: Any, ops: GpuTextOps, reader: TextReader, settings: Settings, *, deduplicate: bool
) -> GpuTexts:
    """Shorten the texts of a column, deduplicate them, and add the prompt."""
    # Columns computed from an Arrow-backed column are Arrow-backed too, so convert first.
    column = series.dropna().reset_index(drop=True).astype("str")
    valid: Bools = series.notna().astype("bool").to_numpy()
    nulls = int((~valid).sum())
    if settings.max_chars is not None:
        column = column.str.slice(0, settings.max_chars)
    index = None
    if deduplicate and 0 < column.nunique() <= (1 - MIN_REPEATED) * len(column):
        places, column = ops.factorize(column)
        # The nulls share the row after the distinct texts.
        index = np.full(len(valid), len(column), np.int64)
        index[valid] = places
        valid = np.arange(len(column) + bool(nulls)) < len(column)
    if reader.prompt:
        column = column.str.slice_replace(0, 0, reader.prompt)
    return GpuTexts(column, valid, index, nulls)
