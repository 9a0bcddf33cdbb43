"""Tokenize the texts of a partition: prompts, length limits, windows of long documents, bad values."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import TypeVar

import numpy as np

from .. import batching, runtimes
from ..device import tokenizer_copy_count
from ..errors import ConfigError, RowError
from ..models.card import ModelCard, find_prompt, length_limit, read_card
from ..models.locate import find_model
from ..ragged import Ints, Ragged
from ..rows import Origins, Tokenized
from ..settings import Settings, Stats
from .copies import TokenizerCopies
from .huggingface import Tokenizer
from .windows import Windows, split

_T = TypeVar("_T")
# A slab holds at most this many characters, so that a partition of any size needs bounded memory.
_SLAB_CHARS = 1 << 25
# A token limit that no text reaches.
_NO_LIMIT = 1 << 40
# Code points that UTF-8 cannot encode.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# What the tokenizers library raises for values that are not valid text.
_BAD_TEXT = (TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class TextReader:
    """A model's tokenizer with the limit and the prompt of some settings.

    ``limit``: tokens per row, prefix and suffix included. ``prompt``: the text that is put before every text,
    so that it counts towards the limit. ``prefix``, ``suffix``: number of tokens before and after the text in
    every row, special tokens and prompt. ``prompt_tokens``: number of tokens at a row's start that pooling
    leaves out.
    """

    tokenizer: TokenizerCopies
    limit: int
    prompt: str
    prefix: int
    suffix: int
    prompt_tokens: int

    def split(self, ids: Ragged, overlap: int) -> Windows:
        """Split rows of any length into windows of at most ``limit`` tokens."""
        return split(ids, limit=self.limit, overlap=overlap, n_prefix=self.prefix, n_suffix=self.suffix)


_tokenizers: dict[tuple[str, bool], TokenizerCopies] = {}
_tokenizer_lock = threading.Lock()


def load_tokenizer(card: ModelCard) -> TokenizerCopies:
    """Return the model's tokenizer, loaded once per process."""
    key = (str(card.path), card.lowercase)
    with runtimes.loading, _tokenizer_lock:
        if key not in _tokenizers:
            make = partial(Tokenizer.from_directory, card.path, lowercase=card.lowercase)
            _tokenizers[key] = TokenizerCopies(make, tokenizer_copy_count())
        return _tokenizers[key]


def find_reader(settings: Settings) -> TextReader:
    """Find the model and return how texts are tokenized under these settings; errors as `make_reader`."""
    return make_reader(read_card(find_model(settings.model)), settings)


def make_reader(card: ModelCard, settings: Settings) -> TextReader:
    """Return how texts are tokenized for a model under these settings.

    Raises
    ------
    ConfigError
        The prompt and the overlap leave no room for text.
    """
    tokenizer, limit = load_tokenizer(card), length_limit(card, settings.max_seq_length)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    prefix, suffix, prompt_tokens = len(tokenizer.prefix), len(tokenizer.suffix), 0
    if prompt:
        prompt_ids = tokenizer.encode([prompt], _NO_LIMIT).ids.values
        prefix = _constant_prefix(tokenizer, prompt, prompt_ids)
        prompt_tokens = 0 if card.include_prompt else len(prompt_ids) - min(1, suffix)
    overlap = settings.overlap if settings.long_documents != "truncate" else 0
    if prefix + suffix + overlap >= limit:
        raise ConfigError(
            f"{prefix + suffix} tokens of prompt and special tokens and an overlap of {overlap} leave no room "
            f"for text in {limit} tokens; shorten the prompt or the overlap, or raise max_seq_length"
        )
    return TextReader(tokenizer, limit, prompt, prefix, suffix, prompt_tokens)


def _constant_prefix(tokenizer: TokenizerCopies, prompt: str, prompt_ids: Ints) -> int:
    """Return how many of a row's first tokens are the same for every text.

    The last tokens of a prompt may merge with the text behind it ("query:" and "query:a" may share one token
    only), so that they belong to the text.
    """
    with_text = tokenizer.encode([f"{prompt}a"], _NO_LIMIT).ids.values
    same = prompt_ids[: len(with_text)] == with_text[: len(prompt_ids)]
    common = int(np.logical_and.accumulate(same).sum())
    return min(common, len(prompt_ids) - len(tokenizer.suffix))


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
    raise_unless_null(out.failures, settings)
    return out


def tokenize_slabs(
    texts: Sequence[str | None], reader: TextReader, settings: Settings, *, max_rows: int
) -> Iterator[tuple[int, Tokenized]]:
    """Tokenize texts one slab at a time, the next slab while the caller works on the current one.

    Yields
    ------
    first_text : int
        The position of the slab's first text.
    tokens : Tokenized
        The slab; errors of rows are recorded, as in `tokenize`. Without texts there is one empty slab.
    """
    sizes = np.fromiter((len(text) if isinstance(text, str) else 0 for text in texts), np.int64, len(texts))
    slabs = batching.slabs(sizes, max_size=_SLAB_CHARS, max_rows=max_rows) or [slice(0, 0)]
    tokens = _one_ahead([partial(tokenize, texts[slab], reader, settings) for slab in slabs])
    yield from zip((slab.start for slab in slabs), tokens, strict=True)


