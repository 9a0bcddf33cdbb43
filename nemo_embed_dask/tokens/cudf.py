"""A text column on a GPU to token rows, by cuDF's WordPiece. Names no dataframe: that part is handed in.

Rows that cuDF may read otherwise than Hugging Face go to Hugging Face on the host, so that ids are the same.
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
from ..ragged import Ints, Ragged
from ..rows import Bools, Tokenized
from ..settings import Settings, Stats
from .copies import TokenizerCopies
from .huggingface import Tokens
from .texts import TextReader
from .wordpiece import LONGEST_WORD, WordPiece, read_wordpiece

# Characters that the GPU reads at once, at some 30 bytes each. Of each text so many a wanted token are read
# there, and room for the word that a cut may fall in; a text that needs more goes to the host, which reads on.
_WINDOW_CHARS, _CHARS_PER_TOKEN = 1 << 24, 16
# What both must read alike before cuDF is believed: words, marks, scripts, blanks, numbers, nothing.
PROBES = (
    "", " ", "a", "The quick brown fox, it's jumped over 13.5% of the lazy dogs!", "unaffable embeddings",
    "Crème brûlée à Zürich, ÅNGSTRÖM & Łódź", "Привет, мир! Ёлка", "Ελληνικά: ΟΔΥΣΣΕΥΣ", "你好，世界。",  # noqa: RUF001
    "こんにちは カタカナ ﾊﾝｶｸ", "한국어 문장", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "שלום עולם",
    "tabs\tand\r\nlines  and\u00a0\u3000spaces", "x" * 99, "a_b-c/d\\e[f]{g}<h>@i#j$k^l~m`n|o", "½ ﬁ ™ € ≤ → █",
)  # fmt: skip


class GpuTextOps(Protocol):
    """What a dataframe library on a GPU must offer: `frames.cudf_wordpiece`."""

    def make_column(self, texts: Sequence[str]) -> Any:
        """Texts as a column."""

    def prepare(self, series: Any, prompt: str, max_chars: int | None) -> tuple[Any, Bools]:
        """The rows that are not null, cut and with the prompt before them, and which rows these are."""

    def read_texts(self, column: Any, rows: Bools) -> list[str]:
        """Some rows on the host."""

    def char_counts(self, column: Any) -> Ints:
        """Characters of each row."""

    def tokenize_heads(self, column: Any, wordpiece: WordPiece, chars: int) -> tuple[Ragged, Bools]:
        """Ids of each row's first characters, and which rows are doubtful."""


@lru_cache(maxsize=8)
def wordpiece_of(tokenizer: TokenizerCopies) -> WordPiece:
    """The tokenizer as cuDF takes it.

    Raises
    ------
    ConfigError
        It is none of BERT's.
    """
    return read_wordpiece(tokenizer.state)


def tokenize_column(series: Any, library: GpuTextOps, reader: TextReader, settings: Settings) -> Tokenized:
    """Tokenize a text column; a null gives no tokens and is not valid.

    Raises
    ------
    ConfigError
        cuDF cannot stand for the model's tokenizer.
    ModelError
        It gives other ids than Hugging Face for `PROBES`.
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
    """All rows' tokens, and which of them Hugging Face read."""
    room = reader.limit - reader.tokenizer.n_special_tokens
    chars = _CHARS_PER_TOKEN * (room + LONGEST_WORD)
    lengths, parts, left = library.char_counts(column), [], []
    read = np.minimum(lengths, chars)
    for span in batching.slabs(read, max_size=_WINDOW_CHARS, max_rows=len(read)):
        ids, doubt = library.tokenize_heads(column.iloc[span], wordpiece, chars)
        # Only the last word that is read may be cut, and it makes no more tokens than it weighs.
        left.append(doubt | ((lengths[span] > chars) & (ids.lengths < room + LONGEST_WORD)))
        parts.append(ids)
    ids, host = Ragged.concat(parts), np.concatenate([np.empty(0, np.bool_), *left])
    framed = ids.clip(room).surround(reader.tokenizer.prefix, reader.tokenizer.suffix)
    others = reader.tokenizer.encode(library.read_texts(column, host), reader.limit)
    order = np.arange(len(ids))
    order[host] = len(ids) + np.arange(len(others.ids))
    truncated = np.concatenate([ids.lengths > room, others.truncated])[order]
    return Tokens(Ragged.concat([framed, others.ids]).take(order), truncated), host


_checked: set[WordPiece] = set()
_check_lock = threading.Lock()


def _check(library: GpuTextOps, wordpiece: WordPiece, reader: TextReader) -> None:
    """Once in a process: `PROBES` must have the ids that Hugging Face gives them."""
    with _check_lock:
        if wordpiece in _checked:
            return
        found, host = _encode(library.make_column(PROBES), library, wordpiece, reader)
        expected = reader.tokenizer.encode(PROBES, reader.limit)
        for i, text in enumerate(PROBES):
            a, b = found.ids.row(i).tolist(), expected.ids.row(i).tolist()
            if a != b:
                raise ModelError(
                    f"cuDF's WordPiece reads {text!r} as {a} and Hugging Face as {b}; pass tokenizer="
                    "'huggingface', and tell the maintainers which RAPIDS this is"
                )
        if host.all():
            raise ModelError("no probe was read by cuDF's WordPiece; pass tokenizer='huggingface'")
        _checked.add(wordpiece)
