"""Arrow arrays converted to wider types, each value unchanged or an error. Knows no column and no file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types


def cast_array(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Convert an array to a type that can hold its values (see `widening.holds`).

    Arrow's own cast returns invalid arrays for lists of nulls, and for slices of structs with a null field. So
    slices are copied first, and nested types that contain the null type are converted field by field.

    Raises
    ------
    pa.ArrowInvalid
        The type cannot hold a value.
    """
    if array.type == dtype:
        return array
    if types.is_null(array.type):
        return pa.nulls(len(array), dtype)
    if array.offset:
        array = pa.concat_arrays([array])
    rebuild = _REBUILD.get(type(dtype)) if _has_nulls(dtype) else None
    return rebuild(array, dtype) if rebuild else array.cast(dtype)


def _has_nulls(dtype: pa.DataType) -> bool:
    return types.is_null(dtype) or any(_has_nulls(dtype.field(i).type) for i in range(dtype.num_fields))


def _struct(array: Any, dtype: Any) -> pa.Array:
    """Convert the fields by name. A field that the array lacks becomes null."""
    place = {field.name: i for i, field in enumerate(array.type)}
    fields = [
        cast_array(array.field(place[field.name]), field.type)
        if field.name in place
        else pa.nulls(len(array), field.type)
        for field in dtype
    ]
    return pa.StructArray.from_arrays(fields, fields=[*dtype], mask=array.is_null())


def _list(array: Any, dtype: Any) -> pa.Array:
    """Convert the items of a list of any kind, including items that belong to no list."""
    kind = pa.LargeListArray if types.is_large_list(dtype) else pa.ListArray
    items = cast_array(array.values, dtype.value_type)
    return kind.from_arrays(_offsets(array), items, type=dtype, mask=array.is_null())


def _fixed_list(array: Any, dtype: Any) -> pa.Array:
    items = cast_array(array.values, dtype.value_type)
    return pa.FixedSizeListArray.from_arrays(items, type=dtype, mask=array.is_null())


def _map(array: Any, dtype: Any) -> pa.Array:
    keys, items = cast_array(array.keys, dtype.key_type), cast_array(array.items, dtype.item_type)
    return pa.MapArray.from_arrays(array.offsets, keys, items, type=dtype, mask=array.is_null())


def _offsets(array: Any) -> pa.Array:
    if types.is_fixed_size_list(array.type):
        return pa.array(np.arange(len(array) + 1) * array.type.list_size)
    return array.offsets


_REBUILD = {
    pa.StructType: _struct,
    pa.ListType: _list,
    pa.LargeListType: _list,
    pa.FixedSizeListType: _fixed_list,
    pa.MapType: _map,
}
