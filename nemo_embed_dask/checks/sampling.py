"""Draw a sample of texts from a frame."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np

from ..errors import ColumnError, ConfigError
from ..frames import frame_ops

# Fewest texts of a sample from which a run is estimated.
MIN_TEXTS = 10
# Partitions of a Dask frame that are read.
_PARTITIONS = 4


def list_texts(texts: Any, caller: str) -> list[Any]:
    """Return a sequence of texts as a list.

    Raises
    ------
    ConfigError
        It is one text, whose characters would be taken as texts, or a frame, whose column names would be.
    """
    if isinstance(texts, str) or hasattr(texts, "columns"):
        raise ConfigError(
            f"{caller} takes a list of texts, not a {type(texts).__name__}; pass [text], or "
            "list(df.text.dropna())"
        )
    return list(texts)


def sample_texts(frame: Any, text_field: str, rows: int) -> list[str]:
    """Return random texts of a frame, without nulls.

    The seed is fixed. Of a Dask frame only a few partitions are read, spread over the frame.

    Raises
    ------
    ColumnError
        There is no such column, or no text in the partitions that were read.
    """
    if text_field not in frame.columns:
        raise ColumnError(f"there is no column {text_field!r}; the columns are {list(frame.columns)}")
    column = frame[text_field]
    partitions = [column]
    if dask.is_dask_collection(frame):
        chosen = np.unique(np.linspace(0, column.npartitions - 1, _PARTITIONS).astype(int))
        partitions = list(dask.compute(*(column.get_partition(int(i)) for i in chosen)))
    texts = [text for part in partitions for text in frame_ops(part).read_texts(part) if text is not None]
    if not texts:
        raise ColumnError(
            f"column {text_field!r} has no text in the {len(partitions)} partitions that were sampled; choose "
            "another column or other data"
        )
    chosen_rows = np.random.default_rng(0).permutation(len(texts))[:rows]
    return [texts[i] for i in chosen_rows]


def check_enough(texts: list[str]) -> list[str]:
    """Return a sample; raise ConfigError if it has too few texts to estimate a run from."""
    if len(texts) < MIN_TEXTS:
        raise ConfigError(
            f"plan needs at least {MIN_TEXTS} texts, and the partitions that were sampled have {len(texts)}; "
            "pass a frame with more rows"
        )
    return texts
