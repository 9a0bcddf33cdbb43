"""cuDF: text out in one copy to the host, vectors in as list columns over a tensor's own GPU memory.

Columns are put together by hand from pylibcudf parts, for cuDF has no public way to make a list column
of a matrix. Nothing here starts a kernel of cuDF's. What a torch stream has queued is waited for before
cuDF sees its memory: cuDF reads on a stream of its own, and takes no note of torch's.
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
from ..errors import ColumnError
from ..ragged import Ints, Ragged
from . import Bools, arrow, check_list_size

on_device = True

_TYPES = {torch.float32: plc.TypeId.FLOAT32, torch.float64: plc.TypeId.FLOAT64, torch.int32: plc.TypeId.INT32,
          torch.int8: plc.TypeId.INT8, torch.uint8: plc.TypeId.UINT8}  # fmt: skip
_TYPESTR = {
    torch.float32: "<f4",
    torch.float64: "<f8",
    torch.int32: "<i4",
    torch.int8: "|i1",
    torch.uint8: "|u1",
}
# libcudf reads null masks in blocks of this many bytes.
_MASK_BLOCK = 64


def is_text(dtype: Any) -> bool:
    """Whether a column of this dtype holds strings."""
    if isinstance(dtype, pd.ArrowDtype):
        return arrow.is_text(dtype.pyarrow_dtype)
    return isinstance(dtype, pd.StringDtype)


def read_texts(series: Any) -> list[str | None]:
    """A string column's values, None where null."""
    if not is_text(series.dtype):  # dask_cudf.read_parquet calls every list column a string one
        raise ColumnError(f"column {series.name!r} holds {series.dtype}, and strings are needed")
    return arrow.read_texts(series.to_arrow())


def vector_column(matrix: Any, valid: Bools | None, *, index: Any, name: Any) -> Any:
    """A ``[n, d]`` matrix of float32, int8 or uint8 as a list column over the same memory.

    Rows that are null are left out of the values, which copies the matrix once: libcudf wants no values
    under a null list. Without nulls nothing is copied.
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
    return _series(values.reshape(-1), np.where(present, width, 0), present, index, name)


def token_column(ids: Ragged, valid: Bools, *, index: Any, name: Any) -> Any:
    """Ragged ids as list<int32>, null where not valid."""
    check_list_size(1, len(ids.values))
    flat = to_device(ids.values.astype(np.int32, copy=False), default_device())
    return _series(flat, ids.lengths, valid, index, name)


def read_vectors(series: Any) -> Tensor:
    """Equally long float lists as a ``[n, d]`` float32 view of the column's memory; doubles are converted."""
    column, _ = series.to_pylibcudf()
    if column.type().id() != plc.TypeId.LIST:
        raise ColumnError(f"column {series.name!r} holds {series.dtype}, and lists of floats are needed")
    offsets, leaves = column.children()
    kind = next((k for k, v in _TYPES.items() if v == leaves.type().id() and k.is_floating_point), None)
    if kind is None:
        raise ColumnError(f"column {series.name!r} holds {series.dtype}, and lists of floats are needed")
    nulls = column.null_count() or leaves.null_count()
    if nulls:
        raise ColumnError(
            f"column {series.name!r} has {nulls} nulls; drop them first: df.dropna(subset=[column])"
        )
    rows = column.size()
    ends = _values(offsets, torch.int32)[column.offset() : column.offset() + rows + 1]
    start, width = _first_and_width(ends, series.name) if rows else (0, 0)
    return _values(leaves, kind)[start : start + rows * width].view(rows, width).float()


def _first_and_width(ends: Tensor, name: Any) -> tuple[int, int]:
    """Where the first list starts, and how long every list is."""
    widths = ends.diff()
    shortest, longest = widths.aminmax()
    first, low, high = torch.stack([ends[0], shortest, longest]).tolist()
    if low != high:
        raise ColumnError(f"column {name!r}: vectors differ in length ({low} to {high})")
    return first, low


def read_tokens(series: Any) -> tuple[Ragged, Bools]:
    """List<int> rows as ragged int32 ids on the host, and which rows are not null."""
    return arrow.read_tokens(series.to_arrow())


def _series(flat: Tensor, lengths: Ints, valid: Bools, index: Any, name: Any) -> Any:
    if index is not None and len(index) != len(lengths):  # from_pylibcudf does not compare them
        raise ColumnError(f"{len(lengths)} rows do not fit an index of {len(index)} labels")
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    nulls = int(len(valid) - valid.sum())
    mask = _span(to_device(_bits(valid), flat.device)) if nulls else None
    children = [_column(to_device(offsets, flat.device)), _column(flat)]
    wait_for_stream(flat.device)
    column = plc.Column(plc.DataType(plc.TypeId.LIST), len(lengths), None, mask, nulls, 0, children)
    return cudf.Series.from_pylibcudf(column, {"name": name} | ({} if index is None else {"index": index}))


def _bits(valid: Bools) -> npt.NDArray[np.uint8]:
    """Arrow's validity bits, padded with zeros as libcudf allocates them."""
    packed = np.packbits(valid, bitorder="little")
    return np.pad(packed, (0, -len(packed) % _MASK_BLOCK))


def _column(flat: Tensor) -> plc.Column:
    """One-dimensional values without nulls, over the tensor's own memory."""
    return plc.Column(plc.DataType(_TYPES[flat.dtype]), len(flat), _span(flat), None, 0, 0, [])


def _span(flat: Tensor) -> plc.gpumemoryview:
    """A tensor's memory as pylibcudf takes it; it keeps the tensor alive."""
    return plc.gpumemoryview(flat)


class _Memory:
    """A column's memory in the form that torch takes without a copy; it keeps the column alive."""

    def __init__(self, column: plc.Column, dtype: torch.dtype) -> None:
        self.column = column
        self.__cuda_array_interface__ = {
            "shape": (column.size(),), "typestr": _TYPESTR[dtype], "version": 3, "strides": None,
            "data": (column.data().ptr + column.offset() * dtype.itemsize, False),
        }  # fmt: skip


def _values(column: plc.Column, dtype: torch.dtype) -> Tensor:
    """A column's values as a tensor over the same memory."""
    if not column.size():
        return torch.empty(0, dtype=dtype, device=default_device())
    return torch.as_tensor(_Memory(column, dtype), device=default_device())
