"""Tokenize text columns on the GPU by cuDF's WordPiece; has the functions of `tokens.cudf.GpuTextOps`.

The parameter ``max_words_per_row`` of libcudf is not used, because (by its source) it drops the last of a row's
one-letter words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cudf
import torch
from cudf.core.character_normalizer import CharacterNormalizer
from cudf.core.wordpiece_tokenize import WordPieceVocabulary
from torch import Tensor

from ..ragged import Ints
from ..tokens.wordpiece import WordPiece
from . import cudf as ops


def make_column(texts: Sequence[str]) -> Any:
    """Make a column of texts."""
    return cudf.Series(list(texts), dtype="str")


def read_texts(column: Any) -> list[str]:
    """Return the texts of a column without nulls on the host."""
    return ops.read_texts(column)  # type: ignore[return-value]


def factorize(column: Any) -> tuple[Ints, Any]:
    """Return each row's index into the distinct texts, on the host, and the column of these."""
    codes, distinct = column.factorize()
    return codes.get(), cudf.Series(distinct)


def int_tensor(column: Any) -> Tensor:
    """Return a column of integers as an int32 tensor on the GPU."""
    values, _ = column.astype("int32").to_pylibcudf()
    return ops._share_column(values, torch.int32)


def packed_chars(column: Any) -> Tensor:
    """Return the UTF-8 bytes of every character as one int32; cuDF calls them code points."""
    return int_tensor(column.str.code_points())


@lru_cache(maxsize=4)
def _load(wordpiece: WordPiece) -> tuple[Any, Any]:
    """Load the normalizer and the vocabulary onto the GPU of this process."""
    return CharacterNormalizer(wordpiece.lowercase), WordPieceVocabulary(make_column(wordpiece.vocabulary))


def normalize(column: Any, wordpiece: WordPiece) -> Any:
    """Normalize texts, and put blanks around punctuation."""
    return _load(wordpiece)[0].normalize(column)


def tokenize(column: Any, wordpiece: WordPiece) -> tuple[Tensor, Tensor]:
    """Return the ids of normalized texts and their n + 1 offsets, int32 tensors on the GPU."""
    lists, _ = _load(wordpiece)[1].tokenize(column).to_pylibcudf()
    offsets, values = lists.children()
    return ops._share_column(values, torch.int32), ops._share_column(offsets, torch.int32)
