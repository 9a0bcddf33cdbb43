"""Texts of one partition to token rows, nulls and bad values among them. Knows no model that runs.

Prompts are put before the text here, so that they count in the limit; long texts are cut here, or handed
on whole where the engine pools their windows.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import NoneType

import numpy as np
import numpy.typing as npt

from .. import runtimes
from ..device import tokenizer_copy_count
from ..errors import ConfigError, RowError
from ..models.card import ModelCard, find_prompt, length_limit, read_card
from ..models.locate import find_model
from ..ragged import Ints, Ragged
from ..settings import Settings, Stats
from .copies import TokenizerCopies
from .huggingface import Tokenizer
from .windows import Windows, split

Bools = npt.NDArray[np.bool_]
# More tokens than any text has: read it whole.
_WHOLE = 1 << 40
# Code points that UTF-8 cannot encode.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_BAD = (TypeError, ValueError, AttributeError)


@dataclass(frozen=True, eq=False)
class Spans:
    """Where windows come from: text row, number in it, and the characters ``[start, end)``; int64 ``[m]``."""

    rows: Ints
    numbers: Ints
    char_start: Ints
    char_end: Ints

    @classmethod
    def concat(cls, parts: Sequence[Spans], firsts: Sequence[int]) -> Spans:
        """All of them, in order; ``firsts`` is the text row that each part begins at."""
        if not parts:
            none = np.empty(0, np.int64)
            return cls(none, none, none, none)
        rows = np.concatenate([part.rows + first for part, first in zip(parts, firsts, strict=True)])
        names = ("numbers", "char_start", "char_end")
        return cls(rows, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass
class Tokenized:
    """Tokens of texts, nulls among them.

    ``ids``: one row a text, empty where there is none; with ``spans``, one row a window. ``valid``: bool,
    False for a null or a failed row. ``truncated``: bool, whether tokens were cut from it. ``failures``:
    row position -> what is wrong with it.
    """

    ids: Ragged
    valid: Bools
    stats: Stats
    failures: dict[int, str] = field(default_factory=dict)
    truncated: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    spans: Spans | None = None


@dataclass(frozen=True)
class Reader:
    """How texts of these settings are read.

    ``lead``, ``trail``: tokens that frame every row, the prompt among them. ``skip``: tokens at its start
    that are not pooled.
    """

    tokenizer: TokenizerCopies
    limit: int
    prompt: str
    lead: int
    trail: int
    skip: int

    def split(self, ids: Ragged, overlap: int) -> Windows:
        """Whole rows as windows of at most the limit."""
        return split(ids, limit=self.limit, overlap=overlap, n_prefix=self.lead, n_suffix=self.trail)


def card_of(settings: Settings) -> ModelCard:
    """Find the model and read its card."""
    return read_card(find_model(settings.model))


_tokenizers: dict[tuple[str, bool], TokenizerCopies] = {}
_tokenizer_lock = threading.Lock()


def tokenizer_of(card: ModelCard) -> TokenizerCopies:
    """The model's tokenizer, loaded once per process."""
    key = (str(card.path), card.lowercase)
    with runtimes.loading, _tokenizer_lock:
        if key not in _tokenizers:
            make = partial(Tokenizer.from_directory, card.path, lowercase=card.lowercase)
            _tokenizers[key] = TokenizerCopies(make, tokenizer_copy_count())
        return _tokenizers[key]


def reader_of(settings: Settings) -> Reader:
    """How texts are read under these settings.

    Raises
    ------
    ConfigError
        The prompt or the overlap leaves no room for text.
    """
    card = card_of(settings)
    tokenizer, limit = tokenizer_of(card), length_limit(card, settings.max_seq_length)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    trail, lead, skip = len(tokenizer.suffix), len(tokenizer.prefix), 0
    if prompt:
        # A prompt's last tokens may merge with the text; what stays the same before any text frames a window.
        alone, before = (tokenizer.encode([text], _WHOLE).ids.values for text in (prompt, f"{prompt}a"))
        same = alone[: len(before)] == before[: len(alone)]
        lead = min(int(np.logical_and.accumulate(same).sum()), len(alone) - trail)
        skip = 0 if card.include_prompt else len(alone) - min(1, trail)
    overlap = settings.overlap if settings.long_documents != "truncate" else 0
    if lead + trail + overlap >= limit:
        raise ConfigError(
            f"{lead + trail} tokens of prompt and special tokens and an overlap of {overlap} leave no room for "
            f"text in {limit} tokens; shorten the prompt or the overlap, or raise max_seq_length"
        )
    return Reader(tokenizer, limit, prompt, lead, trail, skip)


def tokenize_texts(texts: Sequence[str | None], settings: Settings) -> Tokenized:
    """Tokenize texts; a null gives no tokens and is not valid.

    With ``long_documents="mean"`` rows are whole, whatever their length; with "explode" there is a row a
    window, and ``spans`` says of what.

    Raises
    ------
    RowError
        A value is no string or no valid Unicode, and ``on_error`` is "raise".
    """
    out = tokenize(texts, settings)
    raise_unless_null(out.failures, settings)
    return out


