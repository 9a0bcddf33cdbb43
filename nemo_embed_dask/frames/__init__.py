"""Read texts from dataframes and write vectors to them; one module per dataframe library.

To support another library, add ``frames/<library>.py`` with the functions of `FrameOps` and register it
below. A module is imported when the first dataframe of its library is passed.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, Protocol, cast

import numpy as np
from dask.utils import Dispatch

from ..errors import ColumnError, ConfigError
from ..ragged import Bools, Ints, Ragged
from .conversion import check_column, unsupported

_MODULES = {"pandas": "pandas", "cudf": "cudf", "pyarrow": "arrow"}
# The list columns of Arrow and cuDF have int32 offsets.
MAX_LIST_VALUES = 2**31 - 1


class FrameOps(Protocol):
    """The functions for one dataframe library; ``on_device``: whether its columns are in GPU memory."""

    on_device: bool

    def is_text(self, dtype: Any) -> bool:
        """Return whether a column of this dtype holds strings."""

    def read_texts(self, series: Any) -> list[str | None]:
        """Return the values of a string column, with None for nulls."""

    def vector_column(self, matrix: Any, valid: Bools | None, *, index: Any, name: Any) -> Any:
        """Make a list column that shares the memory of a ``[n, d]`` matrix, with nulls where not valid.

        The matrix is float32, float16, int8 or uint8. If the library lacks the type, raise ColumnError.
        """

    def list_column(self, values: Any, offsets: Ints, valid: Bools, *, index: Any, name: Any) -> Any:
        """Make a column with one list per row, with nulls where not valid.

        ``values``: on the host, numbers of shape (total,) or vectors of shape (total, d); those give lists of
        lists. float32, float16 or int32. If the library lacks the type, raise ColumnError.
        """

    def read_vectors(self, series: Any) -> Any:
        """Return the matrix of a column of vectors without nulls: the inverse of `vector_column`."""

    def token_column(self, ids: Ragged, valid: Bools, *, index: Any, name: Any) -> Any:
        """Make a list column of ragged int32 token ids, with nulls where not valid."""

    def read_tokens(self, series: Any) -> tuple[Ragged, Bools, dict[int, str]]:
        """Return the token ids of a column and which rows have some: the inverse of `token_column`.

        The third value has the reason for each row whose values cannot be token ids, by the row's position.
        """


_dispatch = Dispatch("frame_ops")


def _register_pandas() -> None:
    import pandas as pd

    from . import pandas as ops

    for kind in (pd.Series, pd.DataFrame, pd.Index):
        _dispatch.register(kind, lambda _: ops)


def _register_arrow() -> None:
    import pyarrow as pa

    from . import arrow

    for kind in (pa.Array, pa.ChunkedArray):
        _dispatch.register(kind, lambda _: arrow)


def _register_cudf() -> None:
    library = importlib.import_module("cudf")
    ops = importlib.import_module(".cudf", __name__)
    for kind in (library.Series, library.DataFrame, library.Index):
        _dispatch.register(kind, lambda _: ops)


_dispatch.register_lazy("pandas", _register_pandas)
_dispatch.register_lazy("cudf", _register_cudf)
_dispatch.register_lazy("pyarrow", _register_arrow)


def _is_registered(data: Any) -> bool:
    """Return whether `frame_ops` knows the library of this dataframe or column."""
    try:
        return _dispatch.dispatch(type(data)) is not None
    except TypeError:
        return False


def frame_ops(data: Any) -> FrameOps:
    """Return the functions for the library of this dataframe or column."""
    try:
        return cast("FrameOps", _dispatch(data))
    except TypeError:
        raise unsupported(data) from None


def gpu_text_ops(data: Any) -> Any:
    """Return the functions that tokenize this dataframe or column on a GPU, see `tokens.cudf.GpuTextOps`.

    Raises
    ------
    ColumnError
        The dataframe or column is not one of cuDF.
    """
    if not frame_ops(data).on_device:
        raise ColumnError(
            f"tokenizer='cudf' needs a cuDF frame, not one of {type(data).__module__.partition('.')[0]}; "
            "convert it first (ddf.to_backend('cudf')), or pass tokenizer='huggingface'"
        )
    return importlib.import_module(".cudf_wordpiece", __name__)


def check_list_size(rows: int, width: int) -> None:
    """Raise ColumnError if a matrix of this shape has too many values for the offsets of a list column."""
    if rows * width > MAX_LIST_VALUES:
        raise ColumnError(
            f"a partition of {rows} rows x {width} dimensions exceeds the 2^31 - 1 values of a list column; "
            f"repartition to at most {MAX_LIST_VALUES // width} rows, "
            "e.g. ddf.repartition(partition_size='256MB')"
        )


def to_matrix(series: Any) -> Any:
    """Return a column of equally long lists as a matrix, which shares the column's memory if it can.

    Parameters
    ----------
    series : pandas, cuDF or polars Series, pyarrow Array or ChunkedArray
        A column without nulls; drop them first (``df.dropna(subset=["embeddings"])``). Columns of other
        libraries are read if they export Arrow data (``__arrow_c_stream__``).

    Returns
    -------
    ndarray or Tensor, shape (n, d)
        float32; for cuDF a torch tensor on the GPU. Arrow lists of float16, int8 or uint8 keep that type.

    Raises
    ------
    ColumnError
        The column is lazy, has nulls, or has lists of unequal length.

    Examples
    --------
    >>> import pyarrow as pa
    >>> to_matrix(pa.array([[1.0, 0.0], [0.0, 1.0]], pa.list_(pa.float32())))
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    column = _as_column(series)
    return frame_ops(column).read_vectors(column)


