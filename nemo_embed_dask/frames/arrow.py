"""Read texts and vectors from Arrow arrays, and make arrays of vectors that share the matrix's memory.

The pandas module is built on these functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import ColumnError
from ..ragged import Bools, Ints, Ragged
from . import check_list_size

on_device = False
_MAX_ID = 2**31 - 1
VECTOR_TYPE, TOKENS_TYPE = pa.list_(pa.float32()), pa.list_(pa.int32())
# The number types of vectors besides float32. Columns of any other type are read as float32.
NARROW_TYPES = (pa.float16(), pa.int8(), pa.uint8())


def is_text(dtype: Any) -> bool:
    """Return whether an Arrow type is a string type."""
    return any(test(dtype) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def read_texts(array: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """Return the values of a string array, with None for nulls; invalid UTF-8 gives lone surrogates."""
    try:
        values: list[str | None] = array.to_pylist()
    except UnicodeDecodeError:  # Parquet readers do not check UTF-8; the tokenizer reports such a row
        raw = array.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
        values = [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]
    return values


def _make_lists(
    flat: npt.NDArray[Any] | pa.Array, offsets: npt.NDArray[np.int32], valid: Bools | None, dtype: pa.DataType
) -> pa.ListArray:
    """Make a list array over ``flat``, with nulls where not valid."""
    mask = None if valid is None or valid.all() else pa.array(~valid)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=dtype, mask=mask)


def vector_column(
    matrix: npt.NDArray[Any], valid: Bools | None, *, index: Any = None, name: Any = None
) -> pa.ListArray:
    """Make a list array that shares the memory of a ``[n, d]`` matrix, with nulls where not valid.

    ``index`` and ``name`` are parameters of `FrameOps`; an array has neither.
    """
    if index is not None or name is not None:
        raise ColumnError("an Arrow array has no index and no name; leave them out, or pass library='pandas'")
    rows, width = matrix.shape
    check_list_size(rows, width)
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return _make_lists(matrix.reshape(-1), offsets, valid, pa.list_(pa.from_numpy_dtype(matrix.dtype)))


def list_column(
    values: npt.NDArray[Any], offsets: Ints, valid: Bools, *, index: Any = None, name: Any = None
) -> pa.ListArray:
    """Make an array with one list of numbers, or of vectors, per row; it shares the memory of ``values``."""
    if index is not None or name is not None:
        raise ColumnError("an Arrow array has no index and no name; leave them out, or pass library='pandas'")
    inner: npt.NDArray[Any] | pa.Array = values
    if values.ndim == 2:
        inner = vector_column(values, None)
    check_list_size(len(values), 1)
    dtype = pa.list_(pa.array(inner).type)
    return _make_lists(inner, offsets.astype(np.int32), valid, dtype)


def token_column(ids: Ragged, valid: Bools) -> pa.ListArray:
    """Make a list<int32> array of token ids, with nulls where not valid."""
    check_list_size(1, len(ids.values))
    return _make_lists(
        ids.values.astype(np.int32, copy=False), ids.offsets.astype(np.int32), valid, TOKENS_TYPE
    )


def to_single_array(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the array as one piece. ``combine_chunks`` alone would copy even a single chunk."""
    if isinstance(array, pa.Array):
        return array
    return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()


def holds_numbers(dtype: pa.DataType) -> bool:
    """Return whether a type is a list of numbers, or a list that holds only nulls."""
    of_lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    of_numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(test(dtype) for test in of_lists) and any(test(dtype.value_type) for test in of_numbers)


def read_vectors(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return equally long lists as a ``[n, d]`` matrix: float32, or one of `NARROW_TYPES`."""
    whole = to_single_array(array)
    if whole.null_count:
        first = np.flatnonzero(whole.is_null().to_numpy(zero_copy_only=False))[0]
        raise ColumnError(
            f"{whole.null_count} rows have no vector (the first at position {first}); drop them first: "
            "df.dropna(subset=[column])"
        )
    if not holds_numbers(whole.type):
        raise ColumnError(
            f"a column of type {whole.type} has no vectors; pass lists of numbers of equal length"
        )
    values = whole.flatten()
    if values.null_count:
        raise ColumnError(f"{values.null_count} values within the vectors are null; drop these rows first")
    flat: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if whole.type.value_type not in NARROW_TYPES:
        flat = flat.astype(np.float32, copy=False)
    if isinstance(whole.type, pa.FixedSizeListType):
        return flat.reshape(len(whole), whole.type.list_size)
    widths = np.diff(whole.offsets.to_numpy())
    if len(widths) and (widths != widths[0]).any():
        raise ColumnError(f"vectors differ in length ({widths.min()} to {widths.max()})")
    return flat.reshape(len(whole), int(widths[0]) if len(widths) else 0)


def read_tokens(array: pa.Array | pa.ChunkedArray) -> tuple[Ragged, Bools, dict[int, str]]:
    """Return rows of integer lists as ragged int32 ids, which rows have ids, and why some rows have none.

    A row with a value that cannot be a token id is empty; its reason is in the dict, by its position.
    """
    whole = to_single_array(array)
    if pa.types.is_null(whole.type):
        whole = whole.cast(TOKENS_TYPE)
    if not holds_numbers(whole.type):
        raise ColumnError(f"a column of type {whole.type} has no token ids; pass lists of whole numbers")
    if not isinstance(whole, pa.ListArray):
        whole = whole.cast(pa.list_(whole.type.value_type))
    offsets = whole.offsets.to_numpy().astype(np.int64)
    values = whole.values[offsets[0] : offsets[-1]]
    if not pa.types.is_integer(values.type):
        values = values.cast(pa.float64())
    ids = Ragged(values.to_numpy(zero_copy_only=False), offsets - offsets[0])
    valid = whole.is_valid().to_numpy(zero_copy_only=False)
    failures = _rows_without_ids(ids, valid)
    if failures:
        failed = np.isin(np.arange(len(ids)), list(failures))
        ids, valid = ids.without(failed), valid & ~failed
    return Ragged(ids.values.astype(np.int32, copy=False), ids.offsets), valid, failures


def _rows_without_ids(ids: Ragged, valid: Bools) -> dict[int, str]:
    """Return the rows with a value that cannot be a token id, and the first such value of each."""
    values = ids.values
    are_ids = (values >= 0) & (values <= _MAX_ID)
    if values.dtype.kind == "f":  # also integers with nulls, which are NaN here
        are_ids &= values == np.floor(values)
    if are_ids.all():
        return {}
    wrong = np.flatnonzero(~are_ids)
    rows, first = np.unique(np.searchsorted(ids.offsets, wrong, side="right") - 1, return_index=True)
    return {
        int(row): f"its token ids include {value}, which is not a whole number from 0 to {_MAX_ID}"
        for row, value in zip(rows, values[wrong[first]].tolist(), strict=True)
        if valid[row]
    }
