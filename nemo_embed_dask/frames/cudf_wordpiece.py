"""Tokenize text columns on the GPU by cuDF's WordPiece; has the functions of `tokens.cudf.GpuTextOps`.

The parameter ``max_words_per_row`` of libcudf is not used, because (by its source) it drops the last of a row's
one-letter words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cudf
import numpy as np
import torch
from cudf.core.character_normalizer import CharacterNormalizer
from cudf.core.wordpiece_tokenize import WordPieceVocabulary
from torch import Tensor

from ..ragged import Bools, Ints, Ragged
from ..tokens.wordpiece import WordPiece, decode_utf8, may_differ
from . import cudf as ops


def make_column(texts: Sequence[str]) -> Any:
    """Make a column of texts."""
    return cudf.Series(list(texts), dtype="str")


def prepare(series: Any, prompt: str, max_chars: int | None) -> tuple[Any, Bools]:
    """Return the rows that are not null, shortened and after the prompt, and which rows these are."""
    # Columns computed from an Arrow-backed column are Arrow-backed too, so convert first.
    kept = series.dropna().reset_index(drop=True).astype("str")
    kept = kept if max_chars is None else kept.str.slice(0, max_chars)
    return kept.str.insert(0, prompt) if prompt else kept, series.notna().astype("bool").to_numpy()


def read_texts(column: Any, rows: Bools) -> list[str]:
    """Return some rows as strings on the host."""
    return ops.read_texts(column.iloc[np.flatnonzero(rows)]) if rows.any() else []  # type: ignore[return-value]


@lru_cache(maxsize=4)
def _load(wordpiece: WordPiece) -> tuple[Any, Any]:
    """Load the normalizer and the vocabulary onto the GPU of this process."""
    return CharacterNormalizer(wordpiece.lowercase), WordPieceVocabulary(make_column(wordpiece.vocabulary))


def char_counts(column: Any) -> Ints:
    """Return the number of characters of each row."""
    counts: Ints = column.str.len().to_numpy().astype(np.int64)
    return counts


def tokenize_heads(column: Any, wordpiece: WordPiece, chars: int) -> tuple[Ragged, Bools]:
    """Tokenize the first ``chars`` characters of each row; return the ids and which rows may be wrong."""
    normalizer, vocabulary = _load(wordpiece)
    head = column.str.slice(0, chars)
    ids, _, _ = ops.read_tokens(vocabulary.tokenize(normalizer.normalize(head)))
    codes = decode_utf8(_int_tensor(head.str.code_points()))
    differ = may_differ(codes, _int_tensor(head.str.len()), wordpiece.specials)
    return ids, differ.cpu().numpy()


def _int_tensor(series: Any) -> Tensor:
    column, _ = series.astype("int32").to_pylibcudf()
    return ops._share_column(column, torch.int32)
