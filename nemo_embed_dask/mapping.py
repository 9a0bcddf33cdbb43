"""One column in, one column out, over a plain frame or lazily over a Dask collection.

Knows Dask and the frames' seam; knows nothing of stages. Series in, Series out, through ``assign``: so
Dask reads only the columns that a query needs, and never runs the model when its vectors are unused.
"""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from .engine import Embedded, embed_texts, embed_tokens, tokenize_texts
from .errors import ColumnError, RowError
from .frames import frame_ops
from .ragged import Ragged
from .settings import Settings


@dataclass(frozen=True)
class ColumnTask:
    """What runs on a partition's column. All that a graph holds: the settings, never weights or secrets."""

    settings: Settings
    name: str

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__qualname__, self.settings, self.name)

    def __call__(self, series: Any, partition_info: dict[str, Any] | None = None) -> Any:
        """One partition's source column to its new column; errors name the partition and the row."""
        try:
            return self.run(series)
        except RowError as error:
            part = f", partition {partition_info['number']}" if partition_info else ""
            raise RowError(f"column {series.name!r}{part}, {error}", error.rows) from error

    def run(self, series: Any) -> Any:
        """The work itself, on one partition."""
        raise NotImplementedError

    def empty(self, series: Any) -> Any:
        """The new column of a partition without rows: its exact meta."""
        raise NotImplementedError

    def accepts(self, series: Any) -> bool:
        """Whether a column of this dtype can be the source."""
        raise NotImplementedError


class _Vectors(ColumnTask):
    def empty(self, series: Any) -> Any:
        none = series.iloc[:0]
        return vector_column(none, np.empty((0, 1), np.float32), self.name, None)

    def finish(self, series: Any, out: Embedded) -> Any:
        ops = frame_ops(series)
        matrix = out.matrix if ops.on_device else out.matrix.cpu().numpy()
        return vector_column(series, matrix, self.name, out.valid)


class EmbedTask(_Vectors):
    """Text to vectors, fused: one partition's whole way."""

    def run(self, series: Any) -> Any:
        if not len(series):
            return self.empty(series)
        texts = frame_ops(series).texts(series)
        return self.finish(series, embed_texts(texts, self.settings, n_threads=cores_per_task()))

    def accepts(self, series: Any) -> bool:
        return frame_ops(series).is_text(series.dtype)


class TokenizeTask(ColumnTask):
    """Text to ragged token ids."""

    def run(self, series: Any) -> Any:
        if not len(series):
            return self.empty(series)
        tokens = tokenize_texts(frame_ops(series).texts(series), self.settings)
        return frame_ops(series).tokens(tokens.ids, tokens.valid, index=series.index, name=self.name)

    def empty(self, series: Any) -> Any:
        none = series.iloc[:0]
        ids = Ragged(np.empty(0, np.int32), np.zeros(1, np.int64))
        return frame_ops(none).tokens(ids, np.empty(0, np.bool_), index=none.index, name=self.name)

    def accepts(self, series: Any) -> bool:
        return frame_ops(series).is_text(series.dtype)


@dataclass(frozen=True)
class ModelTask(_Vectors):
    """Ragged token ids to vectors; ``limit`` clips rows as Curator's ``ModelStage`` does."""

    limit: int | None = None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (*super().__dask_tokenize__(), self.limit)

    def run(self, series: Any) -> Any:
        if not len(series):
            return self.empty(series)
        ids, valid = frame_ops(series).ragged(series)
        if self.limit is not None:
            ids = ids.clip(self.limit, self.settings.padding_side)
        return self.finish(series, embed_tokens(ids, valid, self.settings, n_threads=cores_per_task()))

    def accepts(self, series: Any) -> bool:
        return not frame_ops(series).is_text(series.dtype) or series.dtype == object


def vector_column(series: Any, matrix: Any, name: str, valid: Any) -> Any:
    """A matrix as a list column beside ``series``: its library, its index, a row each."""
    return frame_ops(series).vectors(matrix, valid, index=series.index, name=name)


def map_column(frame: Any, source: str, task: ColumnTask, *, overwrite: bool = False, label: str) -> Any:
    """Add ``task.name``, computed from the column ``source``.

    Parameters
    ----------
    frame : Dask, pandas or cuDF DataFrame
    source : str
        The column that the task reads.
    task : ColumnTask
    overwrite : bool
        Whether a column of the new name may be replaced.
    label : str
        The task's name on Dask's dashboard.

    Returns
    -------
    DataFrame
        Of the same kind; lazy if the frame is.

    Raises
    ------
    ColumnError
        The source is missing or of another type, or the new name is taken.
    """
    lazy = dask.is_dask_collection(frame)
    meta = frame._meta if lazy else frame
    _check_columns(meta, source, task, overwrite)
    if not lazy:
        return frame.assign(**{task.name: task(frame[source])})
    column = frame[source].map_partitions(task, meta=task.empty(meta[source]), token=label)
    return frame.assign(**{task.name: column})


def _check_columns(meta: Any, source: str, task: ColumnTask, overwrite: bool) -> None:
    frame_ops(meta)
    columns = list(meta.columns)
    if source not in columns:
        raise ColumnError(f"there is no column {source!r}; the columns are {columns}. Name the right one")
    if columns.count(source) > 1:
        raise ColumnError(f"there are {columns.count(source)} columns named {source!r}; rename all but one")
    if not task.accepts(meta[source]):
        kind = "token lists" if isinstance(task, ModelTask) else "strings"
        raise ColumnError(
            f"column {source!r} has dtype {meta[source].dtype}, and {kind} are needed; "
            f"convert it first: ddf[{source!r}].astype('string')"
        )
    if task.name in columns and not overwrite:
        raise ColumnError(
            f"there is a column {task.name!r} already; choose another embedding_field, drop it, "
            "or pass overwrite=True"
        )


def cores_per_task() -> int | None:
    """Cores that a model may use here: a worker's own share of its machine; None to leave torch's number.

    Nannies set OMP_NUM_THREADS=1, which would leave one thread to the one forward of a worker that has
    several; and the processes of Dask's multiprocessing scheduler are as many as there are cores.
    """
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return int(get_worker().state.nthreads)
        except ValueError:
            pass
    return 1 if multiprocessing.parent_process() else None
