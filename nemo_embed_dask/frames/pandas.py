"""Read texts from pandas columns, and make Arrow-backed list columns that share the matrix's memory."""

from __future__ import annotations

import re
from decimal import Decimal
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype, register_extension_dtype

from ..errors import ColumnError
from ..ragged import Bools, Ints, Ragged
from . import arrow

on_device = False

_LIST = re.compile(
    r"(list<(?:item|element): )?list<(?:item|element): (float|halffloat|int8|uint8|int32)( not null)?>"
    r"(?(1)( not null)?>)\[pyarrow\]"
)
_VALUE_TYPES = {"float": pa.float32(), "int32": pa.int32()} | {str(kind): kind for kind in arrow.NARROW_TYPES}


@register_extension_dtype
class _ArrowListName(ExtensionDtype):
    """A dtype that lets pandas read the names of our list dtypes.

    pandas writes the name ``list<item: float>[pyarrow]`` to Parquet files, and Dask uses it in p2p shuffles,
    but pandas cannot read it back (pandas#53011, pandas#57411). Registering this class is the package's only
    effect on import.
    """

    name = "nemo_embed_dask_list"
    type = list

    @classmethod
    def construct_array_type(cls) -> Any:
        return pd.arrays.ArrowExtensionArray

    @classmethod
    def construct_from_string(cls, string: str) -> Any:
        found = _LIST.fullmatch(string) if isinstance(string, str) else None
        if found is None:
            raise TypeError(f"Cannot construct a list dtype from {string!r}")
        dtype = pa.list_(_VALUE_TYPES[found[2]])
        return pd.ArrowDtype(pa.list_(dtype) if found[1] else dtype)


def is_text(dtype: Any) -> bool:
    """Return whether a column of this dtype may hold strings; object columns are checked when read."""
    if isinstance(dtype, pd.ArrowDtype):
        return arrow.is_text(dtype.pyarrow_dtype)
    return isinstance(dtype, pd.StringDtype) or dtype == np.dtype(object)


def read_texts(series: pd.Series[Any]) -> list[str | None]:
    """Return the values of a string column, with None for nulls.

    Other values of an object column are returned as they are; the tokenizer reports them.
    """
    if series.dtype != object and getattr(series.dtype, "storage", None) != "python":
        return arrow.read_texts(pa.array(series, from_pandas=True))
    values = list(series)
    if set(map(type, values)) <= {str, NoneType}:
        return values
    return [None if _is_null(value) else value for value in values]


def _is_null(value: object) -> bool:
    """Return whether a value is a null of any kind. Values of other types, such as arrays, are not compared."""
    if isinstance(value, Decimal):
        return value.is_nan()  # comparing a signalling NaN raises
    if isinstance(value, float | np.floating | np.datetime64 | np.timedelta64):
        return bool(value != value)  # noqa: PLR0124
    return value is None or value is pd.NA or value is pd.NaT


def _make_series(array: pa.Array, index: Any, name: Any) -> pd.Series[Any]:
    """Make a pandas series that shares the memory of an Arrow array."""
    return pd.Series(pd.arrays.ArrowExtensionArray(array), index=index, name=name)


def vector_column(matrix: npt.NDArray[Any], valid: Bools | None, *, index: Any, name: Any) -> pd.Series[Any]:
    """Make an Arrow list column that shares the memory of a ``[n, d]`` matrix, with nulls where not valid."""
    return _make_series(arrow.vector_column(matrix, valid), index, name)


def list_column(
    values: npt.NDArray[Any], offsets: Ints, valid: Bools, *, index: Any, name: Any
) -> pd.Series[Any]:
    """Make an Arrow column with one list of numbers, or of vectors, per row; it shares the values' memory."""
    return _make_series(arrow.list_column(values, offsets, valid), index, name)


def token_column(ids: Ragged, valid: Bools, *, index: Any, name: Any) -> pd.Series[Any]:
    """Make a list<int32>[pyarrow] column of token ids, with nulls where not valid."""
    return _make_series(arrow.token_column(ids, valid), index, name)


def _to_arrow(series: pd.Series[Any], dtype: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Return a series as an Arrow array: as it is if it is Arrow-backed, else converted to this type."""
    if isinstance(series.dtype, pd.ArrowDtype):
        return pa.chunked_array(pa.array(series.array))
    try:
        return pa.array(series.array, dtype, from_pandas=True)
    except pa.ArrowException as error:
        raise ColumnError(f"column {series.name!r} cannot be read as {dtype}: {error}") from error


def read_vectors(series: pd.Series[Any]) -> npt.NDArray[Any]:
    """Return equally long lists as a ``[n, d]`` matrix: float32, or one of `arrow.NARROW_TYPES`."""
    return arrow.read_vectors(_to_arrow(series, arrow.VECTOR_TYPE))


def read_tokens(series: pd.Series[Any]) -> tuple[Ragged, Bools, dict[int, str]]:
    """Return integer lists as ragged int32 ids, which rows have ids, and why some rows have none.

    The lists are Arrow-backed, or any Python objects.
    """
    if series.dtype != object:
        return arrow.read_tokens(_to_arrow(series, arrow.TOKENS_TYPE))
    values = list(series)
    array = _number_lists(values)
    return _read_tokens_one_by_one(values) if array is None else arrow.read_tokens(array)


def _number_lists(values: list[Any]) -> pa.Array | None:
    """Return values as an Arrow array of lists of numbers, or None if one of them is something else."""
    try:
        array = pa.array(values, from_pandas=True)
    except Exception:  # noqa: BLE001 - values of unknown types may raise anything
        return None
    return array if pa.types.is_null(array.type) or arrow.holds_numbers(array.type) else None


def _read_tokens_one_by_one(values: list[Any]) -> tuple[Ragged, Bools, dict[int, str]]:
    """Read values of which some are not lists of numbers; these rows fail."""
    lists = [_number_lists([value]) for value in values]
    wrong = {
        i: f"not a list of whole numbers but a value of type {type(values[i]).__name__}"
        for i, array in enumerate(lists)
        if array is None
    }
    # Doubles hold all token ids; for larger numbers it does not matter which one they are rounded to.
    common = pa.list_(pa.float64())
    rows = [pa.nulls(1, common) if array is None else array.cast(common, safe=False) for array in lists]
    ids, valid, failures = arrow.read_tokens(pa.concat_arrays(rows))
    return ids, valid, dict(sorted((failures | wrong).items()))
