"""Embed one partition: texts or token ids in, a matrix out, rows in input order.

Texts are tokenized one slab at a time, the next slab while the model runs the current one. A slab's rows go
through the model in batches of similar length, and each vector is written to its row of the matrix.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from . import batching, runtimes
from .device import is_oom, release_memory, set_threads, to_device
from .models.card import ModelCard, read_card
from .models.locate import find_model
from .ragged import Ints, Ragged
from .rows import Bools, Embedded, Tokenized, deduplicate, expand_failures
from .settings import Output, Settings, Stats
from .tokens.texts import TextReader, make_reader, raise_unless_null, tokenize_slabs
from .vectors.head import Head
from .vectors.pooling import sum_rows
from .vectors.quantization import quantize

# Rows of a slab, by device. Large enough that sorting finds rows of equal length, small enough that memory
# stays bounded. A GPU waits while the first slab is tokenized, so its slabs are only a few batches.
SLAB_ROWS = {"cpu": 16_384, "cuda": 4_096}


@dataclass(frozen=True)
class Model:
    """A loaded model with everything that a partition needs, found once per partition.

    ``reader``: texts to token ids. ``runtime``: token ids to token states. ``head``: token states to vectors.
    """

    reader: TextReader
    runtime: runtimes.Runtime
    head: Head

    def zeros(self, rows: int) -> torch.Tensor:
        """Return a matrix of zeros for the vectors of so many rows."""
        return torch.zeros((rows, self.head.dimension), dtype=torch.float32, device=self.runtime.device)


def load_runtime(settings: Settings) -> runtimes.Runtime:
    """Return the model's runtime, loaded once per process."""
    return _load_runtime(read_card(find_model(settings.model)), settings)


def _load_runtime(card: ModelCard, settings: Settings) -> runtimes.Runtime:
    return runtimes.load(card, runtime=settings.runtime, autocast=settings.autocast, adapter=settings.adapter)


def load_model(settings: Settings) -> Model:
    """Return the model of these settings: its weights are loaded once per process."""
    path = find_model(settings.model)
    card = read_card(path)
    runtime = _load_runtime(card, settings)
    head = _load_head(path, settings.pooling, settings.normalize, runtime.dimension, runtime.device)
    return Model(make_reader(card, settings), runtime, head)


@lru_cache(maxsize=32)
def _load_head(path: Path, pooling: str, normalize: bool | None, width: int, device: torch.device) -> Head:
    return Head(read_card(path), width, device, pooling=pooling, normalize=normalize)


