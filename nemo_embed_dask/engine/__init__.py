"""Embed one partition: texts or token ids in, a matrix out, rows in input order.

Texts are tokenized one slab at a time; while the model runs a slab, the next one is tokenized. A slab's rows go
through the model in batches of similar length, and each vector is written to its row of the matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

import torch

from ..ragged import Ints
from ..rows import Embedded, Tokenized, deduplicate, expand_failures
from ..runtimes import Runtime
from ..runtimes.static import StaticRuntime
from ..settings import Settings
from ..tokens.cudf import tokenize_on_gpu
from ..tokens.gpu_texts import GpuTextOps, read_column
from ..tokens.texts import raise_failures, tokenize_slabs
from .batches import Run
from .calibrated import check_calibration
from .model import Model, load_model, load_runtime, unload, unload_from_gpu
from .outputs import convert_outputs
from .slabs import embed_slab

__all__ = [
    "Model",
    "check_calibration",
    "embed_column",
    "embed_texts",
    "embed_tokens",
    "load_model",
    "load_runtime",
    "unload",
    "unload_from_gpu",
]

# Most rows and tokens of a slab, by type of device. Large enough that sorting finds rows of equal length, small
# enough that memory stays bounded. A GPU waits while the first slab is tokenized, so its slabs are few batches.
SLAB_ROWS = {"cpu": 16_384, "cuda": 65_535}
_SLAB_TOKENS = {"cuda": 1 << 19}
# A static model waits for its tokens. Two threads tokenize small slabs for it: while the library makes the
# tokens of one, Python copies those of the other.
_STATIC_SLAB_ROWS, _STATIC_AHEAD = 1_024, 2


def embed_texts(texts: Sequence[str | None], settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed texts, one row per text; with ``long_documents="explode"``, one row per window.

    Parameters
    ----------
    texts : sequence of str or None
    settings : Settings
    n_threads : int, optional
        Cores that the model may use; None keeps torch's default.

    Returns
    -------
    Embedded
        Row ``i`` belongs to ``texts[i]``; with one row per window, to ``texts[origins.text_positions[i]]``.
        In both cases a null has one row, which is not valid.

    Raises
    ------
    RowError
        A row is not a text, or its vector is not finite, and ``on_error`` is "raise".
    """
    start = time.perf_counter()
    run = Run(load_model(settings), settings, n_threads)
    check_calibration(settings, run.model)
    exploded = settings.long_documents == "explode"
    distinct, index = deduplicate(texts) if settings.share_equal_texts and not exploded else (texts, None)
    limits = _slab_size(run.model.runtime)
    # Closed here, also after an error: if the garbage collector closes it while another thread starts, and
    # waits for its thread, both wait forever.
    with closing(tokenize_slabs(distinct, run.model.reader, settings, **limits)) as slabs:
        out = _embed_slabs(slabs, run, rows=None if exploded else len(distinct))
    return _finish(out, run, index, nulls=sum(text is None for text in texts), start=start)


def embed_column(series: Any, ops: GpuTextOps, settings: Settings, *, n_threads: int | None = None) -> Embedded:
    """Embed a text column in a GPU's memory, one row per text; it is tokenized there by cuDF.

    Parameters and errors are those of `embed_texts`, and ``ops``: the functions for the column.
    """
    start = time.perf_counter()
    run = Run(load_model(settings), settings, n_threads)
    check_calibration(settings, run.model)
    reader = run.model.reader
    texts = read_column(series, ops, reader, settings, deduplicate=settings.share_equal_texts)
    with closing(tokenize_on_gpu(texts, ops, reader)) as slabs:
        out = _embed_slabs(slabs, run, rows=len(texts.valid))
    return _finish(out, run, texts.index, nulls=texts.nulls, start=start)


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
        Cores that the model may use; None keeps torch's default.

    Raises
    ------
    RowError
        A row is listed in the failures of ``tokens``, or its vector is not finite, and ``on_error`` is "raise".
    """
    start = time.perf_counter()
    raise_failures(tokens.failures, settings)
    run = Run(model or load_model(settings), settings, n_threads)
    check_calibration(settings, run.model)
    distinct, index = tokens.deduplicate() if settings.share_equal_texts else (tokens, None)
    out = _embed_slabs([(0, distinct)], run, rows=len(distinct.ids))
    out = _finish(out, run, index, nulls=tokens.stats.nulls, start=start)
    # Rows with equal ids can differ in ``truncated``; `deduplicate` leaves it out, so take it from the input.
    out.truncated, out.stats.truncated = tokens.truncated, tokens.stats.truncated
    out.failures = dict(sorted((tokens.failures | out.failures).items()))
    out.stats.tokenize_s = tokens.stats.tokenize_s
    return out


def _slab_size(runtime: Runtime) -> dict[str, Any]:
    """Return the limits of slabs, and how many are tokenized while the model runs one: see `tokenize_slabs`."""
    if isinstance(runtime, StaticRuntime):
        return {"max_rows": _STATIC_SLAB_ROWS, "ahead": _STATIC_AHEAD}
    kind = runtime.device.type
    return {"max_rows": SLAB_ROWS.get(kind, SLAB_ROWS["cpu"]), "max_tokens": _SLAB_TOKENS.get(kind)}


def _embed_slabs(slabs: Iterable[tuple[int, Tokenized]], run: Run, *, rows: int | None) -> Embedded:
    """Embed slab by slab; with ``on_error="raise"``, stop after the first slab with a failed row.

    ``slabs``: the position of each slab's first text, and its tokens. ``rows``: the number of rows of all
    slabs, for one matrix of all vectors; None if it is not known in advance (one row per window).
    """
    matrix = None if rows is None else run.model.zeros(rows)
    parts: list[Embedded] = []
    first_texts: list[int] = []
    rows_done = 0
    finish: Callable[[], None] | None = None
    for first_text, tokens in slabs:
        count = len(tokens.ids)
        vectors = run.model.zeros(count) if matrix is None else matrix[rows_done : rows_done + count]
        parts.append(Embedded.from_tokens(tokens, vectors))
        first_texts.append(first_text)
        rows_done += count
        finish_this = embed_slab(parts[-1], tokens.ids, run)
        if finish is not None:
            finish()
        finish = finish_this
        if run.settings.on_error == "raise" and any(part.failures for part in parts[-2:]):
            break
    if finish is not None:
        finish()
    if matrix is None:
        matrix = parts[0].matrix if len(parts) == 1 else torch.cat([part.matrix for part in parts])
    return Embedded.concat(parts, matrix[:rows_done], first_texts)


def _finish(out: Embedded, run: Run, index: Ints | None, *, nulls: int, start: float) -> Embedded:
    """Convert the vectors to the output types, raise for failed rows, and copy the vectors to equal rows.

    ``index``: the position in ``out`` of each row's vector; None if the rows were not deduplicated.
    """
    out = convert_outputs(out, run)
    raise_failures(expand_failures(out.failures, index), run.settings)
    if index is not None:
        out = out.expand(index, nulls)
    out.stats.total_s = time.perf_counter() - start
    return out
