"""One column in, one column out, over a plain frame or lazily over a Dask collection.

Knows Dask and the frames' seam; knows nothing of stages. Series in, Series out, through ``assign``: so
Dask reads only the columns that a query needs, and never runs the model when its vectors are unused.
"""

from __future__ import annotations

import multiprocessing
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import torch

from ..engine import embed_chunks, embed_texts, embed_tokens
from ..errors import ColumnError, RowError
from ..frames import frame_ops, gpu_text_ops
from ..ragged import Ragged
from ..rows import Embedded
from ..settings import Settings, Stats
from ..tokens.cudf import tokenize_column
from ..tokens.texts import Spans, Tokenized, tokenize_texts
from ..vectors.quantization import DTYPES

SPANS = ("chunk", "char_start", "char_end")


@dataclass(frozen=True)
class ColumnTask(ABC):
    """What runs on a partition's column. All that a graph holds: the settings, never weights or secrets.

    ``n_tokens``, ``truncated``: names of columns to add, or None.
    """

    settings: Settings
    name: str
    n_tokens: str | None = None
    truncated: str | None = None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__qualname__, *(getattr(self, item.name) for item in fields(self)))

    def __call__(self, series: Any, partition_info: dict[str, Any] | None = None) -> Any:
        """One partition's source column to its new one or ones; errors name the partition and the row."""
        try:
            made = self.run(series) if len(series) else self.nothing(series.iloc[:0])
        except RowError as error:
            part = f", partition {partition_info['number']}" if partition_info else ""
            raise RowError(f"column {series.name!r}{part}, {error}", error.rows, error.reason) from error
        first = made.pop(self.name)
        return first.to_frame().assign(**made) if made else first

    def empty(self, series: Any) -> Any:
        """The new column or columns of a partition without rows: their exact meta."""
        return self(series.iloc[:0])

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it makes."""
        return tuple(name for name in (self.name, self.n_tokens, self.truncated) if name)

    @property
    def new_names(self) -> tuple[str, ...]:
        """The same, and those that say what window a row is."""
        return (*self.names, *(SPANS if self.explodes else ()))

    @property
    def explodes(self) -> bool:
        """Whether it makes a row a window."""
        return False

    @abstractmethod
    def run(self, series: Any) -> dict[str, Any]:
        """The work itself, on a partition with rows: a Series for each of `names`."""

    @abstractmethod
    def nothing(self, series: Any) -> dict[str, Any]:
        """What `run` would make of no rows."""

    def accepts(self, series: Any) -> bool:
        """Whether a column of this dtype can be the source."""
        return frame_ops(series).is_text(series.dtype)

    def about(self, rows: Embedded | Tokenized) -> dict[str, npt.NDArray[Any]]:
        """The columns that say how a row was read: int64 or bool, by name."""
        lengths = rows.n_tokens if isinstance(rows, Embedded) else rows.ids.lengths
        asked = {self.n_tokens: lengths, self.truncated: rows.truncated}
        if self.explodes and rows.spans is not None:
            spans = (rows.spans.numbers, rows.spans.char_start, rows.spans.char_end)
            asked |= dict(zip(SPANS, spans, strict=True))
        return {name: values for name, values in asked.items() if name}

    def beside(self, series: Any, rows: Embedded | Tokenized) -> dict[str, Any]:
        """The same as columns beside ``series``."""
        return {
            name: type(series)(values, index=series.index, name=name)
            for name, values in self.about(rows).items()
        }


class _Vectors(ColumnTask):
    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, *(output.name for output in self.settings.extra_outputs))

    def nothing(self, series: Any) -> dict[str, Any]:
        dtypes = (self.settings.embedding_dtype, *(output.dtype for output in self.settings.extra_outputs))
        blocks = [DTYPES[dtype](torch.empty(0, 1), torch.zeros(2, 1)) for dtype in dtypes]
        none = Embedded.empty(0, 1, torch.device("cpu"))
        none.matrix, none.extra = blocks[0], dict(zip(map(str, range(len(blocks))), blocks[1:], strict=False))
        none.spans = Spans.concat([], [])
        return self.finish(series, none)

    def finish(self, series: Any, out: Embedded) -> dict[str, Any]:
        """Vectors, and what was asked about them, as columns beside ``series``."""
        on_device = frame_ops(series).on_device
        names = (self.name, *(output.name for output in self.settings.extra_outputs))
        blocks = [block if on_device else block.cpu().numpy() for block in (out.matrix, *out.extra.values())]
        made = {n: vector_column(series, block, n, out.valid) for n, block in zip(names, blocks, strict=True)}
        return made | self.beside(series, out)


class EmbedTask(_Vectors):
    """Text to vectors, fused: one partition's whole way."""

    @property
    def explodes(self) -> bool:
        return self.settings.long_documents == "explode"

    def embed(self, texts: Sequence[str | None]) -> Embedded:
        """Texts to vectors: a row a text, or a row a window."""
        embed = embed_chunks if self.explodes else embed_texts
        return embed(texts, self.settings, n_threads=cores_per_task())

    def run(self, series: Any) -> dict[str, Any]:
        if self.settings.tokenizer == "cudf":
            return self.finish(series, self._by_tokens(series))
        out = self.embed(frame_ops(series).read_texts(series))
        return self.finish(series if out.spans is None else series.iloc[out.spans.rows], out)

    def _by_tokens(self, series: Any) -> Embedded:
        """Texts stay on the GPU, and are tokenized there before the model runs."""
        tokens = tokenize_column(series, gpu_text_ops(series), self.settings)
        out = embed_tokens(tokens.ids, tokens.valid, self.settings, n_threads=cores_per_task())
        out.n_tokens, out.truncated = tokens.ids.lengths, tokens.truncated
        out.stats.tokenize_s, out.stats.truncated = tokens.stats.tokenize_s, tokens.stats.truncated
        return out


