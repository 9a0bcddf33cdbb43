"""Run the model over the rows of a slab, batch by batch; recover from errors, such as out of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import batching, runtimes
from ..device import is_oom, release_memory, set_threads
from ..errors import type_and_message
from ..ragged import Bools, Ints, Ragged
from ..settings import Batching, Settings
from ..stats import Stats
from .model import Model

# Most rows of a batch on a GPU: attention kernels have a grid with a block per row, and CUDA allows this many.
_GPU_ROWS = 65_535


@dataclass(frozen=True)
class Run:
    """The model and the settings of one call of `embed_texts` or `embed_tokens`."""

    model: Model
    settings: Settings
    n_threads: int | None


# Called with the rows of a batch and their vectors, or their lists.
Write = Callable[[Ints, Any], object]


def run_batches(write: Write, ids: Ragged, valid: Bools, stats: Stats, run: Run) -> dict[int, str]:
    """Run the model over the valid rows, batch by batch, without waiting for a GPU; return the failed rows."""
    runtime = run.model.runtime
    failed = rows_beyond_the_tables(ids, valid, vocabulary=runtime.vocabulary, max_length=runtime.max_length)
    rows = np.setdiff1d(np.flatnonzero(valid), list(failed)) if failed else np.flatnonzero(valid)
    batches = batching.batches(
        ids.lengths[rows],
        budget=run.model.runtime.budget,
        max_rows=_max_rows(run),
        pads=run.model.runtime.pads,
        sort=run.settings.sort_by_length,
    )
    for batch in batches:
        failed |= _run_batch(write, ids, rows[batch], stats, run)
    return failed


def _max_rows(run: Run) -> int:
    """Return the most rows of a batch: more than the default on a GPU, which short rows would not fill."""
    given = run.settings.model_inference_batch_size
    is_default = given == Batching.model_inference_batch_size
    return _GPU_ROWS if is_default and run.model.runtime.device.type == "cuda" else given


def rows_beyond_the_tables(
    ids: Ragged, valid: Bools, *, vocabulary: int, max_length: int | None
) -> dict[int, str]:
    """Return the reason for each valid row with a token id or a position that the model has no embedding for.

    On a GPU such a row would end the process's use of the device, so it is found on the host.
    """
    failed: dict[int, str] = {}
    smallest, greatest = ids.extremes()
    if smallest < 0 or greatest >= vocabulary:
        ids = ids.to_host()
        unknown = np.flatnonzero((ids.values < 0) | (ids.values >= vocabulary))
        for place, row in zip(unknown, np.searchsorted(ids.offsets, unknown, side="right") - 1, strict=True):
            failed[int(row)] = (
                f"token id {ids.values[place]} is not among the model's {vocabulary} ids: use the "
                "tokenizer of this model"
            )
    if max_length is not None:
        for row in np.flatnonzero(ids.lengths > max_length):
            failed[int(row)] = (
                f"{ids.lengths[row]} tokens are more than the model's limit of {max_length}: pass "
                f"max_seq_length={max_length}"
            )
    return {row: reason for row, reason in failed.items() if valid[row]}


def _run_batch(write: Write, ids: Ragged, rows: Ints, stats: Stats, run: Run) -> dict[int, str]:
    """Run one batch; if it fails, run its halves. Return the rows that fail even as a batch of one."""
    batch, runtime = ids.take(rows), run.model.runtime
    failure = _try_forward(write, batch, rows, stats, run)
    cost = batching.cost(batch.lengths, pads=runtime.pads)
    if failure is None:
        stats.batches += 1
        stats.padded += cost
        return {}
    if failure.out_of_memory:
        release_memory(runtime.device)
        stats.ooms += 1
        # Other threads share this budget and may have lowered it already.
        runtime.budget = max(1, min(runtime.budget, cost // 2))
    if len(rows) == 1:
        return {int(rows[0]): failure.reason}
    first, second = np.array_split(rows, 2)
    return _run_batch(write, ids, first, stats, run) | _run_batch(write, ids, second, stats, run)


@dataclass(frozen=True)
class _Failure:
    """Why a batch failed: texts only, because an exception's traceback keeps the batch's memory alive."""

    out_of_memory: bool
    reason: str


def _try_forward(write: Write, batch: Ragged, rows: Ints, stats: Stats, run: Run) -> _Failure | None:
    """Run one forward pass; return why it failed, or raise the error if ``on_error`` is "raise"."""
    try:
        runtimes.run_on_model_thread(partial(_forward, write, batch, rows, stats, run))
    except Exception as error:
        if is_oom(error):
            return _Failure(True, f"{len(batch.values)} tokens do not fit in memory")
        if run.settings.on_error == "raise":
            raise
        return _Failure(False, type_and_message(error))
    return None


def _forward(write: Write, batch: Ragged, rows: Ints, stats: Stats, run: Run) -> None:
    """Run the model over a batch and write the vectors of these rows."""
    start = time.perf_counter()  # taken here, so that waiting for the model thread is not counted
    set_threads(run.n_threads)
    write(rows, run.model.vectors(batch))
    stats.model_s += time.perf_counter() - start
