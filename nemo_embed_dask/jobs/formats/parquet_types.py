"""Arrow types that Parquet can store and pyarrow can read back."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types

# The field that a struct without fields gets: Parquet cannot store such a struct.
EMPTY_STRUCT_FIELD = pa.field("_empty", pa.null())


def storable_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type in which Parquet stores the values of a type.

    - A struct without fields gets a field of nulls.
    - Dictionaries and views inside lists, maps and structs become plain types: pyarrow cannot write them.
    - The indices of a dictionary become int32, so that they suffice for the values of all row groups.
    - Every field may be null, as it is in rows of a file that lacks it.
    """
    if types.is_dictionary(dtype):
        return pa.dictionary(pa.int32(), dtype.value_type, dtype.ordered)
    if types.is_struct(dtype):
        return pa.struct([_storable_field(field) for field in dtype] or [EMPTY_STRUCT_FIELD])
    if types.is_map(dtype):
        key = _storable_field(dtype.key_field).with_nullable(False)
        return pa.map_(key, _storable_field(dtype.item_field))
    if types.is_fixed_size_list(dtype):
        return pa.list_(_storable_field(dtype.value_field), dtype.list_size)
    if types.is_large_list(dtype):
        return pa.large_list(_storable_field(dtype.value_field))
    return pa.list_(_storable_field(dtype.value_field)) if types.is_list(dtype) else dtype


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary or a view. Arrow supports these two in few functions."""
    if types.is_dictionary(dtype):
        return plain_type(dtype.value_type)
    if types.is_string_view(dtype):
        return pa.string()
    return pa.binary() if types.is_binary_view(dtype) else dtype


def _storable_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(storable_type(field.type))).with_nullable(True)
