"""Embed one slab, and compute the rows again whose values overflow the model's number type.

Whether a slab's values are finite is read after the next slab was given to the device, so that the device never
waits for the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ..device import is_oom, start_to_host
from ..errors import type_and_message
from ..lists import Lists
from ..ragged import Ints, Ragged
from ..rows import Embedded
from ..runtimes import Runtime
from .batches import Run
from .compute import embed_rows

_NOT_FINITE = "the model gave NaN or infinite values"


def embed_slab(slab: Embedded, ids: Ragged, run: Run) -> Callable[[], None]:
    """Embed the valid rows of a slab, without waiting for a GPU.

    Returns
    -------
    callable
        To be called once, when the next slab runs: waits for this slab, and computes its rows with NaN or
        infinite values again in number types of greater range. Rows that have such values in all types fail.
    """
    for row, reason in embed_rows(slab, ids, run).items():
        slab.fail(row, reason)
    find_rows = _find_rows_that_are_not_finite(slab)

    def finish() -> None:
        start = time.perf_counter()
        rows = find_rows()
        slab.stats.model_s += time.perf_counter() - start
        _finish(slab, ids, rows, run)

    return finish


def _find_rows_that_are_not_finite(slab: Embedded) -> Callable[[], Ints]:
    if slab.lists is not None:
        rows = slab.lists.rows_with(~_are_finite(slab.lists.columns[""]))
        return lambda: rows
    read = start_to_host(_are_finite(slab.matrix))
    return lambda: np.flatnonzero(~read())


def _are_finite(values: torch.Tensor) -> torch.Tensor:
    """Return which vectors of a matrix, or which numbers, are finite."""
    # The sum of a row is finite if all its values are; in float64, finite values do not overflow.
    return (values if values.dim() == 1 else values.sum(dim=1, dtype=torch.float64)).isfinite()


def _finish(slab: Embedded, ids: Ragged, rows: Ints, run: Run) -> None:
    """Count the rows by their number type; compute ``rows``, which are not finite, again or fail them."""
    runtime = run.model.runtime
    slab.stats.count_rows(runtime.number_type, int(slab.valid.sum()) - len(rows))
    wider, reason = _load_wider(runtime) if len(rows) else (None, "")
    if wider is None:
        for row in rows:
            slab.fail(int(row), reason)
        return
    again = Embedded(
        matrix=run.model.zeros(len(rows)),
        valid=np.ones(len(rows), np.bool_),
        n_tokens=slab.n_tokens[rows],
        truncated=slab.truncated[rows],
    )
    embed_slab(again, ids.take(rows), replace(run, model=replace(run.model, runtime=wider)))()
    _replace_rows(slab, rows, again)


def _load_wider(runtime: Runtime) -> tuple[Runtime | None, str]:
    """Return the model in a type of greater range; or None, and why rows that are not finite fail."""
    try:
        return runtime.load_wider(), _NOT_FINITE
    except Exception as error:  # noqa: BLE001 - only the rows that need it fail
        why = "no second model fits in memory" if is_oom(error) else type_and_message(error)
        return None, f"{_NOT_FINITE} in {runtime.number_type}, and cannot run in another type: {why}"


def _replace_rows(slab: Embedded, rows: Ints, again: Embedded) -> None:
    again.stats.padded = 0  # what is computed again is no padding
    slab.stats += again.stats
    slab.matrix[torch.from_numpy(rows).to(slab.matrix.device)] = again.matrix
    if slab.lists is not None and again.lists is not None:
        order = np.arange(len(slab.lists))
        order[rows] = len(order) + np.arange(len(rows))
        slab.lists = Lists.concat([slab.lists, again.lists]).take(order)
    for row, reason in again.failures.items():
        slab.fail(int(rows[row]), reason)
