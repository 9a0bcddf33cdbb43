"""Compute what the rows of a slab get: a vector each, the mean of their windows' vectors, or a list."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ..device import to_device
from ..lists import Lists
from ..ragged import Ints, Ragged
from ..rows import Embedded
from ..vectors.pooling import sum_rows
from .batches import Run, run_batches


def embed_rows(out: Embedded, ids: Ragged, run: Run) -> dict[int, str]:
    """Write the vectors or lists of a slab's valid rows to ``out``; return the reason for each failed row."""
    if run.settings.gives_lists or run.settings.runtime != "torch":
        ids = ids.to_host()  # they select tokens on the host
    if run.settings.gives_lists:
        return _embed_lists(out, ids, run)
    if run.settings.long_documents == "mean":
        return _embed_means(out, ids, run)
    return run_batches(partial(_copy_rows, out.matrix), ids, out.valid, out.stats, run)


def _copy_rows(matrix: torch.Tensor, rows: Ints, vectors: Any) -> None:
    matrix.index_copy_(0, to_device(rows, matrix.device), vectors)


def _embed_lists(out: Embedded, ids: Ragged, run: Run) -> dict[int, str]:
    """Set ``out.lists``. Lists of token vectors are large, so they are moved to the host slab by slab."""
    found: list[tuple[Ints, Lists]] = []
    failed = run_batches(lambda rows, lists: found.append((rows, lists)), ids, out.valid, out.stats, run)
    if found:
        rows = np.concatenate([rows for rows, _ in found])
        lists = Lists.concat([lists for _, lists in found]).to_host().put(rows, len(ids))
    else:
        lists = Lists.empty(run.settings.pooling, len(ids), run.model.head.dimension)
    out.lists = lists
    return failed


def _embed_means(out: Embedded, ids: Ragged, run: Run) -> dict[int, str]:
    """Write the mean of each row's window vectors, weighted by their numbers of text tokens."""
    windows = run.model.reader.split(ids, run.settings.overlap)
    vectors = run.model.zeros(len(windows.rows))
    valid = out.valid[windows.rows]
    failed = run_batches(partial(_copy_rows, vectors), windows.ids, valid, out.stats, run)
    device = out.matrix.device
    # The windows of row i are those from offset i to offset i + 1.
    window_offsets = to_device(np.searchsorted(windows.rows, np.arange(len(ids) + 1)), device)
    weights = to_device(np.maximum(1, windows.sizes).astype(np.float32), device)[:, None]
    weighted_sums = sum_rows(vectors * weights, window_offsets)
    out.matrix[:] = weighted_sums / sum_rows(weights, window_offsets)
    if run.model.head.normalize:
        out.matrix[:] = torch.nn.functional.normalize(out.matrix, dim=1)
    return {int(windows.rows[window]): reason for window, reason in failed.items()}
