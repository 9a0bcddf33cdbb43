"""Find the narrowest Arrow type that holds all values of two others unchanged.

If two types have no such type, such as a number and a string, or a timestamp with a time zone and one without,
`widen` raises an `IncompatibleTypesError`. In a few cases only the values decide: float64 holds an int64 up to
2^53, and nanoseconds hold only the years 1677 to 2262. There the wider type is returned, and Arrow's cast
refuses the values that it cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pyarrow import types

from .parquet_types import EMPTY_STRUCT_FIELD, plain_type, storable_type

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
# Decimal digits of the largest integer of each width in bits.
_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
_MAX_DECIMAL128_DIGITS, _MAX_DECIMAL256_DIGITS = 38, 76
_TIME_UNITS = ("s", "ms", "us", "ns")

# What a user can do about values that no type holds.
ADVICE = "convert them to one type, or leave the column out of columns"


class IncompatibleTypesError(Exception):
    """No type holds all values unchanged.

    The message continues a sentence that starts with the column, such as "mixes int64 and string".
    """


def are_compatible(a: pa.DataType, b: pa.DataType) -> bool:
    """Return whether some type holds the values of both."""
    try:
        widen(a, b)
    except IncompatibleTypesError:
        return False
    return True


def holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Return whether ``wide`` can hold all values of ``narrow``, as far as the types show."""
    try:
        return bool(widen(wide, narrow) == wide)
    except IncompatibleTypesError:
        return False


def always_holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Return whether ``wide`` holds all values of ``narrow``, whatever they are."""
    if not holds(wide, narrow):
        return False
    # The types fit already; wider integers and decimals hold every 64-bit integer.
    return wide == narrow or not _depends_on_values(narrow) or types.is_integer(wide) or types.is_decimal(wide)


def _depends_on_values(dtype: pa.DataType) -> bool:
    """Return whether a wider type may fail to hold some values: of 64-bit integers, timestamps, durations."""
    is_64_bit_integer = dtype in {pa.int64(), pa.uint64()}
    return bool(is_64_bit_integer or types.is_timestamp(dtype) or types.is_duration(dtype))


def widen(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return the narrowest type that holds the values of both; ``a`` itself if it does.

    Examples: int8 and uint8 give int16; int64 and double give double; timestamp[s] and timestamp[ns] give
    timestamp[ns]; struct<a: int8> and struct<b: string> give struct<a: int8, b: string>; null gives the other.

    Raises
    ------
    IncompatibleTypesError
        If there is no such type.
    """
    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if types.is_dictionary(a) or types.is_dictionary(b):
        return _widen_dictionaries(a, b)
    for is_kind, widen_kind in _KINDS:
        if is_kind(a) and is_kind(b):
            return widen_kind(a, b)
    raise IncompatibleTypesError(f"mixes {a} and {b}")


# ---- kinds of types ---------------------------------------------------------------------------------


def _is_text(t: pa.DataType) -> bool:
    return any(test(t) for test in (types.is_string, types.is_large_string, types.is_string_view))


def _is_bytes(t: pa.DataType) -> bool:
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(t) for test in tests)


