"""cuDF: texts to token ids without leaving the GPU. Satisfies `tokens.cudf.GpuTextOps`.

libcudf's ``max_words_per_row`` is not used: by its source it loses the last of a row's one-letter words.
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

from ..ragged import Ints, Ragged
from ..tokens.wordpiece import WordPiece, may_differ
from . import Bools
from . import cudf as ops


def make_column(texts: Sequence[str]) -> Any:
    """Texts as a column."""
    return cudf.Series(list(texts), dtype="str")


def prepare(series: Any, prompt: str, max_chars: int | None) -> tuple[Any, Bools]:
    """The rows that are not null, cut and with the prompt before them, and which rows these are."""
    # Arrow-backed columns would hand their kind on to every column made of them.
    there = series.dropna().reset_index(drop=True).astype("str")
    there = there if max_chars is None else there.str.slice(0, max_chars)
    return there.str.insert(0, prompt) if prompt else there, series.notna().astype("bool").to_numpy()


def read_texts(column: Any, rows: Bools) -> list[str]:
    """Some rows on the host."""
    return ops.read_texts(column.iloc[np.flatnonzero(rows)]) if rows.any() else []  # type: ignore[return-value]


@lru_cache(maxsize=4)
def _tools(wordpiece: WordPiece) -> tuple[Any, Any]:
    """Normalizer and vocabulary, on the GPU of this process."""
    return CharacterNormalizer(wordpiece.lowercase), WordPieceVocabulary(make_column(wordpiece.vocabulary))


def char_counts(column: Any) -> Ints:
    """Characters of each row."""
    found: Ints = column.str.len().to_numpy().astype(np.int64)
    return found


def tokenize_heads(column: Any, wordpiece: WordPiece, chars: int) -> tuple[Ragged, Bools]:
    """Ids of each row's first characters, and which rows may differ."""
    normalizer, vocabulary = _tools(wordpiece)
    head = column.str.slice(0, chars)
    ids, _ = ops.read_tokens(vocabulary.tokenize(normalizer.normalize(head)))
    doubt = may_differ(_ints(head.str.code_points()), _ints(head.str.len()), wordpiece.specials)
    return ids, doubt.cpu().numpy()


def _ints(series: Any) -> Tensor:
    return ops._values(series.astype("int32").to_pylibcudf()[0], torch.int32)
