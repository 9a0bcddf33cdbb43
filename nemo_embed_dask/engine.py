"""One partition's whole way: texts in, a float32 matrix out, in order. Knows no Dask and no dataframe.

Texts are tokenized a window at a time, the next window while the model runs this one; a window's rows
go through the model in batches of similar length, and each vector is written straight to its row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from . import batching, runtimes
from .device import is_oom, release_memory, send, threads, tokenizer_copies
from .errors import RowError
from .models import ModelCard, find_model, length_limit, read_card
from .pooling import pool
from .ragged import Ints, Ragged
from .settings import Settings, Stats
from .shards import Shards
from .tokenizer import Tokenizer

Bools = npt.NDArray[np.bool_]
# A window is what is in memory at once besides texts and vectors. Large enough that sorting inside it
# finds rows of equal length, small enough that a partition of any size stays bounded.
WINDOW_ROWS, WINDOW_CHARS = 16_384, 1 << 25


@dataclass
class Tokenized:
    """Tokens of texts, nulls among them.

    ``ids``: one row a text, empty where there is none. ``valid``: bool ``[n]``, False for a null or a
    failed row. ``failures``: row position -> what is wrong with it.
    """

    ids: Ragged
    valid: Bools
    stats: Stats
    failures: dict[int, str] = field(default_factory=dict)


@dataclass
class Embedded:
    """Vectors of texts: ``matrix`` float32 ``[n, d]`` on the runtime's device; the rest as in `Tokenized`."""

    matrix: torch.Tensor
    valid: Bools
    stats: Stats
    failures: dict[int, str] = field(default_factory=dict)


_tokenizers: dict[tuple[str, bool], Shards] = {}
_tokenizer_lock = threading.Lock()


def _tokenizer(card: ModelCard) -> Shards:
    key = (str(card.path), card.lowercase)
    with runtimes.loading, _tokenizer_lock:
        if key not in _tokenizers:
            make = partial(Tokenizer.from_directory, card.path, lowercase=card.lowercase)
            _tokenizers[key] = Shards(make, tokenizer_copies())
        return _tokenizers[key]


def card_of(settings: Settings) -> ModelCard:
    """Find the model and read its card."""
    return read_card(find_model(settings.model))


def load(settings: Settings) -> runtimes.Runtime:
    """The loaded model of this process."""
    return runtimes.load(card_of(settings), runtime=settings.runtime, autocast=settings.autocast)


def tokenize_texts(texts: Sequence[str | None], settings: Settings) -> Tokenized:
    """Tokenize texts; a null gives no tokens and is not valid.

    Raises
    ------
    RowError
        A value is no valid Unicode string, and ``on_error`` is "raise".
    """
    out = _tokenize(texts, settings)
    _raise_unless_null(out.failures, settings)
    return out


def _tokenize(texts: Sequence[str | None], settings: Settings) -> Tokenized:
    start = time.perf_counter()
    card = card_of(settings)
    tokenizer, limit = _tokenizer(card), length_limit(card, settings.max_seq_length)
    kept = [(i, text) for i, text in enumerate(texts) if text is not None]
    rows = np.array([i for i, _ in kept], dtype=np.int64)
    present = [text[: settings.max_chars] if isinstance(text, str) else text for _, text in kept]
    failures: dict[int, str] = {}
    try:
        tokens = tokenizer.encode(present, limit)
    except (TypeError, ValueError, AttributeError):
        bad = _unencodable(tokenizer, present)
        failures = {int(rows[i]): why for i, why in bad.items()}
        good = [i for i in range(len(present)) if i not in bad]
        tokens, rows = tokenizer.encode([present[i] for i in good], limit), rows[good]
    lengths = np.zeros(len(texts), np.int64)
    lengths[rows] = tokens.ids.lengths
    stats = Stats(
        rows=len(texts), nulls=len(texts) - len(kept), tokens=len(tokens.ids.values),
        truncated=int(tokens.truncated.sum()), tokenize_s=time.perf_counter() - start,
    )  # fmt: skip
    return Tokenized(Ragged.from_lengths(tokens.ids.values, lengths), lengths > 0, stats, failures)


def _unencodable(tokenizer: Shards, texts: Sequence[str]) -> dict[int, str]:
    bad: dict[int, str] = {}
    for i, text in enumerate(texts):
        try:
            tokenizer.encode([text], tokenizer.specials + 1)
        except (TypeError, ValueError, AttributeError) as error:
            bad[i] = f"no valid text ({type(text).__name__}): {error}".splitlines()[0][:200]
    return bad


