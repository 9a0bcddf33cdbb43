"""The seam to dataframe libraries: text out, vectors in. One module per library, imported when needed.

A new library is ``frames/<library>.py`` with the functions of `FrameOps`, registered below by name.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
from dask.utils import Dispatch

from ..errors import ColumnError
from ..ragged import Ragged

Bools = npt.NDArray[np.bool_]
_MODULES = {"pandas": "pandas", "cudf": "cudf", "pyarrow": "arrow"}
# int32 offsets of Arrow's and cuDF's list columns.
MAX_LIST_VALUES = 2**31 - 1


class FrameOps(Protocol):
    """What a dataframe library must offer; ``on_device``: whether it takes matrices in GPU memory."""

    on_device: bool

    def is_text(self, dtype: Any) -> bool:
        """Whether a column of this dtype holds strings."""

    def read_texts(self, series: Any) -> list[str | None]:
        """A string column's values, None where null."""

    def vector_column(self, matrix: Any, valid: Bools | None, *, index: Any, name: Any) -> Any:
        """A ``[n, d]`` matrix as a list column over the same memory, null where not valid.

        float32, float16, int8 or uint8; a library that lacks one raises, naming those that have it.
        """

    def read_vectors(self, series: Any) -> Any:
        """The inverse of `vectors`, for a column without nulls."""

    def token_column(self, ids: Ragged, valid: Bools, *, index: Any, name: Any) -> Any:
        """Ragged int32 ids as a list column, null where not valid."""

    def read_tokens(self, series: Any) -> tuple[Ragged, Bools]:
        """The inverse of `tokens`."""


_dispatch = Dispatch("frame_ops")


def _pandas() -> None:
    import pandas as pd

    from . import pandas as ops

    for kind in (pd.Series, pd.DataFrame, pd.Index):
        _dispatch.register(kind, lambda _: ops)


def _arrow() -> None:
    import pyarrow as pa

    from . import arrow

    for kind in (pa.Array, pa.ChunkedArray):
        _dispatch.register(kind, lambda _: arrow)


def _cudf() -> None:
    library = importlib.import_module("cudf")
    ops = importlib.import_module(".cudf", __name__)
    for kind in (library.Series, library.DataFrame, library.Index):
        _dispatch.register(kind, lambda _: ops)


_dispatch.register_lazy("pandas", _pandas)
_dispatch.register_lazy("cudf", _cudf)
_dispatch.register_lazy("pyarrow", _arrow)


def frame_ops(data: Any) -> FrameOps:
    """The operations for a dataframe or column of any known library."""
    try:
        return cast("FrameOps", _dispatch(data))
    except TypeError:
        raise ColumnError(
            f"{type(data).__module__}.{type(data).__name__} is no dataframe that can be embedded; "
            "pass a Dask, pandas or cuDF one"
        ) from None


def gpu_text_ops(data: Any) -> Any:
    """The tokenizing on a GPU that the library of this dataframe or column has: `tokens.cudf.GpuTextOps`.

    Raises
    ------
    ColumnError
        It is not cuDF's.
    """
    if not frame_ops(data).on_device:
        raise ColumnError(
            f"tokenizer='cudf' needs a cuDF frame, and this is {type(data).__module__.partition('.')[0]}'s; "
            "convert it first (ddf.to_backend('cudf')), or pass tokenizer='huggingface'"
        )
    return importlib.import_module(".cudf_wordpiece", __name__)


def check_list_size(rows: int, width: int) -> None:
    """Raise where a list column's int32 offsets cannot hold a matrix of this shape."""
    if rows * width > MAX_LIST_VALUES:
        raise ColumnError(
            f"a partition of {rows} rows x {width} dimensions exceeds the 2^31 - 1 values of a list column; "
            f"repartition to at most {MAX_LIST_VALUES // width} rows, "
            "e.g. ddf.repartition(partition_size='256MB')"
        )


def to_matrix(series: Any) -> Any:
    """A column of equally long float lists as a matrix, without a copy where memory allows.

    Parameters
    ----------
    series : pandas or cuDF Series, or pyarrow Array or ChunkedArray
        No nulls; drop them first (``df.dropna(subset=["embeddings"])``).

    Returns
    -------
    ndarray of float32, shape (n, d); for cuDF a torch Tensor on the GPU

    Raises
    ------
    ColumnError
        The column has nulls or lists of unequal length.
    """
    return frame_ops(series).read_vectors(series)


def from_matrix(
    matrix: Any,
    *,
    index: Any = None,
    name: Any = None,
    library: Literal["pandas", "cudf", "pyarrow"] | None = None,
) -> Any:
    """A float32 matrix as a list column over the same memory.

    Parameters
    ----------
    matrix : ndarray or Tensor, shape (n, d)
        Other dtypes are converted, and that is a copy.
    index : pandas or cuDF Index, optional
        Its length must be n; a range if not given.
    name : optional
        The column's name.
    library : str, optional
        Whose column. Default: the index's library; without one, cuDF for a tensor in GPU memory, else pandas.

    Returns
    -------
    pandas Series of list<float>[pyarrow], cuDF Series of list<float32>, or pyarrow ListArray of float

    Raises
    ------
    ColumnError
        The index does not fit, or n x d exceeds what a list column can hold (2^31 - 1 values).
    """
    if matrix.ndim != 2 or (index is not None and len(index) != len(matrix)):
        raise ColumnError(f"a matrix of shape {tuple(matrix.shape)} does not fit an index of {index!r:.80}")
    ops = _ops_for(matrix, index, library)
    if not ops.on_device:
        matrix = np.ascontiguousarray(matrix.cpu() if hasattr(matrix, "cpu") else matrix, dtype=np.float32)
    return ops.vector_column(matrix, None, index=index, name=name)


def _ops_for(matrix: Any, index: Any, library: str | None) -> FrameOps:
    if library is None and index is not None:
        return frame_ops(index)
    on_gpu = getattr(getattr(matrix, "device", None), "type", "cpu") == "cuda"
    module = _MODULES[library or ("cudf" if on_gpu else "pandas")]
    return cast("FrameOps", importlib.import_module(f".{module}", __name__))
