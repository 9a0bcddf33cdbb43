"""One partition's whole way: texts in, a matrix out, in order. Knows no Dask and no dataframe.

Texts are tokenized a window at a time, the next window while the model runs this one; a window's rows
go through the model in batches of similar length, and each vector is written straight to its row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from types import NoneType
from typing import TypeVar

import numpy as np
import torch

from . import batching, runtimes
from .device import is_oom, release_memory, set_threads, to_device
from .errors import ConfigError
from .models.card import read_card
from .models.locate import ModelRef, find_model
from .ragged import Ints, Ragged
from .rows import Embedded
from .settings import Settings, Stats
from .tokens.texts import (
    Bools,
    Spans,
    Tokenized,
    card_of,
    raise_unless_null,
    reader_of,
    tokenize,
    tokenize_texts,
)
from .vectors.head import Head
from .vectors.pooling import sum_rows

__all__ = ["Embedded", "Model", "Tokenized", "embed_chunks", "embed_texts", "embed_tokens", "load", "model_of",
           "tokenize_texts"]  # fmt: skip

_T = TypeVar("_T", bound=Hashable)
# A window is what is in memory at once besides texts and vectors: rows, by device, and characters. Large enough
# that sorting inside it finds rows of equal length, small enough that a partition of any size stays bounded.
# A GPU idles while the first window is tokenized, so that its windows are small: some batches.
WINDOW_ROWS, WINDOW_CHARS = {"cpu": 16_384, "cuda": 4_096}, 1 << 25
# The share of equal texts from which embedding each once pays for the indirection.
_WORTH_SHARING = 0.01


@dataclass(frozen=True)
class Model:
    """A loaded model: how tokens become states, and states vectors; ``skip``: a prompt's tokens, not pooled."""

    runtime: runtimes.Runtime
    head: Head
    skip: int

    def empty(self, rows: int) -> Embedded:
        """Room for this many vectors."""
        return Embedded.empty(rows, self.head.dimension, self.runtime.device)


def load(settings: Settings) -> runtimes.Runtime:
    """The loaded model of this process."""
    return runtimes.load(
        card_of(settings), runtime=settings.runtime, autocast=settings.autocast, adapter=settings.adapter
    )  # fmt: skip


def model_of(settings: Settings) -> Model:
    """The loaded model of this process with what these settings make of its states."""
    runtime = load(settings)
    head = _head(settings.model, settings.pooling, settings.normalize, runtime.dimension, runtime.device)
    return Model(runtime, head, reader_of(settings).skip)


@lru_cache(maxsize=32)
def _head(model: ModelRef, pooling: str, normalize: bool | None, width: int, device: torch.device) -> Head:
    return Head(read_card(find_model(model)), width, device, pooling=pooling, normalize=normalize)


