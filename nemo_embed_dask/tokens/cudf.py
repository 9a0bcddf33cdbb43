"""Tokenize a text column on a GPU by cuDF's WordPiece.

Rows for which the ids of cuDF and Hugging Face may differ are tokenized by Hugging Face on the host, so that
the ids are always those of Hugging Face. The caller passes the dataframe library's functions (`GpuTextOps`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from .. import batching
from ..errors import ModelError
from ..ragged import Bools, Ints, Ragged
from ..rows import Tokenized
from ..settings import Settings
from .copies import TokenizerCopies
from .huggingface import Tokens
from .reader import TextReader
from .wordpiece import LONGEST_WORD, WordPiece, read_wordpiece, unsupported

# Characters that the GPU reads at once; each takes about 30 bytes.
_SLAB_CHARS = 1 << 24
# The GPU reads at most this many characters of a text for each token of the limit. A text that needs more is
# tokenized on the host.
_MAX_CHARS_PER_TOKEN = 16
# Texts for which both libraries must give the same ids before cuDF is used.
PROBES = (
    "", " ", "a", "The quick brown fox, it's jumped over 13.5% of the lazy dogs!", "unaffable embeddings",
    "Crème brûlée à Zürich, ÅNGSTRÖM & Łódź", "Привет, мир! Ёлка", "Ελληνικά: ΟΔΥΣΣΕΥΣ", "你好，世界。",  # noqa: RUF001
    "こんにちは カタカナ ﾊﾝｶｸ", "한국어 문장", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "שלום עולם",
    "tabs\tand\r\nlines  and\u00a0\u3000spaces", "x" * 99, "a_b-c/d\\e[f]{g}<h>@i#j$k^l~m`n|o", "½ ﬁ ™ € ≤ → █",
)  # fmt: skip


class GpuTextOps(Protocol):
    """The functions for text columns on a GPU; `frames.cudf_wordpiece` has them."""

    def make_column(self, texts: Sequence[str]) -> Any:
        """Make a column of texts."""

    def prepare(self, series: Any, prompt: str, max_chars: int | None) -> tuple[Any, Bools]:
        """Return the texts that are not null, shortened and with the prompt, and a mask of their rows."""

    def read_texts(self, column: Any, rows: Bools) -> list[str]:
        """Return some rows as strings on the host."""

    def char_counts(self, column: Any) -> Ints:
        """Return the number of characters of each row."""

    def tokenize_heads(self, column: Any, wordpiece: WordPiece, chars: int) -> tuple[Ragged, Bools]:
        """Tokenize the first ``chars`` characters of each row; return the ids and which rows may be wrong."""


@lru_cache(maxsize=8)
def wordpiece_of(tokenizer: TokenizerCopies) -> WordPiece:
    """Return the tokenizer in the form that cuDF uses.

    Raises
    ------
    ConfigError
        It is not a WordPiece tokenizer of BERT.
    """
    if not tokenizer.prefix:  # such as a static model's, in which a row can be without tokens
        raise unsupported("it adds no special token before a text")
    return read_wordpiece(tokenizer.state)


def tokenize_column(series: Any, ops: GpuTextOps, reader: TextReader, settings: Settings) -> Tokenized:
    """Tokenize a text column; a null has no tokens and is not valid.

    Raises
    ------
    ConfigError
        cuDF does not support the model's tokenizer.
    ModelError
        The ids of cuDF and Hugging Face differ for `PROBES`.
    """
    start = time.perf_counter()
    wordpiece = wordpiece_of(reader.tokenizer)
    _check_ids(ops, wordpiece, reader)
    column, valid = ops.prepare(series, reader.prompt, settings.max_chars)
    tokens, _ = _encode(column, ops, wordpiece, reader)
    out = Tokenized.from_present(tokens.ids, tokens.truncated, rows=valid, count=len(valid))
    out.stats.nulls = int((~valid).sum())
    out.stats.tokenize_s = time.perf_counter() - start
    return out


def _encode(column: Any, ops: GpuTextOps, wordpiece: WordPiece, reader: TextReader) -> tuple[Tokens, Bools]:
    """Tokenize all rows; return their tokens, and a mask of the rows that Hugging Face tokenized."""
    max_text_tokens = reader.limit - reader.tokenizer.n_special_tokens
    # A cut may change only the last word before it, and a word has at most LONGEST_WORD tokens.
    enough_tokens = max_text_tokens + LONGEST_WORD
    max_chars = _MAX_CHARS_PER_TOKEN * enough_tokens
    lengths = ops.char_counts(column)
    sizes = np.minimum(lengths, max_chars)
    slabs, masks = [], [np.empty(0, np.bool_)]
    for rows in batching.slabs(sizes, max_size=_SLAB_CHARS, max_rows=len(sizes)):
        ids, differ = ops.tokenize_heads(column.iloc[rows], wordpiece, max_chars)
        too_few = (lengths[rows] > max_chars) & (ids.lengths < enough_tokens)
        masks.append(differ | too_few)
        slabs.append(ids)
    ids, on_host = Ragged.concat(slabs), np.concatenate(masks)
    by_gpu = ids.clip(max_text_tokens).surround(reader.tokenizer.prefix, reader.tokenizer.suffix)
    by_host = reader.tokenizer.encode(ops.read_texts(column, on_host), reader.limit)
    # Rows of the host replace those of the GPU.
    order = np.arange(len(ids))
    order[on_host] = len(ids) + np.arange(len(by_host.ids))
    truncated = np.concatenate([ids.lengths > max_text_tokens, by_host.truncated])[order]
    return Tokens(Ragged.concat([by_gpu, by_host.ids]).take(order), truncated), on_host


_checked: set[WordPiece] = set()
_check_lock = threading.Lock()


def _check_ids(ops: GpuTextOps, wordpiece: WordPiece, reader: TextReader) -> None:
    """Raise ModelError if cuDF gives other ids than Hugging Face for `PROBES`; runs once per process."""
    with _check_lock:
        if wordpiece in _checked:
            return
        found, on_host = _encode(ops.make_column(PROBES), ops, wordpiece, reader)
        expected = reader.tokenizer.encode(PROBES, reader.limit)
        for i, text in enumerate(PROBES):
            found_ids, expected_ids = found.ids.row(i).tolist(), expected.ids.row(i).tolist()
            if found_ids != expected_ids:
                raise ModelError(
                    f"cuDF's WordPiece tokenizes {text!r} to {found_ids}, but Hugging Face to {expected_ids}; "
                    "pass tokenizer='huggingface', and report this with your version of RAPIDS"
                )
        if on_host.all():
            raise ModelError("cuDF's WordPiece tokenized none of the probe texts; pass tokenizer='huggingface'")
        _checked.add(wordpiece)