def tokenize(texts: Sequence[str | None], settings: Settings) -> Tokenized:
    """As `tokenize_texts`, but failures are only recorded. Texts on the host are Hugging Face's to read."""
    start = time.perf_counter()
    reader = reader_of(settings)
    failures = _not_strings(texts)
    nulls = sum(text is None for text in texts)
    present = {i: text for i, text in enumerate(texts) if text is not None and i not in failures}
    rows = np.fromiter(present, np.int64, len(present))
    # str.__str__ is the characters themselves, whatever a subclass makes of itself.
    whole = [reader.prompt + str.__str__(text)[: settings.max_chars] for text in present.values()]
    read = _read_windows if settings.long_documents == "explode" else _read_rows
    try:
        out = read(whole, rows, len(texts), reader, settings)
    except _BAD:
        bad = {i: why for i, text in enumerate(whole) if (why := _fault(reader.tokenizer, text))}
        failures |= {int(rows[i]): why for i, why in bad.items()}
        good = np.delete(np.arange(len(rows)), list(bad))
        out = read([whole[i] for i in good], rows[good], len(texts), reader, settings)
    out.failures = dict(sorted(failures.items()))
    out.stats.rows, out.stats.nulls, out.stats.tokenize_s = len(texts), nulls, time.perf_counter() - start
    return out


def _not_strings(texts: Sequence[object]) -> dict[int, str]:
    """Rows that hold neither a string nor None, and why they fail.

    They must not reach the tokenizers library, which takes a list or tuple of two strings as a pair of texts.
    """
    wrong = {kind for kind in set(map(type, texts)) if not issubclass(kind, (str, NoneType))}
    if not wrong:
        return {}
    return {
        i: f"not a string but a value of type {type(text).__name__}"
        for i, text in enumerate(texts)
        if type(text) in wrong
    }


def _spread(values: npt.NDArray[np.generic], rows: Ints, count: int) -> npt.NDArray[np.generic]:
    out = np.zeros(count, values.dtype)
    out[rows] = values
    return out


def _read_rows(texts: list[str], rows: Ints, count: int, reader: Reader, settings: Settings) -> Tokenized:
    tokens = reader.tokenizer.encode(texts, _WHOLE if settings.long_documents == "mean" else reader.limit)
    lengths = _spread(tokens.ids.lengths, rows, count).astype(np.int64)
    stats = Stats(tokens=len(tokens.ids.values), truncated=int(tokens.truncated.sum()))
    truncated = _spread(tokens.truncated, rows, count).astype(np.bool_)
    ids = Ragged.from_lengths(tokens.ids.values, lengths)
    return Tokenized(ids, lengths > 0, stats, truncated=truncated)


def _read_windows(texts: list[str], rows: Ints, count: int, reader: Reader, settings: Settings) -> Tokenized:
    """A row a window; the characters are those from its first token's to its last one's."""
    ids, begins, ends = reader.tokenizer.encode_with_offsets(texts)
    lengths = _spread(ids.lengths, rows, count).astype(np.int64)
    chunks = reader.split(Ragged.from_lengths(ids.values, lengths), settings.overlap)
    # Offsets cover the text's own tokens and the prompt, so they are shifted by both frames.
    framed = reader.tokenizer.n_special_tokens * (lengths > 0)
    first = np.cumsum(lengths - framed) - (lengths - framed)
    first = first[chunks.rows] + chunks.starts + (reader.lead - len(reader.tokenizer.prefix))
    has = chunks.sizes > 0
    char_start, char_end = np.zeros((2, len(has)), np.int64)
    char_start[has] = np.maximum(0, begins[first[has]] - len(reader.prompt))
    char_end[has] = np.maximum(0, ends[first[has] + chunks.sizes[has] - 1] - len(reader.prompt))
    stats = Stats(tokens=len(chunks.ids.values))
    spans = Spans(chunks.rows, chunks.numbers, char_start, char_end)
    return Tokenized(
        chunks.ids, chunks.ids.lengths > 0, stats, truncated=np.zeros(len(has), np.bool_), spans=spans
    )


def _fault(tokenizer: TokenizerCopies, text: str) -> str | None:
    try:
        tokenizer.encode([text], tokenizer.n_special_tokens + 1)
    except _BAD as error:
        if isinstance(text, str) and _SURROGATE.search(text):
            return "no valid text: a lone surrogate or invalid UTF-8"
        return f"no valid text ({type(text).__name__}): {error}".splitlines()[0][:200]
    return None


def raise_unless_null(failures: dict[int, str], settings: Settings) -> None:
    """Stop for failed rows, unless they are to become nulls."""
    if failures and settings.on_error == "raise":
        row, why = next(iter(failures.items()))
        more = f" and {len(failures) - 1} more rows" if len(failures) > 1 else ""
        reason = f"{why}. Mend or drop the row, or pass on_error='null' to give it a null vector"
        raise RowError(f"row {row}{more}: {reason}", tuple(failures), reason)
