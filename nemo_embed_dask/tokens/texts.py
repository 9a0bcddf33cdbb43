"""Tokenize the texts of a partition: prompts, length limits, windows of long documents, invalid values."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import NoneType
from typing import TypeVar

import numpy as np

from .. import batching
from ..errors import ROW_ADVICE, RowError
from ..models.limits import NO_LIMIT
from ..ragged import Ints, Ragged
from ..rows import Origins, Tokenized
from ..settings import Settings
from ..stats import Stats
from .huggingface import BAD_TEXT
from .reader import TextReader, find_reader
from .slices import TokenSpans, window_slices

_T = TypeVar("_T")
# A slab holds at most this many characters, so that a partition of any size needs bounded memory.
_SLAB_CHARS = 1 << 25
# Tokens are not known before tokenizing; English has this many characters per token, other texts have fewer.
_CHARS_PER_TOKEN = 4
# A slab that is limited by tokens may hold this many even if the partition then has fewer than four slabs.
_MIN_SLAB_TOKENS = 1 << 17
# Code points that UTF-8 cannot encode.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def tokenize_texts(texts: Sequence[str | None], settings: Settings) -> Tokenized:
    """Tokenize texts; a null has no tokens and is not valid.

    With ``long_documents="mean"`` rows have all tokens of a text; with "explode" there is one row per window,
    and ``origins`` says where each comes from.

    Raises
    ------
    RowError
        A value is not a string or not valid Unicode, and ``on_error`` is "raise".
    """
    out = tokenize(texts, find_reader(settings), settings)
    raise_failures(out.failures, settings)
    return out


def tokenize_slabs(
    texts: Sequence[str | None], reader: TextReader, settings: Settings, *, max_rows: int,
    max_tokens: int | None = None, ahead: int = 1,
) -> Generator[tuple[int, Tokenized]]:  # fmt: skip
    """Tokenize texts one slab at a time; while the caller uses a slab, the next ``ahead`` are tokenized.

    A slab holds at most ``max_rows`` texts and, by an estimate from their characters, ``max_tokens`` tokens.

    Yields
    ------
    first_text : int
        The position of the slab's first text.
    tokens : Tokenized
        The slab; errors of rows are recorded, as in `tokenize`. Without texts there is one empty slab.
    """
    sizes = np.fromiter((len(text) if isinstance(text, str) else 0 for text in texts), np.int64, len(texts))
    if max_tokens is not None:
        sizes = _sizes_by_tokens(sizes, reader, settings, max_tokens)
    slabs = batching.slabs(sizes, max_size=_SLAB_CHARS, max_rows=max_rows) or [slice(0, 0)]
    tokens = run_ahead([partial(tokenize, texts[slab], reader, settings) for slab in slabs], ahead)
    yield from zip((slab.start for slab in slabs), tokens, strict=True)


def _sizes_by_tokens(chars: Ints, reader: TextReader, settings: Settings, max_tokens: int) -> Ints:
    """Return sizes of texts with which `_SLAB_CHARS` are reached at ``max_tokens`` or as many characters."""
    limit = reader.limit if settings.long_documents == "truncate" else NO_LIMIT
    tokens = estimate_tokens(chars, reader, limit)
    sizes: Ints = np.maximum(chars, tokens * (_SLAB_CHARS // tokens_per_slab(tokens, max_tokens)))
    return sizes


def estimate_tokens(chars: Ints, reader: TextReader, limit: int) -> Ints:
    """Return about how many tokens texts have."""
    tokens: Ints = np.minimum(limit, chars // _CHARS_PER_TOKEN + reader.n_prefix + reader.n_suffix + 1)
    return tokens


def tokens_per_slab(tokens: Ints, max_tokens: int) -> int:
    """Return the most tokens of a slab, given the tokens of each text.

    The first slab is tokenized while the device waits, so there are at least four, if they are not too small.
    """
    return min(max_tokens, max(_MIN_SLAB_TOKENS, int(tokens.sum()) // 4))


def run_ahead(calls: Sequence[Callable[[], _T]], count: int) -> Iterator[_T]:
    """Yield the results of calls in order; while the caller uses one, ``count`` threads make the next calls."""
    with ThreadPoolExecutor(count, "tokenize") as pool:
        pending: deque[Future[_T]] = deque()
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def tokenize(texts: Sequence[str | None], reader: TextReader, settings: Settings) -> Tokenized:
    """Tokenize texts with Hugging Face's tokenizer; record rows that fail instead of raising."""
    start = time.perf_counter()
    failures = _not_strings(texts)
    rows = np.array([i for i, text in enumerate(texts) if text is not None and i not in failures], np.int64)
    # str.__str__ gives the characters of a subclass of str, whatever its own __str__ returns.
    present = [reader.prompt + str.__str__(texts[i])[: settings.max_chars] for i in rows]
    encode = _encode_windows if settings.long_documents == "explode" else _encode_rows
    try:
        out = encode(present, rows, len(texts), reader, settings)
    except BAD_TEXT:
        bad = bad_texts(lambda some: encode(some, np.arange(len(some)), len(some), reader, settings), present)
        failures |= {int(rows[i]): reason for i, reason in bad.items()}
        good = np.delete(np.arange(len(rows)), list(bad))
        out = encode([present[i] for i in good], rows[good], len(texts), reader, settings)
    out.failures = dict(sorted(failures.items()))
    out.stats.rows, out.stats.nulls = len(texts), sum(text is None for text in texts)
    out.stats.tokenize_s = time.perf_counter() - start
    return out


