"""Convert Arrow arrays to wider types without changing a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types


def cast_array(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Convert an array to a type that can hold its values, see `widening.holds`.

    Arrow's own cast returns invalid arrays for lists of nulls and for slices of structs with a null field. So
    slices are copied first, and nested types that contain the null type are converted field by field.

    Raises
    ------
    pa.ArrowInvalid
        If the type cannot hold a value.
    """
    if array.type == dtype:
        return array
    if types.is_null(array.type):
        return pa.nulls(len(array), dtype)
    if array.offset:
        array = pa.concat_arrays([array])
    cast_nested = _CAST_NESTED.get(type(dtype)) if _contains_null_type(dtype) else None
    return cast_nested(array, dtype) if cast_nested else array.cast(dtype)


def _contains_null_type(dtype: pa.DataType) -> bool:
    return types.is_null(dtype) or any(
        _contains_null_type(dtype.field(i).type) for i in range(dtype.num_fields)
    )


def _cast_struct(array: Any, dtype: Any) -> pa.Array:
    """Convert the fields by name. A field that the array lacks becomes null."""
    positions = {field.name: i for i, field in enumerate(array.type)}
    fields = [
        cast_array(array.field(positions[field.name]), field.type)
        if field.name in positions
        else pa.nulls(len(array), field.type)
        for field in dtype
    ]
    return pa.StructArray.from_arrays(fields, fields=[*dtype], mask=array.is_null())


def _cast_list(array: Any, dtype: Any) -> pa.Array:
    """Convert all items of a list of any kind, also those outside of all lists, so that offsets stay valid."""
    items = cast_array(array.values, dtype.value_type)
    array_class = pa.LargeListArray if types.is_large_list(dtype) else pa.ListArray
    return array_class.from_arrays(_list_offsets(array), items, type=dtype, mask=array.is_null())


def _cast_fixed_size_list(array: Any, dtype: Any) -> pa.Array:
    items = cast_array(array.values, dtype.value_type)
    return pa.FixedSizeListArray.from_arrays(items, type=dtype, mask=array.is_null())


def _cast_map(array: Any, dtype: Any) -> pa.Array:
    keys, items = cast_array(array.keys, dtype.key_type), cast_array(array.items, dtype.item_type)
    return pa.MapArray.from_arrays(array.offsets, keys, items, type=dtype, mask=array.is_null())


def _list_offsets(array: Any) -> pa.Array:
    if types.is_fixed_size_list(array.type):
        return pa.array(np.arange(len(array) + 1) * array.type.list_size)
    return array.offsets


_CAST_NESTED = {
    pa.StructType: _cast_struct,
    pa.ListType: _cast_list,
    pa.LargeListType: _cast_list,
    pa.FixedSizeListType: _cast_fixed_size_list,
    pa.MapType: _cast_map,
}
