"""A few rows of text from a frame, for looking ahead. Knows frames by Dask and their seam; runs no model."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np

from ..errors import ColumnError
from ..frames import frame_ops

_PARTITIONS = 4


def sample_texts(frame: Any, text_field: str, rows: int) -> list[str]:
    """Texts drawn at random, with a fixed seed, from partitions spread over a frame; nulls left out.

    Raises
    ------
    ColumnError
        There is no such column, or no text in the partitions looked at.
    """
    if text_field not in frame.columns:
        raise ColumnError(f"there is no column {text_field!r}; the columns are {list(frame.columns)}")
    column = frame[text_field]
    parts = [column]
    if dask.is_dask_collection(frame):
        chosen = np.unique(np.linspace(0, column.npartitions - 1, _PARTITIONS).astype(int))
        parts = list(dask.compute(*(column.get_partition(int(i)) for i in chosen)))
    texts = [text for part in parts for text in frame_ops(part).read_texts(part) if text is not None]
    if not texts:
        raise ColumnError(f"column {text_field!r} has no text in the partitions sampled; choose other input")
    picked = np.random.default_rng(0).permutation(len(texts))[:rows]
    return [texts[i] for i in picked]