def embed_texts(texts: Sequence[str | None], settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed texts.

    Parameters
    ----------
    texts : sequence of str or None
    settings : Settings
        ``long_documents="explode"`` is for `embed_chunks`.
    n_threads : int, optional
        Cores that the model may use; torch's own number if None.

    Returns
    -------
    Embedded
        Row ``i`` of the matrix belongs to ``texts[i]``; rows that are not valid hold zeros.

    Raises
    ------
    RowError
        A row is no text, or its vector is not finite, and ``on_error`` is "raise".
    """
    if settings.long_documents == "explode":
        raise ConfigError("long_documents='explode' gives several rows a text: call embed_chunks")
    start = time.perf_counter()
    distinct, places = _distinct(texts) if settings.share_equal_texts else (texts, None)
    model = model_of(settings)
    out = model.empty(len(distinct))
    for span, tokens in _read(distinct, settings, model):
        part = out.part(span, tokens)
        _embed_rows(part, tokens.ids, model, settings, n_threads)
        out.stats += part.stats
        out.failures |= {span.start + i: why for i, why in part.failures.items()}
        if out.failures and settings.on_error == "raise":
            break
    _drop_failures(out)
    if places is not None:
        out = out.spread(places, nulls=sum(text is None for text in texts))
    raise_unless_null(out.failures, settings)
    return _finish(out, model, settings, start)


def embed_chunks(texts: Sequence[str | None], settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed texts in windows, a row a window; a null has one row. Parameters and errors as `embed_texts`.

    ``failures`` are by text, as what is not a text has no window; a text fails with any of its windows.
    """
    start = time.perf_counter()
    model, parts, firsts = model_of(settings), [], []
    failures: dict[int, str] = {}
    for span, tokens in _read(texts, replace(settings, long_documents="explode"), model):
        part = model.empty(len(tokens.ids)).part(slice(None), tokens)
        part.failures = {}  # by window; those of the tokens are by text
        _embed_into(part, tokens.ids, model, settings, n_threads)
        _drop_failures(part)
        failed = {int(tokens.spans.rows[i]): why for i, why in part.failures.items()}  # type: ignore[union-attr]
        failures |= {span.start + i: why for i, why in (tokens.failures | failed).items()}
        raise_unless_null(failures, settings)
        parts.append(part)
        firsts.append(span.start)
    out = Embedded.concat(parts) if parts else model.empty(0)
    out.failures = failures
    out.spans = Spans.concat([part.spans for part in parts if part.spans], firsts)
    return _finish(out, model, settings, start)


def embed_tokens(ids: Ragged, valid: Bools, settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed rows of token ids; rows that are not valid are left out."""
    start = time.perf_counter()
    model = model_of(settings)
    valid, places = valid & (ids.lengths > 0), None
    if settings.share_equal_texts:
        rows = [ids.row(i).tobytes() if ok else None for i, ok in enumerate(valid)]
        _, places = _distinct(rows)
    if places is not None:
        first = np.unique(places, return_index=True)[1]
        ids, valid, nulls = ids.take(first), valid[first], int((~valid).sum())
    out = model.empty(len(ids))
    out.valid[:] = valid
    out.stats = Stats(rows=len(ids), nulls=int((~out.valid).sum()), tokens=int(ids.lengths[out.valid].sum()))
    _embed_rows(out, ids, model, settings, n_threads)
    _drop_failures(out)
    if places is not None:
        out = out.spread(places, nulls)
    raise_unless_null(out.failures, settings)
    return _finish(out, model, settings, start)


def _read(texts: Sequence[str | None], settings: Settings, model: Model) -> Iterator[tuple[slice, Tokenized]]:
    """Texts as tokens, a window at a time, with the next window under way while the caller uses this one."""
    most = WINDOW_ROWS.get(model.runtime.device.type, WINDOW_ROWS["cpu"])
    sizes = np.fromiter((len(text) if isinstance(text, str) else 0 for text in texts), np.int64, len(texts))
    spans = batching.slabs(sizes, max_size=WINDOW_CHARS, max_rows=most)
    return zip(spans, _ahead(lambda span: tokenize(texts[span], settings), spans), strict=True)


def _ahead(work: Callable[[slice], Tokenized], spans: Sequence[slice]) -> Iterator[Tokenized]:
    with ThreadPoolExecutor(1, "tokenize") as pool_:
        following = pool_.submit(work, spans[0]) if spans else None
        for k in range(len(spans)):
            assert following is not None
            current = following.result()
            following = pool_.submit(work, spans[k + 1]) if k + 1 < len(spans) else None
            yield current


def _distinct(texts: Sequence[_T]) -> tuple[Sequence[_T], Ints | None]:
    """Return the distinct texts and each row's index into them, or the texts and None if few are equal.

    Hashing costs a thousandth of embedding. Values of other types may not be hashable: then nothing is shared.
    """
    if set(map(type, texts)) - {str, bytes, NoneType}:
        return texts, None
    first: dict[_T, int] = {}
    places = np.fromiter((first.setdefault(text, len(first)) for text in texts), np.int64, len(texts))
    if len(first) > (1 - _WORTH_SHARING) * len(texts):
        return texts, None
    return list(first), places


def _finish(out: Embedded, model: Model, settings: Settings, start: float) -> Embedded:
    out.stored(settings, unit=model.head.normalize, width=model.head.default_dim).stats.total_s = (
        time.perf_counter() - start
    )
    return out


def _embed_rows(out: Embedded, ids: Ragged, model: Model, settings: Settings, n_threads: int | None) -> None:
    """Embed rows; with ``long_documents="mean"`` their windows, averaged by the tokens that each has."""
    if settings.long_documents != "mean":
        return _embed_into(out, ids, model, settings, n_threads)
    chunks = reader_of(settings).split(ids, settings.overlap)
    part = model.empty(len(chunks.rows))
    part.valid[:] = out.valid[chunks.rows]
    _embed_into(part, chunks.ids, model, settings, n_threads)
    offsets = to_device(np.searchsorted(chunks.rows, np.arange(len(ids) + 1)), out.matrix.device)
    weights = to_device(np.maximum(1, chunks.sizes).astype(np.float32), out.matrix.device)[:, None]
    out.matrix[:] = sum_rows(part.matrix * weights, offsets) / sum_rows(weights, offsets)
    if model.head.normalize:
        out.matrix[:] = torch.nn.functional.normalize(out.matrix, dim=1)
    out.failures |= {int(chunks.rows[i]): why for i, why in part.failures.items()}
    out.stats += part.stats
    return None


def _embed_into(out: Embedded, ids: Ragged, model: Model, settings: Settings, n_threads: int | None) -> None:
    """Run the model over the valid rows and write their vectors to ``out``; a GPU is not waited for."""
    rows = np.flatnonzero(out.valid)
    groups = batching.batches(
        ids.lengths[rows], budget=model.runtime.budget, max_rows=settings.model_inference_batch_size,
        pads=model.runtime.pads, sort=settings.sort_by_length,
    )  # fmt: skip
    for group in groups:
        _run_group(out, ids, rows[group], model, settings, n_threads)


def _drop_failures(out: Embedded) -> None:
    """Look, once, for rows without a finite vector; waits for the device. Failed rows hold zeros."""
    start = time.perf_counter()
    finite = out.matrix.sum(dim=1, dtype=torch.float64).isfinite().cpu().numpy()
    for row in np.flatnonzero(~finite):
        out.failures[int(row)] = "the model gave NaN or infinite values for it"
    out.clear_failed()
    out.stats.model_s += time.perf_counter() - start


def _run_group(
    out: Embedded, ids: Ragged, group: Ints, model: Model, settings: Settings, n_threads: int | None
) -> None:
    """One forward; halved and run again where memory ran out or, with ``on_error="null"``, it failed."""
    batch, runtime = ids.take(group), model.runtime

    def forward() -> None:
        start = time.perf_counter()  # here, so that waiting for other partitions' batches is not counted
        set_threads(n_threads)
        states, offsets = runtime.states(batch, padding_side=settings.padding_side)
        if model.skip:
            kept, starts = (to_device(where, states.device) for where in batch.drop_first(model.skip))
            states, offsets = states.index_select(0, kept), starts
        vectors = model.head(states, offsets, prompt_tokens=model.skip)
        out.matrix.index_copy_(0, to_device(group, out.matrix.device), vectors)
        out.stats.model_s += time.perf_counter() - start

    try:
        runtimes.run_on_model_thread(forward)
        out.stats.batches += 1
        out.stats.padded += batching.cost(batch.lengths, pads=runtime.pads)
        return
    except Exception as error:
        oom, why = is_oom(error), f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if not oom and settings.on_error == "raise":
            raise
    if oom:  # outside the except block: its traceback keeps the failed batch's memory alive
        release_memory(runtime.device)
        out.stats.ooms += 1
        runtime.budget = max(1, min(runtime.budget, batching.cost(batch.lengths, pads=runtime.pads) // 2))
    if len(group) == 1:
        out.failures[int(group[0])] = f"{len(batch.values)} tokens do not fit in memory" if oom else why
        return
    for half in np.array_split(group, 2):
        _run_group(out, ids, half, model, settings, n_threads)