def _raise_unless_null(failures: dict[int, str], settings: Settings) -> None:
    if failures and settings.on_error == "raise":
        row, why = next(iter(failures.items()))
        more = f" and {len(failures) - 1} more rows" if len(failures) > 1 else ""
        raise RowError(
            f"row {row}{more}: {why}. Mend or drop the row, or pass on_error='null' to give it a null vector",
            tuple(failures),
        )


def embed_texts(texts: Sequence[str | None], settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed texts.

    Parameters
    ----------
    texts : sequence of str or None
    settings : Settings
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
    start = time.perf_counter()
    sizes = np.fromiter((len(text) if isinstance(text, str) else 0 for text in texts), np.int64, len(texts))
    spans = batching.windows(sizes, max_size=WINDOW_CHARS, max_rows=WINDOW_ROWS)
    runtime = load(settings)
    out = _empty(len(texts), runtime)
    for span, tokens in zip(spans, _ahead(lambda s: _tokenize(texts[s], settings), spans), strict=True):
        part = Embedded(out.matrix[span], tokens.valid, tokens.stats, tokens.failures)
        _embed_into(part, tokens.ids, runtime, settings, n_threads)
        out.valid[span] = part.valid
        out.stats += part.stats
        out.failures |= {span.start + i: why for i, why in part.failures.items()}
        _raise_unless_null(out.failures, settings)
    _drop_failures(out)
    _raise_unless_null(out.failures, settings)
    out.stats.total_s = time.perf_counter() - start
    return out


def _ahead(work: Callable[[slice], Tokenized], spans: Sequence[slice]) -> Iterator[Tokenized]:
    """Map with the next item under way while the caller uses this one."""
    with ThreadPoolExecutor(1, "tokenize") as pool_:
        following = pool_.submit(work, spans[0]) if spans else None
        for k in range(len(spans)):
            assert following is not None
            current = following.result()
            following = pool_.submit(work, spans[k + 1]) if k + 1 < len(spans) else None
            yield current


def embed_tokens(ids: Ragged, valid: Bools, settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed rows of token ids; rows that are not valid are left out."""
    runtime = load(settings)
    out = _empty(len(ids), runtime)
    out.valid[:] = valid & (ids.lengths > 0)
    out.stats = Stats(rows=len(ids), nulls=int((~out.valid).sum()), tokens=int(ids.lengths[out.valid].sum()))
    _embed_into(out, ids, runtime, settings, n_threads)
    _drop_failures(out)
    _raise_unless_null(out.failures, settings)
    return out


def _empty(rows: int, runtime: runtimes.Runtime) -> Embedded:
    matrix = torch.zeros((rows, runtime.dimension), dtype=torch.float32, device=runtime.device)
    return Embedded(matrix, np.zeros(rows, np.bool_), Stats())


def _embed_into(
    out: Embedded, ids: Ragged, runtime: runtimes.Runtime, settings: Settings, n_threads: int | None
) -> None:
    """Run the model over the valid rows and write their vectors to ``out``; a GPU is not waited for."""
    start = time.perf_counter()
    rows = np.flatnonzero(out.valid)
    groups = batching.plan(
        ids.lengths[rows], budget=runtime.budget, max_rows=settings.model_inference_batch_size,
        pads=runtime.pads, sort=settings.sort_by_length,
    )  # fmt: skip
    for group in groups:
        _run_group(out, ids, rows[group], runtime, settings, n_threads)
    out.stats.model_s += time.perf_counter() - start


def _drop_failures(out: Embedded) -> None:
    """Look, once, for rows without a finite vector; waits for the device. Failed rows hold zeros."""
    start = time.perf_counter()
    finite = out.matrix.sum(dim=1, dtype=torch.float64).isfinite().cpu().numpy()
    for row in np.flatnonzero(~finite):
        out.failures[int(row)] = "the model gave NaN or infinite values for it"
    for failed in out.failures:
        out.matrix[failed], out.valid[failed] = 0.0, False
    out.stats.model_s += time.perf_counter() - start


def _run_group(
    out: Embedded,
    ids: Ragged,
    group: Ints,
    runtime: runtimes.Runtime,
    settings: Settings,
    n_threads: int | None,
) -> None:
    """One forward; halved and run again where memory ran out or, with ``on_error="null"``, it failed."""
    batch = ids.take(group)
    try:
        with runtimes.running, threads(n_threads):
            states, offsets = runtime.states(batch, padding_side=settings.padding_side)
            vectors = pool(settings.pooling, states, offsets)
            out.matrix.index_copy_(0, send(group, out.matrix.device), vectors)
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
        _run_group(out, ids, half, runtime, settings, n_threads)