def embed_texts(texts: Sequence[str | None], settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed texts, one row per text; with ``long_documents="explode"``, one row per window.

    Parameters
    ----------
    texts : sequence of str or None
    settings : Settings
    n_threads : int, optional
        Cores that the model may use; None for torch's own number.

    Returns
    -------
    Embedded
        Row ``i`` belongs to ``texts[i]``, or, with one row per window, to ``texts[origins.texts[i]]``. A null
        has one row.

    Raises
    ------
    RowError
        A row is not a text, or its vector is not finite, and ``on_error`` is "raise".
    """
    start = time.perf_counter()
    run = _Run(load_model(settings), settings, n_threads)
    exploded = settings.long_documents == "explode"
    distinct, index = deduplicate(texts) if settings.share_equal_texts and not exploded else (texts, None)
    slab_rows = SLAB_ROWS.get(run.model.runtime.device.type, SLAB_ROWS["cpu"])
    slabs = tokenize_slabs(distinct, run.model.reader, settings, max_rows=slab_rows)
    out = _embed_slabs(slabs, run, rows=None if exploded else len(distinct))
    return _finish(out, run, index, nulls=sum(text is None for text in texts), start=start)


def embed_tokens(
    tokens: Tokenized, settings: Settings, *, model: Model | None = None, n_threads: int | None = None
) -> Embedded:
    """Embed rows of token ids; rows that are not valid get no vector.

    Parameters
    ----------
    tokens : Tokenized
    settings : Settings
    model : Model, optional
        The model of these settings, if the caller has loaded it.
    n_threads : int, optional
        Cores that the model may use; None for torch's own number.

    Raises
    ------
    RowError
        A row's vector is not finite, and ``on_error`` is "raise".
    """
    start = time.perf_counter()
    run = _Run(model or load_model(settings), settings, n_threads)
    distinct, index = tokens.deduplicate() if settings.share_equal_texts else (tokens, None)
    out = _embed_slabs([(0, distinct)], run, rows=len(distinct.ids))
    out = _finish(out, run, index, nulls=tokens.stats.nulls, start=start)
    # Of rows with equal ids one may be truncated and the other not.
    out.truncated, out.stats.truncated = tokens.truncated, tokens.stats.truncated
    out.stats.tokenize_s = tokens.stats.tokenize_s
    return out


@dataclass(frozen=True)
class _Run:
    """What all steps of one call need."""

    model: Model
    settings: Settings
    n_threads: int | None


def _embed_slabs(slabs: Iterable[tuple[int, Tokenized]], run: _Run, *, rows: int | None) -> Embedded:
    """Embed slab by slab.

    ``slabs``: the position of each slab's first text, and its tokens. ``rows``: rows of all slabs, where it is
    known; then one matrix is allocated for all of them.
    """
    matrix = None if rows is None else run.model.zeros(rows)
    parts: list[Embedded] = []
    first_texts: list[int] = []
    done = 0
    for first_text, tokens in slabs:
        count = len(tokens.ids)
        vectors = run.model.zeros(count) if matrix is None else matrix[done : done + count]
        part = Embedded.from_tokens(tokens, vectors)
        for row, reason in _embed_rows(part, tokens.ids, run).items():
            part.fail(row, reason)
        parts.append(part)
        first_texts.append(first_text)
        done += count
        if part.failures and run.settings.on_error == "raise":
            break
    if matrix is None:
        matrix = torch.cat([part.matrix for part in parts] or [run.model.zeros(0)])
    return Embedded.concat(parts, matrix[:done], first_texts)


def _finish(out: Embedded, run: _Run, index: Ints | None, *, nulls: int, start: float) -> Embedded:
    """Raise for failed rows, copy the vectors of equal rows, and convert all to the output types."""
    _fail_rows_that_are_not_finite(out)
    raise_unless_null(expand_failures(out.failures, index), run.settings)
    if index is not None:
        out = out.expand(index, nulls)
    out = _stored(out, run)
    out.stats.total_s = time.perf_counter() - start
    return out


def _fail_rows_that_are_not_finite(out: Embedded) -> None:
    """Fail rows whose vector has NaN or infinite values; waits for the device, once per partition."""
    start = time.perf_counter()
    finite = out.matrix.sum(dim=1, dtype=torch.float64).isfinite().cpu().numpy()
    for row in np.flatnonzero(~finite):
        out.fail(int(row), "the model gave NaN or infinite values for it")
    out.stats.model_s += time.perf_counter() - start


def _stored(out: Embedded, run: _Run) -> Embedded:
    """Return the rows with their vectors in the width and number type of each output."""
    settings, head = run.settings, run.model.head

    def convert(output: Output) -> torch.Tensor:
        sized = replace(output, dim=output.dim or head.default_dim)
        return quantize(out.matrix, sized, normalize=head.normalize, ranges=settings.ranges)

    matrix = convert(Output("", settings.truncate_dim, settings.embedding_dtype))
    extra = {output.name: convert(output) for output in settings.extra_outputs}
    return replace(out, matrix=matrix, extra=extra)


def _embed_rows(out: Embedded, ids: Ragged, run: _Run) -> dict[int, str]:
    """Write the vectors of valid rows to ``out.matrix``; return the rows that failed, with the reason."""
    if run.settings.long_documents != "mean":
        return _run_batches(out.matrix, ids, out.valid, out.stats, run)
    return _embed_means(out, ids, run)


def _embed_means(out: Embedded, ids: Ragged, run: _Run) -> dict[int, str]:
    """Write the mean of each row's windows, weighted by their numbers of tokens."""
    windows = run.model.reader.split(ids, run.settings.overlap)
    vectors = run.model.zeros(len(windows.rows))
    failed = _run_batches(vectors, windows.ids, out.valid[windows.rows], out.stats, run)
    device = out.matrix.device
    first_windows = to_device(np.searchsorted(windows.rows, np.arange(len(ids) + 1)), device)
    weights = to_device(np.maximum(1, windows.sizes).astype(np.float32), device)[:, None]
    out.matrix[:] = sum_rows(vectors * weights, first_windows) / sum_rows(weights, first_windows)
    if run.model.head.normalize:
        out.matrix[:] = torch.nn.functional.normalize(out.matrix, dim=1)
    return {int(windows.rows[window]): reason for window, reason in failed.items()}


def _run_batches(matrix: torch.Tensor, ids: Ragged, valid: Bools, stats: Stats, run: _Run) -> dict[int, str]:
    """Run the model over the valid rows, batch by batch, without waiting for a GPU; return the failed rows."""
    rows = np.flatnonzero(valid)
    batches = batching.batches(
        ids.lengths[rows],
        budget=run.model.runtime.budget,
        max_rows=run.settings.model_inference_batch_size,
        pads=run.model.runtime.pads,
        sort=run.settings.sort_by_length,
    )
    failed: dict[int, str] = {}
    for batch in batches:
        failed |= _run_batch(matrix, ids, rows[batch], stats, run)
    return failed


def _run_batch(matrix: torch.Tensor, ids: Ragged, rows: Ints, stats: Stats, run: _Run) -> dict[int, str]:
    """Run one batch; if it fails, run its halves. Return the rows that failed alone."""
    batch, runtime = ids.take(rows), run.model.runtime
    failure = _try_forward(matrix, batch, rows, stats, run)
    cost = batching.cost(batch.lengths, pads=runtime.pads)
    if failure is None:
        stats.batches += 1
        stats.padded += cost
        return {}
    if failure.out_of_memory:
        release_memory(runtime.device)
        stats.ooms += 1
        runtime.budget = max(1, min(runtime.budget, cost // 2))
    if len(rows) == 1:
        return {int(rows[0]): failure.reason}
    first, second = np.array_split(rows, 2)
    return _run_batch(matrix, ids, first, stats, run) | _run_batch(matrix, ids, second, stats, run)


@dataclass(frozen=True)
class _Failure:
    """Why a batch failed: texts only, because an exception's traceback keeps the batch's memory alive."""

    out_of_memory: bool
    reason: str


def _try_forward(matrix: torch.Tensor, batch: Ragged, rows: Ints, stats: Stats, run: _Run) -> _Failure | None:
    """Run one forward pass; return why it failed, or raise if other rows need not be embedded."""
    try:
        runtimes.run_on_model_thread(partial(_forward, matrix, batch, rows, stats, run))
    except Exception as error:
        if is_oom(error):
            return _Failure(True, f"{len(batch.values)} tokens do not fit in memory")
        if run.settings.on_error == "raise":
            raise
        return _Failure(False, f"{type(error).__name__}: {error}".splitlines()[0][:200])
    return None


def _forward(matrix: torch.Tensor, batch: Ragged, rows: Ints, stats: Stats, run: _Run) -> None:
    """Run the model over a batch and write the vectors to these rows of the matrix; on the model thread."""
    start = time.perf_counter()  # taken here, so that waiting for the model thread is not counted
    set_threads(run.n_threads)
    states, offsets = run.model.runtime.states(batch, padding_side=run.settings.padding_side)
    prompt_tokens = run.model.reader.prompt_tokens
    if prompt_tokens:
        kept, starts = (to_device(positions, states.device) for positions in batch.drop_first(prompt_tokens))
        states, offsets = states.index_select(0, kept), starts
    vectors = run.model.head(states, offsets, prompt_tokens=prompt_tokens)
    matrix.index_copy_(0, to_device(rows, matrix.device), vectors)
    stats.model_s += time.perf_counter() - start
