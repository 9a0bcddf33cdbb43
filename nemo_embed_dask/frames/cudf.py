"""Read texts from cuDF columns, and make list columns that share the memory of a torch tensor on the GPU.

Texts are copied to the host once. Vectors are not copied in either direction. cuDF has no public function that
makes a list column of a matrix, so columns are assembled from pylibcudf parts. A list column has two children:
the offsets and the values of all lists.

Who owns the memory: every column made here keeps a reference to the tensor that it shares memory with
(`_share_tensor`), and every tensor made here keeps a reference to its column (`_ColumnMemory`). Memory is
therefore freed when neither the column nor the tensor is in use any more.

torch and cuDF use different CUDA streams and do not wait for each other. `_list_series` therefore waits for
torch before cuDF gets the memory.
"""

from __future__ import annotations

from typing import Any

import cudf
import numpy as np
import numpy.typing as npt
import pandas as pd
import pylibcudf as plc
import torch
from torch import Tensor

from ..device import default_device, to_device, wait_for_stream
from ..device_ragged import DeviceRagged
from ..errors import ColumnError
from ..ragged import Bools, Ints, Ragged
from . import arrow, check_list_size

on_device = True

_TYPE_IDS = {
    torch.float32: plc.TypeId.FLOAT32,
    torch.float64: plc.TypeId.FLOAT64,
    torch.int32: plc.TypeId.INT32,
    torch.int8: plc.TypeId.INT8,
    torch.uint8: plc.TypeId.UINT8,
}
# The names of the types in __cuda_array_interface__.
_TYPE_STRINGS = {
    torch.float32: "<f4",
    torch.float64: "<f8",
    torch.int32: "<i4",
    torch.int8: "|i1",
    torch.uint8: "|u1",
}
# libcudf reads null masks in blocks of this many bytes.
_MASK_BLOCK = 64


def is_text(dtype: Any) -> bool:
    """Return whether a column of this dtype holds strings."""
    if isinstance(dtype, pd.ArrowDtype):
        return arrow.is_text(dtype.pyarrow_dtype)
    return isinstance(dtype, pd.StringDtype)


def read_texts(series: Any) -> list[str | None]:
    """Return the values of a string column, with None for nulls."""
    if not is_text(series.dtype):  # dask_cudf.read_parquet gives every list column a string's meta
        raise ColumnError(f"column {series.name!r} holds {series.dtype}, and strings are needed")
    return arrow.read_texts(series.to_arrow())


def vector_column(matrix: Any, valid: Bools | None, *, index: Any, name: Any) -> Any:
    """Make a list column that shares the memory of a ``[n, d]`` matrix of float32, int8 or uint8.

    If there are nulls, the valid rows are copied once, because libcudf allows no values under a null list.
    """
    rows, width = matrix.shape
    check_list_size(rows, width)
    present = np.ones(rows, np.bool_) if valid is None else valid
    values = torch.as_tensor(matrix, device=default_device()).detach()
    if values.dtype == torch.float16:
        raise ColumnError(
            f"column {name!r}: cuDF has no float16; choose embedding_dtype float32, int8, uint8, binary or "
            "ubinary, or embed a pandas-backed frame, which holds float16"
        )
    values = values if values.dtype in (torch.int8, torch.uint8) else values.float()
    if not present.all():
        values = values.index_select(0, to_device(np.flatnonzero(present), values.device))
    return _list_series(values.reshape(-1), np.where(present, width, 0), present, index, name)


def list_column(values: npt.NDArray[Any], offsets: Ints, valid: Bools, *, index: Any, name: Any) -> Any:
    """Make a column with one list of numbers, or of vectors, per row; copies the values to the GPU."""
    if values.dtype == np.float16:
        raise ColumnError(f"column {name!r}: cuDF has no float16; choose embedding_dtype float32")
    series = cudf.Series.from_arrow(arrow.list_column(values, offsets, valid))
    if index is not None:
        series.index = index
    series.name = name
    return series


def token_column(ids: Ragged, valid: Bools, *, index: Any, name: Any) -> Any:
    """Make a list<int32> column of token ids, with nulls where not valid; ids on the GPU are not copied."""
    check_list_size(1, len(ids.values))
    rows = ids if isinstance(ids, DeviceRagged) else DeviceRagged.from_host(ids, default_device())
    return _list_series(rows.values, ids.lengths, valid, index, name)


