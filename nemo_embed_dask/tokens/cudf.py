"""Tokenize a text column on a GPU by cuDF's WordPiece.

Rows for which the ids of cuDF and Hugging Face may differ are tokenized by Hugging Face on the host, so that
the ids are always those of Hugging Face. The functions of the dataframe library are passed in (`GpuTextOps`).
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
from ..settings import Settings, Stats
from .copies import TokenizerCopies
from .huggingface import Tokens
from .texts import TextReader
from .wordpiece import LONGEST_WORD, WordPiece, read_wordpiece

# Characters that the GPU reads at once; each takes about 30 bytes.
_SLAB_CHARS = 1 << 24
# Characters of a text that the GPU reads per token that is kept. A text that needs more is left to the host.
_CHARS_PER_TOKEN = 16
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
        """Return the rows that are not null, shortened and after the prompt, and which rows these are."""

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
    return read_wordpiece(tokenizer.state)


def tokenize_column(series: Any, library: GpuTextOps, reader: TextReader, settings: Settings) -> Tokenized:
    """Tokenize a text column; a null has no tokens and is not valid.

    Raises
    ------
    ConfigError
        cuDF does not have the model's tokenizer.
    ModelError
        The ids of cuDF and Hugging Face differ for `PROBES`.
    """
    start = time.perf_counter()
    wordpiece = wordpiece_of(reader.tokenizer)
    _check(library, wordpiece, reader)
    column, valid = library.prepare(series, reader.prompt, settings.max_chars)
    tokens, _ = _encode(column, library, wordpiece, reader)
    lengths, truncated = np.zeros(len(valid), np.int64), np.zeros(len(valid), np.bool_)
    lengths[valid], truncated[valid] = tokens.ids.lengths, tokens.truncated
    stats = Stats(
        rows=len(valid), nulls=int((~valid).sum()), tokens=len(tokens.ids.values),
        truncated=int(truncated.sum()), tokenize_s=time.perf_counter() - start,
    )  # fmt: skip
    ids = Ragged.from_lengths(tokens.ids.values, lengths)
    return Tokenized(ids=ids, valid=lengths > 0, n_tokens=lengths, truncated=truncated, stats=stats)


def _encode(column: Any, library: GpuTextOps, wordpiece: WordPiece, reader: TextReader) -> tuple[Tokens, Bools]:
    """Tokenize all rows, and return which of them Hugging Face tokenized."""
    room = reader.limit - reader.tokenizer.n_special_tokens
    chars = _CHARS_PER_TOKEN * (room + LONGEST_WORD)
    lengths, slabs, on_host = library.char_counts(column), [], [np.empty(0, np.bool_)]
    read = np.minimum(lengths, chars)
    for rows in batching.slabs(read, max_size=_SLAB_CHARS, max_rows=len(read)):
        ids, differ = library.tokenize_heads(column.iloc[rows], wordpiece, chars)
        # A cut may change only the last word that is read, and a word has at most LONGEST_WORD tokens.
        unfinished = (lengths[rows] > chars) & (ids.lengths < room + LONGEST_WORD)
        on_host.append(differ | unfinished)
        slabs.append(ids)
    ids, host = Ragged.concat(slabs), np.concatenate(on_host)
    by_gpu = ids.clip(room).surround(reader.tokenizer.prefix, reader.tokenizer.suffix)
    by_host = reader.tokenizer.encode(library.read_texts(column, host), reader.limit)
    # Rows of the host replace those of the GPU.
    order = np.arange(len(ids))
    order[host] = len(ids) + np.arange(len(by_host.ids))
    truncated = np.concatenate([ids.lengths > room, by_host.truncated])[order]
    return Tokens(Ragged.concat([by_gpu, by_host.ids]).take(order), truncated), host


_checked: set[WordPiece] = set()
_check_lock = threading.Lock()


def _check(library: GpuTextOps, wordpiece: WordPiece, reader: TextReader) -> None:
    """Raise ModelError if cuDF gives other ids than Hugging Face for `PROBES`; runs once per process."""
    with _check_lock:
        if wordpiece in _checked:
            return
        found, host = _encode(library.make_column(PROBES), library, wordpiece, reader)
        expected = reader.tokenizer.encode(PROBES, reader.limit)
        for i, text in enumerate(PROBES):
            ours, theirs = found.ids.row(i).tolist(), expected.ids.row(i).tolist()
            if ours != theirs:
                raise ModelError(
                    f"cuDF's WordPiece tokenizes {text!r} to {ours}, but Hugging Face to {theirs}; pass "
                    "tokenizer='huggingface', and report this with your version of RAPIDS"
                )
        if host.all():
            raise ModelError("cuDF's WordPiece tokenized none of the probe texts; pass tokenizer='huggingface'")
        _checked.add(wordpiece)