def _is_list(t: pa.DataType) -> bool:
    return any(test(t) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _is_number(t: pa.DataType) -> bool:
    return any(test(t) for test in (types.is_integer, types.is_floating, types.is_decimal))


# ---- text and bytes ---------------------------------------------------------------------------------


def _widen_dictionaries(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Keep a dictionary if both are dictionaries of the same values; else use the type of the values."""
    both = types.is_dictionary(a) and types.is_dictionary(b)
    if both and a.value_type == b.value_type and a.ordered == b.ordered:
        return storable_type(a)
    first, second = (t.value_type if types.is_dictionary(t) else t for t in (a, b))
    return plain_type(widen(first, second))


def _widen_text(a: pa.DataType, _b: pa.DataType) -> pa.DataType:
    """Keep the first type. They differ in the width of offsets only, and pieces are small enough for any."""
    return a


def _widen_bytes(a: pa.DataType, _b: pa.DataType) -> pa.DataType:
    return pa.binary() if types.is_fixed_size_binary(a) else a


# ---- numbers ----------------------------------------------------------------------------------------


def _widen_numbers(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if types.is_decimal(a) or types.is_decimal(b):
        return _widen_decimals(a, b)
    if types.is_floating(a) or types.is_floating(b):
        return _FLOATS[max(_float_index(a), _float_index(b))]
    return _widen_integers(a, b)


def _widen_integers(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if types.is_signed_integer(a) == types.is_signed_integer(b):
        return a if a.bit_width >= b.bit_width else b
    signed, unsigned = (a, b) if types.is_signed_integer(a) else (b, a)
    for dtype in _SIGNED:
        if dtype.bit_width >= signed.bit_width and dtype.bit_width > unsigned.bit_width:
            return dtype
    return pa.decimal128(_INTEGER_DIGITS[64], 0)  # no signed integer holds uint64


def _float_index(t: pa.DataType) -> int:
    """Return the index in `_FLOATS` of a type for a number; Arrow's cast checks 64-bit integers in float64."""
    if types.is_floating(t):
        return _FLOATS.index(t)
    return 1 if t.bit_width <= 16 else 2


def _widen_decimals(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return a decimal with enough digits before and after the point for both."""
    (before, after), (other_before, other_after) = _count_digits(a), _count_digits(b)
    scale = max(after, other_after)
    precision = max(before, other_before) + scale
    if types.is_decimal(a) and (a.precision, a.scale) == (precision, scale):
        return a
    if precision > _MAX_DECIMAL256_DIGITS:
        raise IncompatibleTypesError(f"mixes {a} and {b}")
    make = pa.decimal128 if precision <= _MAX_DECIMAL128_DIGITS else pa.decimal256
    return make(precision, scale)


def _count_digits(t: pa.DataType) -> tuple[int, int]:
    """Return the number of digits before and after the decimal point."""
    if types.is_floating(t):
        raise IncompatibleTypesError(f"mixes {t} and decimals")
    return (t.precision - t.scale, t.scale) if types.is_decimal(t) else (_INTEGER_DIGITS[t.bit_width], 0)


# ---- times ------------------------------------------------------------------------------------------


def _finer_unit(a: pa.DataType, b: pa.DataType) -> str:
    return str(max(a.unit, b.unit, key=_TIME_UNITS.index))


def _widen_timestamps(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a.tz != b.tz:
        raise IncompatibleTypesError(f"mixes {a} and {b}")
    return pa.timestamp(_finer_unit(a, b), a.tz)


def _widen_times(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    unit = _finer_unit(a, b)
    return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)


# ---- nested types -----------------------------------------------------------------------------------


def _widen_lists(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Keep a fixed size if both have the same; else return a list of the kind of ``a``, without a size."""
    item = _widen_fields(a.value_field, b.value_field)
    both_fixed = types.is_fixed_size_list(a) and types.is_fixed_size_list(b)
    if both_fixed and a.list_size == b.list_size:
        return pa.list_(item, a.list_size)
    return pa.large_list(item) if types.is_large_list(a) else pa.list_(item)


def _widen_maps(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    return pa.map_(_widen_fields(a.key_field, b.key_field), _widen_fields(a.item_field, b.item_field))


def _widen_structs(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return all fields of both, those of ``a`` first. A field that one of them lacks may be null."""
    if any(len({field.name for field in t}) < t.num_fields for t in (a, b)):
        raise IncompatibleTypesError("has objects with two fields of one name")
    first, second = ({field.name: field for field in t if field != EMPTY_STRUCT_FIELD} for t in (a, b))
    fields = []
    for name in dict.fromkeys([*first, *second]):
        if name in first and name in second:
            fields.append(_widen_fields(first[name], second[name]))
        else:
            fields.append({**second, **first}[name].with_nullable(True))
    return pa.struct(fields or [*a])


def _widen_fields(a: pa.Field, b: pa.Field) -> pa.Field:
    return a.with_type(widen(a.type, b.type)).with_nullable(a.nullable or b.nullable)


_Kind = tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, pa.DataType], pa.DataType]]
# Whether a type is of a kind, and how two types of this kind are widened.
_KINDS: tuple[_Kind, ...] = (
    (_is_text, _widen_text),
    (_is_bytes, _widen_bytes),
    (_is_number, _widen_numbers),
    (types.is_timestamp, _widen_timestamps),
    (types.is_time, _widen_times),
    (types.is_duration, lambda a, b: pa.duration(_finer_unit(a, b))),
    (types.is_date, lambda a, b: pa.date64()),
    (_is_list, _widen_lists),
    (types.is_map, _widen_maps),
    (types.is_struct, _widen_structs),
)