def _as_column(series: Any) -> Any:
    """Return a column that `frame_ops` knows, from one of a library that exports Arrow data, such as polars."""
    check_column(series)
    if _is_registered(series) or not hasattr(series, "__arrow_c_stream__"):
        return series
    import pyarrow as pa

    return pa.chunked_array(series)


def from_matrix(
    matrix: Any,
    *,
    index: Any = None,
    name: Any = None,
    library: Literal["pandas", "cudf", "pyarrow"] | None = None,
) -> Any:
    """Make a list column that shares the memory of a float32 matrix.

    Parameters
    ----------
    matrix : ndarray or Tensor, shape (n, d)
        Other dtypes are converted, which copies the values.
    index : pandas or cuDF Index, optional
        The index of the column, of length n. Default: a range.
    name : optional
        The name of the column.
    library : str, optional
        The library of the column. Default: the library of the index; without an index, cuDF for a tensor in
        GPU memory and pandas for all else.

    Returns
    -------
    Series or ListArray
        pandas Series of ``list<float>[pyarrow]``, cuDF Series of ``list<float32>``, or ListArray of float.

    Raises
    ------
    ColumnError
        The array is not a matrix, the index has another length, or n x d exceeds the 2^31 - 1 values of a list
        column.
    ConfigError
        The library is unknown.

    Examples
    --------
    >>> from_matrix(np.eye(2, dtype=np.float32), name="vectors").tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_shape(matrix, index)
    ops = _ops_for(matrix, index, library)
    if not ops.on_device:
        matrix = np.ascontiguousarray(matrix.cpu() if hasattr(matrix, "cpu") else matrix, dtype=np.float32)
    return ops.vector_column(matrix, None, index=index, name=name)


def _check_shape(matrix: Any, index: Any) -> None:
    """Raise ColumnError if an array is not a matrix, or an index does not fit it."""
    if not hasattr(matrix, "shape"):
        raise ColumnError(f"a matrix is needed, not a {type(matrix).__name__}; pass numpy.asarray(matrix)")
    shape = tuple(matrix.shape)
    if matrix.ndim != 2:
        raise ColumnError(
            f"a matrix is needed, not an array of shape {shape}; reshape it to (rows, dimensions)"
        )
    if index is not None and len(index) != len(matrix):
        raise ColumnError(
            f"a matrix of shape {shape} does not fit an index of {len(index)} labels; pass one label per row"
        )


def _ops_for(matrix: Any, index: Any, library: str | None) -> FrameOps:
    """Return the functions for the library that `from_matrix` makes a column of."""
    if library is None and index is not None:
        return frame_ops(index)
    on_gpu = getattr(getattr(matrix, "device", None), "type", "cpu") == "cuda"
    library = library or ("cudf" if on_gpu else "pandas")
    if library not in _MODULES:
        raise ConfigError(f"library={library!r} is unknown; choose one of {', '.join(_MODULES)}")
    return cast("FrameOps", importlib.import_module(f".{_MODULES[library]}", __name__))