def _one_ahead(calls: Sequence[Callable[[], _T]]) -> Iterator[_T]:
    """Yield the results of calls in order; a thread makes the next call while the caller uses a result."""
    with ThreadPoolExecutor(1, "tokenize") as pool:
        pending: Future[_T] | None = None
        for call in calls:
            current, pending = pending, pool.submit(call)
            if current is not None:
                yield current.result()
        if pending is not None:
            yield pending.result()


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
    except _BAD_TEXT:
        bad = {i: why for i, text in enumerate(present) if (why := _reason_if_bad(reader.tokenizer, text))}
        failures |= {int(rows[i]): why for i, why in bad.items()}
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
    """Return ``count`` rows of which ``rows`` hold the tokens of ``texts``; the others are empty."""
    limit = _NO_LIMIT if settings.long_documents == "mean" else reader.limit
    tokens = reader.tokenizer.encode(texts, limit)
    lengths, truncated = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    lengths[rows], truncated[rows] = tokens.ids.lengths, tokens.truncated
    return Tokenized(
        ids=Ragged.from_lengths(tokens.ids.values, lengths),
        valid=lengths > 0,
        n_tokens=lengths,
        truncated=truncated,
        stats=Stats(tokens=len(tokens.ids.values), truncated=int(truncated.sum())),
    )


def _encode_windows(
    texts: list[str], rows: Ints, count: int, reader: TextReader, settings: Settings
) -> Tokenized:
    """Return one row per window of ``texts``, and one empty row for each other row of ``count``."""
    ids, begins, ends = reader.tokenizer.encode_with_offsets(texts)
    lengths = np.zeros(count, np.int64)
    lengths[rows] = ids.lengths
    windows = reader.split(Ragged.from_lengths(ids.values, lengths), settings.overlap)
    char_start, char_end = _window_chars(windows, lengths, begins, ends, reader)
    window_lengths = windows.ids.lengths
    return Tokenized(
        ids=windows.ids,
        valid=window_lengths > 0,
        n_tokens=window_lengths,
        truncated=np.zeros(len(window_lengths), np.bool_),
        stats=Stats(tokens=len(windows.ids.values)),
        origins=Origins(windows.rows, windows.numbers, char_start, char_end),
    )


def _window_chars(
    windows: Windows, lengths: Ints, begins: Ints, ends: Ints, reader: TextReader
) -> tuple[Ints, Ints]:
    """Return the first and the last character (exclusive) of each window in its text; 0, 0 without tokens.

    ``begins`` and ``ends`` hold the characters of all tokens of all texts, of the prompt's too, but not of the
    special tokens. Example: texts of 5 and 4 tokens, 2 special ones each, have the tokens 0 to 2 and 3 to 4
    there; with windows of one token, the window that starts at token 1 of the second text has the token 4.
    """
    own_tokens = lengths - reader.tokenizer.n_special_tokens * (lengths > 0)
    first_of_text = np.cumsum(own_tokens) - own_tokens
    prompt_tokens = reader.prefix - len(reader.tokenizer.prefix)
    has_tokens = windows.sizes > 0
    first = (first_of_text[windows.rows] + prompt_tokens + windows.starts)[has_tokens]
    last = first + windows.sizes[has_tokens] - 1
    char_start, char_end = np.zeros((2, len(has_tokens)), np.int64)
    char_start[has_tokens] = np.maximum(0, begins[first] - len(reader.prompt))
    char_end[has_tokens] = np.maximum(0, ends[last] - len(reader.prompt))
    return char_start, char_end


def _reason_if_bad(tokenizer: TokenizerCopies, text: str) -> str | None:
    """Return why a text cannot be tokenized, or None."""
    try:
        tokenizer.encode([text], tokenizer.n_special_tokens + 1)
    except _BAD_TEXT as error:
        if isinstance(text, str) and _SURROGATE.search(text):
            return "not valid text: a lone surrogate or invalid UTF-8"
        return f"not valid text ({type(text).__name__}): {error}".splitlines()[0][:200]
    return None


def raise_unless_null(failures: dict[int, str], settings: Settings) -> None:
    """Raise RowError for failed rows, unless ``on_error`` is "null"."""
    if failures and settings.on_error == "raise":
        row, why = next(iter(failures.items()))
        more = f" and {len(failures) - 1} more rows" if len(failures) > 1 else ""
        reason = f"{why}. Correct or drop the row, or pass on_error='null' to give it a null vector"
        raise RowError(f"row {row}{more}: {reason}", tuple(failures), reason)