def read_vectors(series: Any) -> Tensor:
    """Return equally long float lists as a ``[n, d]`` float32 tensor.

    The tensor shares the memory of the column, unless the column holds doubles, which are converted.
    """
    column, _ = series.to_pylibcudf()
    if column.type().id() != plc.TypeId.LIST:
        raise ColumnError(f"column {series.name!r} holds {series.dtype}, and lists of floats are needed")
    offsets, values = column.children()
    dtype = _float_dtype(values)
    if dtype is None:
        raise ColumnError(f"column {series.name!r} holds {series.dtype}, and lists of floats are needed")
    nulls = column.null_count() or values.null_count()
    if nulls:
        raise ColumnError(
            f"column {series.name!r} has {nulls} nulls; drop them first: df.dropna(subset=[column])"
        )
    # A slice of a column shares the children of the whole column; offset() is its first row.
    rows = column.size()
    ends = _share_column(offsets, torch.int32)[column.offset() : column.offset() + rows + 1]
    start, width = _start_and_width(ends, series.name) if rows else (0, 0)
    return _share_column(values, dtype)[start : start + rows * width].view(rows, width).float()


def _float_dtype(column: plc.Column) -> torch.dtype | None:
    """Return the torch dtype of a column of floats, or None for a column of another type."""
    for dtype, type_id in _TYPE_IDS.items():
        if dtype.is_floating_point and type_id == column.type().id():
            return dtype
    return None


def _start_and_width(ends: Tensor, name: Any) -> tuple[int, int]:
    """Return the start of the first list and the length of all lists, or raise if lengths differ."""
    widths = ends.diff()
    shortest, longest = widths.aminmax()
    start, low, high = torch.stack([ends[0], shortest, longest]).tolist()  # one transfer to the host
    if low != high:
        raise ColumnError(f"column {name!r}: vectors differ in length ({low} to {high})")
    return start, low


def read_tokens(series: Any) -> tuple[Ragged, Bools, dict[int, str]]:
    """Return integer lists as ragged int32 ids on the host, which rows have ids, and why some have none."""
    return arrow.read_tokens(series.to_arrow())


def _list_series(values: Tensor, lengths: Ints, valid: Bools, index: Any, name: Any) -> Any:
    """Make a list column of these lengths over ``values``, with nulls where not valid."""
    if index is not None and len(index) != len(lengths):  # from_pylibcudf does not compare them
        raise ColumnError(f"{len(lengths)} rows do not fit an index of {len(index)} labels")
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    nulls = int(len(valid) - valid.sum())
    mask = _share_tensor(to_device(_null_mask(valid), values.device)) if nulls else None
    children = [_column(to_device(offsets, values.device)), _column(values)]
    wait_for_stream(values.device)
    column = plc.Column(plc.DataType(plc.TypeId.LIST), len(lengths), None, mask, nulls, 0, children)
    metadata = {"name": name} if index is None else {"name": name, "index": index}
    return cudf.Series.from_pylibcudf(column, metadata)


def _null_mask(valid: Bools) -> npt.NDArray[np.uint8]:
    """Return one bit per row, 1 if valid, padded with zeros to whole blocks of `_MASK_BLOCK` bytes."""
    packed = np.packbits(valid, bitorder="little")
    return np.pad(packed, (0, -len(packed) % _MASK_BLOCK))


def _column(values: Tensor) -> plc.Column:
    """Make a column without nulls that shares the memory of a one-dimensional tensor."""
    return plc.Column(plc.DataType(_TYPE_IDS[values.dtype]), len(values), _share_tensor(values), None, 0, 0, [])


def _share_tensor(tensor: Tensor) -> plc.gpumemoryview:
    """Return a tensor's memory in the form that pylibcudf takes; the result keeps the tensor alive."""
    return plc.gpumemoryview(tensor)


class _ColumnMemory:
    """A column's memory in the form that torch takes without a copy.

    torch keeps a reference to this object for as long as the tensor exists, and this object to the column.
    """

    def __init__(self, column: plc.Column, dtype: torch.dtype) -> None:
        self.column = column
        self.__cuda_array_interface__ = {
            "shape": (column.size(),),
            "typestr": _TYPE_STRINGS[dtype],
            "version": 3,
            "strides": None,
            "data": (column.data().ptr + column.offset() * dtype.itemsize, False),
        }


def _share_column(column: plc.Column, dtype: torch.dtype) -> Tensor:
    """Return a tensor that shares the memory of a column and keeps the column alive."""
    if not column.size():
        return torch.empty(0, dtype=dtype, device=default_device())
    return torch.as_tensor(_ColumnMemory(column, dtype), device=default_device())