class TokenizeTask(ColumnTask):
    """Text to ragged token ids."""

    @property
    def explodes(self) -> bool:
        return self.settings.long_documents == "explode"

    def run(self, series: Any) -> dict[str, Any]:
        if self.settings.tokenizer == "cudf":
            return self._columns(series, tokenize_column(series, gpu_text_ops(series), self.settings))
        return self._columns(series, tokenize_texts(frame_ops(series).read_texts(series), self.settings))

    def nothing(self, series: Any) -> dict[str, Any]:
        ids, none = Ragged(np.empty(0, np.int32), np.zeros(1, np.int64)), np.empty(0, np.bool_)
        return self._columns(series, Tokenized(ids, none, Stats(), spans=Spans.concat([], [])))

    def _columns(self, series: Any, tokens: Tokenized) -> dict[str, Any]:
        if tokens.spans is not None:
            series = series.iloc[tokens.spans.rows]
        column = frame_ops(series).token_column(tokens.ids, tokens.valid, index=series.index, name=self.name)
        return {self.name: column} | self.beside(series, tokens)


@dataclass(frozen=True)
class ModelTask(_Vectors):
    """Ragged token ids to vectors; ``limit`` clips rows as Curator's ``ModelStage`` does."""

    limit: int | None = None

    def run(self, series: Any) -> dict[str, Any]:
        ids, valid = frame_ops(series).read_tokens(series)
        if self.limit is not None and self.settings.long_documents != "mean":
            ids = ids.clip(self.limit, self.settings.padding_side)
        return self.finish(series, embed_tokens(ids, valid, self.settings, n_threads=cores_per_task()))

    def accepts(self, series: Any) -> bool:
        return not frame_ops(series).is_text(series.dtype) or series.dtype == object


def vector_column(series: Any, matrix: Any, name: str, valid: Any) -> Any:
    """A matrix as a list column beside ``series``: its library, its index, a row each."""
    return frame_ops(series).vector_column(matrix, valid, index=series.index, name=name)


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
    if task.explodes:
        apply = partial(_explode, source=source, task=task)
        return frame.map_partitions(apply, meta=apply(meta.iloc[:0]), token=label) if lazy else apply(frame)
    if not lazy:
        made = task(frame[source])
    else:
        made = frame[source].map_partitions(task, meta=task.empty(meta[source]), token=label)
    several = made.ndim == 2
    return frame.assign(**{name: made[name] if several else made for name in task.names})


def _explode(frame: Any, *, source: str, task: ColumnTask, partition_info: dict[str, Any] | None = None) -> Any:
    """One partition with a row a window: its own columns repeated, beside the new ones."""
    made = task(frame[source], partition_info)
    rows = np.cumsum(made[SPANS[0]].to_numpy() == 0) - 1
    return frame.iloc[rows].assign(**{name: made[name] for name in made.columns})


def _check_columns(meta: Any, source: str, task: ColumnTask, overwrite: bool) -> None:
    frame_ops(meta)
    if meta.ndim != 2:
        raise ColumnError(f"{source!r} is looked for in a {type(meta).__name__}, which has no columns; pass a "
                          "DataFrame: series.to_frame()")  # fmt: skip
    if task.settings.tokenizer == "cudf":
        gpu_text_ops(meta)
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
    check_names(task.new_names, columns, overwrite=overwrite)


def check_names(new: Sequence[str], existing: Collection[str], *, overwrite: bool) -> None:
    """Raise ColumnError if a new column exists already, or two new columns have the same name."""
    taken = [name for name in new if name in existing or new.count(name) > 1]
    if taken and not (overwrite and len(set(new)) == len(new)):
        raise ColumnError(
            f"there is a column {taken[0]!r} already; choose another name for the new one, drop the old one "
            "(in a job: leave it out of columns), or pass overwrite=True"
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
