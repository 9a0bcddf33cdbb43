"""Tasks, which a Dask graph runs on one column of each partition; each returns new columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..engine import embed_column, embed_texts, embed_tokens
from ..errors import RowError
from ..frames import frame_ops, gpu_text_ops
from ..lists import LIST_COLUMNS, Lists
from ..ragged import Ints, Ragged
from ..rows import Embedded, Origins, RowInfo, Tokenized
from ..settings import Settings
from ..tokens.cudf import tokenize_column
from ..tokens.reader import find_reader
from ..tokens.texts import tokenize_texts
from ..vectors.quantization import DTYPES
from .workers import cores_per_task

# Columns that say which window of a text a row holds.
WINDOW_COLUMNS = ("chunk", "char_start", "char_end")


@dataclass(frozen=True)
class NewColumns:
    """The columns that a task makes of one partition.

    ``columns``: series of the partition's dataframe library, by name. ``text_positions``: with one row per
    window, the position of each row's text in the partition; None with one row per text.
    """

    columns: dict[str, Any]
    text_positions: Ints | None = None


@dataclass(frozen=True)
class ColumnTask(ABC):
    """A function of one column of a partition; it holds settings, but no weights and no secrets.

    ``name``: the new column. ``n_tokens``, ``truncated``: names of further columns to add, or None.
    """

    settings: Settings
    name: str
    n_tokens: str | None = None
    truncated: str | None = None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Return what decides the names of this task's keys in a Dask graph: its class and its fields."""
        return (type(self).__qualname__, *(getattr(self, item.name) for item in fields(self)))

    def __call__(self, series: Any, partition_info: dict[str, Any] | None = None) -> Any:
        """Return a DataFrame with the new columns of one partition, given its source column."""
        columns = dict(self.new_columns(series, partition_info).columns)
        return columns.pop(self.name).to_frame().assign(**columns)

    def new_columns(self, series: Any, partition_info: dict[str, Any] | None = None) -> NewColumns:
        """Run the task on one partition; errors name the column, the partition and the row."""
        if not len(series):
            return self.columns_without_rows(series)
        try:
            return self.run(series)
        except RowError as error:
            where = f", partition {partition_info['number']}" if partition_info else ""
            raise RowError(f"column {series.name!r}{where}, {error}", error.rows, error.reason) from error

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that the task adds, apart from `WINDOW_COLUMNS`."""
        return tuple(name for name in (self.name, self.n_tokens, self.truncated) if name)

    @property
    def all_names(self) -> tuple[str, ...]:
        """All columns that the task adds."""
        return (*self.names, *(WINDOW_COLUMNS if self.explodes else ()))

    @property
    def explodes(self) -> bool:
        """Whether the task makes one row per window instead of one row per text."""
        return self.settings.long_documents == "explode"

    @abstractmethod
    def run(self, series: Any) -> NewColumns:
        """Compute the new columns of a partition with rows."""

    @abstractmethod
    def columns_without_rows(self, series: Any) -> NewColumns:
        """Return the new columns, in their exact types, of a partition without rows; load no model."""

    def accepts(self, series: Any) -> bool:
        """Return whether a column of this dtype can be the source."""
        return frame_ops(series).is_text(series.dtype)

    def info_arrays(self, rows: RowInfo) -> dict[str, npt.NDArray[Any]]:
        """Return the optional columns about the rows: int64 or bool arrays by name."""
        optional = {self.n_tokens: rows.n_tokens, self.truncated: rows.truncated}
        arrays = {name: values for name, values in optional.items() if name}
        if self.explodes and rows.origins is not None:
            origins = (rows.origins.numbers, rows.origins.char_start, rows.origins.char_end)
            arrays |= dict(zip(WINDOW_COLUMNS, origins, strict=True))
        return arrays

    def _info_columns(self, series: Any, rows: RowInfo) -> dict[str, Any]:
        """Return `info_arrays` as columns with the index of ``series``."""
        return {
            name: type(series)(values, index=series.index, name=name)
            for name, values in self.info_arrays(rows).items()
        }


class _VectorTask(ColumnTask):
    """A task that adds vectors, and further outputs from the same forward pass."""

    @property
    def names(self) -> tuple[str, ...]:
        others = list(self.vector_names)
        others.remove(self.name)
        return (*super().names, *others)

    @property
    def vector_names(self) -> tuple[str, ...]:
        """The columns of vectors, or of lists."""
        endings = LIST_COLUMNS.get(self.settings.pooling, ("",))
        return (
            *(self.name + ending for ending in endings),
            *(output.name for output in self.settings.extra_outputs),
        )

    def columns_without_rows(self, series: Any) -> NewColumns:
        dtype = self.settings.embedding_dtype
        empty = Embedded.from_tokens(_no_tokens(), _no_vectors(dtype))
        empty.extra = {output.name: _no_vectors(output.dtype) for output in self.settings.extra_outputs}
        if self.settings.gives_lists:
            empty.lists = Lists.empty(self.settings.pooling, 0, dtype=empty.matrix.dtype)
        return self._vector_columns(series, empty)

    def matrices(self, out: Embedded) -> dict[str, torch.Tensor]:
        """Return the vectors of each output by the name of its column; none if there are lists."""
        return {self.name: out.matrix, **out.extra} if out.lists is None else {}

    def lists(self, out: Embedded) -> dict[str, Lists]:
        """Return the lists of each column by its name, empty for rows that are not valid."""
        if out.lists is None:
            return {}
        valid_lists = out.lists if out.valid.all() else out.lists.without(~out.valid)
        columns = valid_lists.columns.items()
        return {self.name + ending: Lists({"": values}, valid_lists.offsets) for ending, values in columns}

    def _vector_columns(self, series: Any, out: Embedded) -> NewColumns:
        """Return the vectors and the optional columns, in the library and with the index of ``series``."""
        series = _repeat_per_window(series, out.text_positions)
        ops = frame_ops(series)
        columns = {}
        for name, matrix in self.matrices(out).items():
            values = matrix if ops.on_device else matrix.cpu().numpy()
            columns[name] = ops.vector_column(values, out.valid, index=series.index, name=name)
        for name, lists in self.lists(out).items():
            values, offsets = lists.columns[""].numpy(), lists.offsets
            columns[name] = ops.list_column(values, offsets, out.valid, index=series.index, name=name)
        return NewColumns(columns | self._info_columns(series, out), out.text_positions)


class EmbedTask(_VectorTask):
    """Texts to vectors."""

    def embed(self, texts: Sequence[str | None]) -> Embedded:
        """Embed texts, one row per text or one row per window."""
        return embed_texts(texts, self.settings, n_threads=cores_per_task())

    def run(self, series: Any) -> NewColumns:
        if self.settings.tokenizer == "cudf":
            ops = gpu_text_ops(series)
            out = embed_column(series, ops, self.settings, n_threads=cores_per_task())
            return self._vector_columns(series, out)
        return self._vector_columns(series, self.embed(frame_ops(series).read_texts(series)))


class TokenizeTask(ColumnTask):
    """Texts to ragged token ids."""

    def run(self, series: Any) -> NewColumns:
        return self._token_columns(series, self._tokenize(series))

    def columns_without_rows(self, series: Any) -> NewColumns:
        return self._token_columns(series, _no_tokens())

    def _tokenize(self, series: Any) -> Tokenized:
        if self.settings.tokenizer == "cudf":
            return tokenize_column(series, gpu_text_ops(series), find_reader(self.settings), self.settings)
        return tokenize_texts(frame_ops(series).read_texts(series), self.settings)

    def _token_columns(self, series: Any, tokens: Tokenized) -> NewColumns:
        series = _repeat_per_window(series, tokens.text_positions)
        ops = frame_ops(series)
        ids = tokens.ids if ops.on_device else tokens.ids.to_host()
        column = ops.token_column(ids, tokens.valid, index=series.index, name=self.name)
        return NewColumns({self.name: column} | self._info_columns(series, tokens), tokens.text_positions)


@dataclass(frozen=True)
class ModelTask(_VectorTask):
    """Ragged token ids to vectors. ``limit``: tokens to keep of each row, as in Curator's ``ModelStage``."""

    limit: int | None = None

    @property
    def explodes(self) -> bool:
        return False  # the tokenizer stage has made one row per window

    def run(self, series: Any) -> NewColumns:
        ids, valid, failures = frame_ops(series).read_tokens(series)
        if self.limit is not None and self.settings.long_documents != "mean":
            ids = ids.clip(self.limit, self.settings.padding_side)
        tokens = Tokenized.from_ids(ids, valid)
        tokens.failures = failures
        return self._vector_columns(series, embed_tokens(tokens, self.settings, n_threads=cores_per_task()))

    def accepts(self, series: Any) -> bool:
        # An object column may hold lists.
        return not frame_ops(series).is_text(series.dtype) or series.dtype == object


def _repeat_per_window(series: Any, positions: Ints | None) -> Any:
    """Repeat each text's row once per window; without windows, return the series."""
    return series if positions is None else series.iloc[positions]


def _no_tokens() -> Tokenized:
    """Return an empty `Tokenized` with empty ``origins``, from which window columns can be made."""
    tokens = Tokenized.from_ids(Ragged.from_rows([]), np.empty(0, np.bool_))
    tokens.origins = Origins.concat([], [])
    return tokens


def _no_vectors(dtype: str) -> torch.Tensor:
    """Return a matrix without rows in the number type of stored vectors."""
    ranges = torch.zeros(2, 1)  # their values do not matter without rows
    return DTYPES[dtype](torch.empty(0, 1), ranges)
