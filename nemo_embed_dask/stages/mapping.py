"""Add the columns of a task to a frame: at once for pandas and cuDF, lazily for a Dask DataFrame.

The task is mapped over the source column alone, and its columns are added with ``assign``. So Dask reads only
the columns that a query needs, and does not run the model if its vectors are not used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import dask
from dask.utils import is_dataframe_like, is_series_like

from ..errors import ColumnError
from ..frames import frame_ops, gpu_text_ops
from ..frames.conversion import unsupported
from .tasks import ColumnTask, ModelTask


def map_column(frame: Any, source: str, task: ColumnTask, *, overwrite: bool = False, label: str) -> Any:
    """Add the columns that a task computes from the column ``source``.

    Parameters
    ----------
    frame : Dask, pandas or cuDF DataFrame
    source : str
        The column that the task reads.
    task : ColumnTask
    overwrite : bool
        Whether existing columns with the new names may be replaced.
    label : str
        The task's name on Dask's dashboard.

    Returns
    -------
    DataFrame
        A frame of the same kind, lazy if ``frame`` is lazy.

    Raises
    ------
    ColumnError
        The source is missing or has another type, or a new name is already in use.
    """
    lazy = dask.is_dask_collection(frame)
    meta = frame._meta if lazy and (is_dataframe_like(frame) or is_series_like(frame)) else frame
    _check_columns(meta, source, task, overwrite)
    if task.explodes:
        apply = partial(_explode, source=source, task=task)
        if lazy:
            return frame.map_partitions(apply, meta=apply(meta.iloc[:0]), token=label)
        return apply(frame)
    if lazy:
        new = frame[source].map_partitions(task, meta=task(meta[source].iloc[:0]), token=label)
    else:
        new = task(frame[source])
    return frame.assign(**{name: new[name] for name in task.names})


def _explode(frame: Any, *, source: str, task: ColumnTask, partition_info: dict[str, Any] | None = None) -> Any:
    """Return a partition with one row per window: its rows repeated, with the new columns."""
    new = task.new_columns(frame[source], partition_info)
    return frame.iloc[new.text_positions].assign(**new.columns)


def _check_columns(meta: Any, source: str, task: ColumnTask, overwrite: bool) -> None:
    """Raise ColumnError if the task cannot read the source, or its new names are in use."""
    frame_ops(meta)  # raises if the library is not supported
    if not hasattr(meta, "ndim"):  # a column of pyarrow
        raise unsupported(meta)
    if meta.ndim != 2:
        raise ColumnError(
            f"a DataFrame is needed, not a {type(meta).__name__}; pass for example series.to_frame()"
        )
    if task.settings.tokenizer == "cudf":
        gpu_text_ops(meta)  # raises if the frame is not in GPU memory
    columns = list(meta.columns)
    if source not in columns:
        raise ColumnError(f"there is no column {source!r}; the columns are {columns}. Name one of them")
    if columns.count(source) > 1:
        raise ColumnError(f"there are {columns.count(source)} columns named {source!r}; rename all but one")
    if not task.accepts(meta[source]):
        needed = "strings are needed; convert it first, for example with .astype('string')"
        if isinstance(task, ModelTask):
            needed = "lists of token ids are needed; apply TokenizerStage first"
        raise ColumnError(f"column {source!r} has dtype {meta[source].dtype}, but {needed}")
    check_new_columns(task.all_names, columns, overwrite=overwrite)


def check_new_columns(new: Sequence[str], existing: Collection[str], *, overwrite: bool) -> None:
    """Raise ColumnError if a new column exists already, or two new columns have the same name."""
    has_repeats = len(set(new)) < len(new)
    taken = [name for name in new if name in existing or new.count(name) > 1]
    if taken and (has_repeats or not overwrite):
        raise ColumnError(
            f"there is a column {taken[0]!r} already; choose another name for the new one, drop the old one "
            "(in a job: leave it out of columns), or pass overwrite=True"
        )