def _not_strings(texts: Sequence[object]) -> dict[int, str]:
    """Return the reasons for rows that hold neither a string nor None.

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


def _encode_rows(texts: list[str], rows: Ints, count: int, reader: TextReader, settings: Settings) -> Tokenized:
    """Return ``count`` rows: row ``rows[i]`` holds the tokens of ``texts[i]``, all others are empty."""
    limit = NO_LIMIT if settings.long_documents == "mean" else reader.limit
    tokens = reader.tokenizer.encode(texts, limit)
    return Tokenized.from_present(tokens.ids, tokens.truncated, rows=rows, count=count)


def _encode_windows(
    texts: list[str], rows: Ints, count: int, reader: TextReader, settings: Settings
) -> Tokenized:
    """Return one row per window of ``texts``, and one empty row for each of ``count`` rows without a text."""
    ids, starts, ends = reader.tokenizer.encode_with_offsets(texts)
    lengths = np.zeros(count, np.int64)
    lengths[rows] = ids.lengths
    windows = reader.split(Ragged.from_lengths(ids.values, lengths), settings.overlap)
    spans = TokenSpans(texts, rows, ids.lengths - reader.tokenizer.n_special_tokens, starts, ends)
    n_constant = reader.n_prefix - len(reader.tokenizer.prefix)
    char_start, char_end = window_slices(windows, spans, n_prompt=len(reader.prompt), n_constant=n_constant)
    window_lengths = windows.ids.lengths
    return Tokenized(
        ids=windows.ids,
        valid=window_lengths > 0,
        n_tokens=window_lengths,
        truncated=np.zeros(len(window_lengths), np.bool_),
        stats=Stats(tokens=len(windows.ids.values)),
        origins=Origins(windows.rows, windows.numbers, char_start, char_end),
    )


def bad_texts(encode: Callable[[list[str]], object], texts: list[str]) -> dict[int, str]:
    """Return why texts cannot be tokenized, by position: tokenize all, and halves of what fails."""
    try:
        encode(texts)
    except BAD_TEXT as error:
        if len(texts) == 1:
            return {0: _reason(texts[0], error)}
        half = len(texts) // 2
        second = bad_texts(encode, texts[half:])
        return bad_texts(encode, texts[:half]) | {half + i: reason for i, reason in second.items()}
    return {}


def _reason(text: str, error: Exception) -> str:
    if _SURROGATE.search(text):
        return "not valid text: a lone surrogate or invalid UTF-8"
    return f"not valid text ({type(text).__name__}): {error}".splitlines()[0][:200]


def raise_failures(failures: dict[int, str], settings: Settings) -> None:
    """Raise RowError for failed rows, unless ``on_error`` is "null"."""
    if failures and settings.on_error == "raise":
        row, first_reason = next(iter(failures.items()))
        more = f" and {len(failures) - 1} more rows" if len(failures) > 1 else ""
        reason = f"{first_reason}. {ROW_ADVICE}"
        raise RowError(f"row {row}{more}: {reason}", tuple(failures), reason)
