"""Tokenize a text column on a GPU by cuDF's WordPiece; the ids stay in the GPU's memory.

Rows for which the ids of cuDF and Hugging Face may differ are tokenized by Hugging Face on the host, so that
the ids are always those of Hugging Face.

Who waits for whom: cuDF and torch both use the legacy default stream, so the GPU works in the order in which
work was queued, and memory is not read before it is written. One thread tokenizes the next slab while another
one queues the batches of this slab. The tokenizing thread waits for the GPU where cuDF needs the size of a
result, and once per slab for the lengths of the rows, from which the host makes batches. The thread that queues
batches does not wait, so that the GPU is busy while the host prepares the next slab.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from .. import batching
from ..device import default_device
from ..device_ragged import DeviceRagged
from ..errors import ModelError
from ..ragged import Bools, Ints
from ..rows import Tokenized
from ..settings import Settings
from .copies import TokenizerCopies
from .gpu_texts import GpuTextOps, GpuTexts, read_column
from .huggingface import BAD_TEXT, Tokens
from .reader import TextReader
from .texts import bad_texts, estimate_tokens, raise_failures, run_ahead, tokens_per_slab
from .wordpiece import LONGEST_WORD, WordPiece, decode_utf8, may_differ, read_wordpiece, unsupported

# Most tokens of a slab, by an estimate.
_SLAB_TOKENS = 1 << 19
# The GPU reads at most this many characters of a text for each token of the limit. A text that needs more is
# tokenized on the host. So a slab has at most about 8 x `_SLAB_TOKENS` characters, each of which takes about
# 80 bytes of memory while the slab is tokenized.
_MAX_CHARS_PER_TOKEN = 8
_PROBE_LIMIT = 512
# Texts for which both libraries must give the same ids before cuDF is used.
PROBES = (
    "", " ", "a", "The quick brown fox, it's jumped over 13.5% of the lazy dogs!", "unaffable embeddings",
    "Crème brûlée à Zürich, ÅNGSTRÖM & Łódź", "Привет, мир! Ёлка", "Ελληνικά: ΟΔΥΣΣΕΥΣ", "你好，世界。",  # noqa: RUF001
    "こんにちは カタカナ ﾊﾝｶｸ", "한국어 문장", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "שלום עולם",
    "tabs\tand\r\nlines  and\u00a0\u3000spaces", "x" * 99, "a_b-c/d\\e[f]{g}<h>@i#j$k^l~m`n|o", "½ ﬁ ™ € ≤ → █",
)  # fmt: skip


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
    if tokenizer.keep_end:
        raise unsupported("it keeps the end of long texts (truncation_side='left')")
    return read_wordpiece(tokenizer.state)


def tokenize_column(series: Any, ops: GpuTextOps, reader: TextReader, settings: Settings) -> Tokenized:
    """Tokenize a text column; a null has no tokens and is not valid.

    Raises
    ------
    ConfigError
        cuDF does not support the model's tokenizer.
    ModelError
        The ids of cuDF and Hugging Face differ for `PROBES`.
    RowError
        A text is not valid Unicode, and ``on_error`` is "raise".
    """
    start = time.perf_counter()
    texts = read_column(series, ops, reader, settings, deduplicate=False)
    with closing(tokenize_on_gpu(texts, ops, reader)) as slabs:
        starts, parts = zip(*slabs, strict=True)
    ids = DeviceRagged.join(part.ids for part in parts)
    truncated = np.concatenate([part.truncated for part in parts])
    out = Tokenized.from_present(ids, truncated, rows=np.arange(len(ids)), count=len(ids))
    out.stats.nulls = texts.nulls
    out.stats.tokenize_s = time.perf_counter() - start
    for first, part in zip(starts, parts, strict=True):
        out.failures |= {first + row: reason for row, reason in part.failures.items()}
    raise_failures(out.failures, settings)
    return out


def tokenize_on_gpu(texts: GpuTexts, ops: GpuTextOps, reader: TextReader) -> Generator[tuple[int, Tokenized]]:
    """Tokenize texts one slab at a time; while the caller uses a slab, the next one is tokenized.

    Yields the position of the slab's first row, and its tokens. Raises the errors of `tokenize_column`.
    """
    wordpiece = wordpiece_of(reader.tokenizer)
    _check_ids(ops, wordpiece, reader)
    chars = np.zeros(len(texts.valid), np.int64)
    chars[texts.valid] = texts.column.str.len().to_numpy()
    tokens = estimate_tokens(chars, reader, reader.limit)
    sizes = np.maximum(tokens, np.minimum(chars, _max_chars(reader)) // _MAX_CHARS_PER_TOKEN)
    max_size = tokens_per_slab(tokens, _SLAB_TOKENS)
    slabs = batching.slabs(sizes, max_size=max_size, max_rows=len(sizes)) or [slice(0, 0)]
    calls = [partial(_tokenize_slab, texts, rows, chars[rows], ops, wordpiece, reader) for rows in slabs]
    yield from zip((rows.start for rows in slabs), run_ahead(calls, 1), strict=True)


def _tokenize_slab(
    texts: GpuTexts, rows: slice, chars: Ints, ops: GpuTextOps, wordpiece: WordPiece, reader: TextReader
) -> Tokenized:
    start = time.perf_counter()
    present = texts.valid[rows]
    first = int(texts.valid[: rows.start].sum())
    column = texts.column.iloc[first : first + int(present.sum())]
    tokens, _, failures = _encode(column, chars[present], ops, wordpiece, reader)
    out = Tokenized.from_present(tokens.ids, tokens.truncated, rows=present, count=len(present))
    out.stats.nulls = int((~present).sum())
    places = np.flatnonzero(present)
    out.failures = {int(places[text]): reason for text, reason in failures.items()}
    out.stats.tokenize_s = time.perf_counter() - start
    return out


def _max_text_tokens(reader: TextReader) -> int:
    return reader.limit - reader.tokenizer.n_special_tokens


def _max_chars(reader: TextReader) -> int:
    """Return how many characters of a text the GPU reads."""
    # A cut may change only the last word before it, and a word has at most LONGEST_WORD tokens.
    return _MAX_CHARS_PER_TOKEN * (_max_text_tokens(reader) + LONGEST_WORD)


def _encode(
    column: Any, chars: Ints, ops: GpuTextOps, wordpiece: WordPiece, reader: TextReader
) -> tuple[Tokens, Bools, dict[int, str]]:
    """Tokenize a slab of texts of ``chars`` characters.

    Also return which ones Hugging Face tokenized, and why some of these have no tokens.
    """
    if not len(column):  # libcudf's list columns without rows have no offsets
        return Tokens(DeviceRagged.empty(default_device()), np.empty(0, np.bool_)), np.empty(0, np.bool_), {}
    limit, max_chars = _max_text_tokens(reader), _max_chars(reader)
    heads = column.str.slice(0, max_chars)
    ids, differ = _tokenize_heads(heads, ops, wordpiece)
    on_host = differ | ((chars > max_chars) & (ids.lengths < limit + LONGEST_WORD))
    truncated = ids.lengths > limit
    rows = ids.clip(limit).surround(reader.tokenizer.prefix, reader.tokenizer.suffix)
    if not on_host.any():
        return Tokens(rows, truncated), on_host, {}
    places = np.flatnonzero(on_host)
    by_host, bad = _encode_on_host(ops.read_texts(column.iloc[places]), reader)
    truncated[places] = by_host.truncated
    # Rows of the host replace those of the GPU.
    order = np.arange(len(ids))
    order[places] = len(ids) + np.arange(len(places))
    both = [rows, DeviceRagged.from_host(by_host.ids, ids.values.device)]
    failures = {int(places[text]): reason for text, reason in bad.items()}
    return Tokens(DeviceRagged.join(both).take(order), truncated), on_host, failures


def _encode_on_host(texts: list[str], reader: TextReader) -> tuple[Tokens, dict[int, str]]:
    """Tokenize texts with Hugging Face; return why some cannot be, which then have no tokens."""
    encode = partial(reader.tokenizer.encode, max_length=reader.limit)
    try:
        return encode(texts), {}
    except BAD_TEXT:
        bad = bad_texts(encode, texts)
    tokens = encode(["" if row in bad else text for row, text in enumerate(texts)])
    return replace(tokens, ids=tokens.ids.without(np.isin(np.arange(len(texts)), list(bad)))), bad


def _tokenize_heads(heads: Any, ops: GpuTextOps, wordpiece: WordPiece) -> tuple[DeviceRagged, Bools]:
    """Return the ids of cuDF, and which rows may be wrong; waits for the GPU."""
    # libcudf 26.10 has memory for one start of a word per two bytes (compute_all_tokens in
    # wordpiece_tokenize.cu). There can be one more if the first text starts with a blank.
    values, offsets = ops.tokenize(ops.normalize(heads, wordpiece).str.lstrip(" "), wordpiece)
    codes, lengths = decode_utf8(ops.packed_chars(heads)), ops.int_tensor(heads.str.len())
    differ = may_differ(codes, lengths, wordpiece.specials)
    bounds = torch.stack(values.aminmax()) if len(values) else values.new_zeros(2)
    numbers = torch.cat([bounds, offsets, differ]).cpu().numpy()  # one transfer
    low, high = numbers[:2].tolist()
    offsets_on_host = numbers[2 : 3 + len(heads)].astype(np.int64)
    return DeviceRagged(values, offsets_on_host, (low, high)), numbers[3 + len(heads) :].astype(np.bool_)


_checked: set[WordPiece] = set()
_check_lock = threading.Lock()


def _check_ids(ops: GpuTextOps, wordpiece: WordPiece, reader: TextReader) -> None:
    """Raise ModelError if cuDF gives other ids than Hugging Face for `PROBES`; runs once per process."""
    with _check_lock:
        if wordpiece in _checked:
            return
        chars = np.array([len(text) for text in PROBES])
        reader = replace(reader, limit=_PROBE_LIMIT)  # a smaller one would leave tokens out of the comparison
        found, on_host, _ = _encode(ops.make_column(PROBES), chars, ops, wordpiece, reader)
        found_rows = found.ids.to_host()
        expected = reader.tokenizer.encode(PROBES, reader.limit)
        for i, text in enumerate(PROBES):
            found_ids, expected_ids = found_rows.row(i).tolist(), expected.ids.row(i).tolist()
            if found_ids != expected_ids:
                raise ModelError(
                    f"cuDF's WordPiece tokenizes {text!r} to {found_ids}, but Hugging Face to {expected_ids}; "
                    "pass tokenizer='huggingface', and report this with your version of RAPIDS"
                )
        if all(at_host for text, at_host in zip(PROBES, on_host, strict=True) if text):
            raise ModelError("cuDF's WordPiece tokenized none of the probe texts; pass tokenizer='huggingface'")
        _checked.add(wordpiece)
