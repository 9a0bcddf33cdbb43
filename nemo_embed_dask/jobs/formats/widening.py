"""The narrowest Arrow type that holds all values of two others, unchanged. Knows types; reads no values.

Two types without one (a number and a string, a zoned and a naive timestamp) are an `IncompatibleTypesError`.
Values are then converted by checked casts of Arrow, which refuse what a type alone cannot tell:
an int64 beyond 2^53 among
doubles, or a timestamp that a finer unit cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pyarrow import types

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
# Decimal digits of the largest value of each integer width in bits.
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
_UNITS = ("s", "ms", "us", "ns")
# A stand-in for the fields of an object that never has any: Parquet cannot store a struct without fields.
EMPTY_STRUCT_FIELD = pa.field("_empty", pa.null())


# What a user can do about values that no type holds.
ADVICE = "convert them to one type, or leave the column out of columns"


class IncompatibleTypesError(Exception):
    """No type holds all values unchanged; the message says of a column what is wrong with it."""


def are_compatible(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether some type holds the values of both."""
    try:
        widen(a, b)
    except IncompatibleTypesError:
        return False
    return True


def depends_on_values(dtype: pa.DataType) -> bool:
    """Whether a wider type may not hold all of a type's values: 64-bit integers, times in coarse units."""
    return bool(dtype in {pa.int64(), pa.uint64()} or types.is_timestamp(dtype) or types.is_duration(dtype))


def always_holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether ``wide`` holds all values of ``narrow``, whatever they are."""
    if wide == narrow or not depends_on_values(narrow):
        return holds(wide, narrow)
    return holds(wide, narrow) and (types.is_integer(wide) or types.is_decimal(wide))


def holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether ``wide`` can hold all values of ``narrow``, as far as the types tell."""
    try:
        return bool(widen(wide, narrow) == wide)
    except IncompatibleTypesError:
        return False


def widen(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Find the narrowest type that holds the values of both; ``a`` itself if it does.

    Raises
    ------
    IncompatibleTypesError
        There is none.
    """
    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if types.is_dictionary(a) and types.is_dictionary(b) and _same_words(a, b):
        return storable_type(a)
    if types.is_dictionary(a) or types.is_dictionary(b):
        return _decoded(widen(*(t.value_type if types.is_dictionary(t) else t for t in (a, b))))
    for applies, widened in _RULES:
        if applies(a) and applies(b):
            return widened(a, b)
    raise IncompatibleTypesError(f"mixes {a} and {b}")


def storable_type(dtype: pa.DataType) -> pa.DataType:
    """Find the type that Parquet stores a type as, with the same values.

    A struct without fields gets a null one; views of strings and dictionaries in lists, which pyarrow cannot
    write or read, are plain; a dictionary's indices have room for the words of all row groups; every field may
    be null, as in the rows of a file that lacks it.
    """
    if types.is_dictionary(dtype):
        return pa.dictionary(pa.int32(), dtype.value_type, dtype.ordered)
    if types.is_struct(dtype):
        return pa.struct([_storable(field) for field in dtype] or [EMPTY_STRUCT_FIELD])
    if types.is_map(dtype):
        return pa.map_(_storable(dtype.key_field).with_nullable(False), _storable(dtype.item_field))
    if types.is_fixed_size_list(dtype):
        return pa.list_(_storable(dtype.value_field), dtype.list_size)
    if types.is_large_list(dtype):
        return pa.large_list(_storable(dtype.value_field))
    return pa.list_(_storable(dtype.value_field)) if types.is_list(dtype) else dtype


def _storable(field: pa.Field) -> pa.Field:
    return field.with_type(_decoded(storable_type(field.type))).with_nullable(True)


def _decoded(t: pa.DataType) -> pa.DataType:
    """Strings for views of strings and dictionaries, which Arrow casts and writes in few places."""
    if types.is_dictionary(t):
        return _decoded(t.value_type)
    if types.is_string_view(t):
        return pa.string()
    return pa.binary() if types.is_binary_view(t) else t


def _same_words(a: pa.DataType, b: pa.DataType) -> bool:
    return bool(a.value_type == b.value_type and a.ordered == b.ordered)


def _is_text(t: pa.DataType) -> bool:
    return any(test(t) for test in (types.is_string, types.is_large_string, types.is_string_view))


def _is_bytes(t: pa.DataType) -> bool:
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(t) for test in tests)


def _is_list(t: pa.DataType) -> bool:
    return any(test(t) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _is_number(t: pa.DataType) -> bool:
    return any(test(t) for test in (types.is_integer, types.is_floating, types.is_decimal))


def _first(a: pa.DataType, _: pa.DataType) -> pa.DataType:
    """Kinds that differ in their offsets' width only; a slab of rows is small enough for any of them."""
    return a


def _bytes(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    return pa.binary() if types.is_fixed_size_binary(a) else a


def _number(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if types.is_decimal(a) or types.is_decimal(b):
        return _decimal(a, b)
    if types.is_floating(a) or types.is_floating(b):
        return _FLOATS[max(_float_rank(a), _float_rank(b))]
    if types.is_signed_integer(a) == types.is_signed_integer(b):
        return a if a.bit_width >= b.bit_width else b
    signed, unsigned = (a, b) if types.is_signed_integer(a) else (b, a)
    wide = [t for t in _SIGNED if t.bit_width >= signed.bit_width and t.bit_width > unsigned.bit_width]
    return wide[0] if wide else pa.decimal128(_DIGITS[64], 0)


def _float_rank(t: pa.DataType) -> int:
    """The place in `_FLOATS` of the narrowest float whose integers are exact so far; int64's are checked."""
    if types.is_floating(t):
        return _FLOATS.index(t)
    return 1 if t.bit_width <= 16 else 2


def _decimal(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    (whole, scale), (other, other_scale) = _digits(a), _digits(b)
    scale = max(scale, other_scale)
    precision = max(whole, other) + scale
    if types.is_decimal(a) and (a.precision, a.scale) == (precision, scale):
        return a
    if precision > 76:
        raise IncompatibleTypesError(f"mixes {a} and {b}")
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _digits(t: pa.DataType) -> tuple[int, int]:
    """Digits before and behind the point."""
    if types.is_floating(t):
        raise IncompatibleTypesError(f"mixes {t} and decimals")
    return (t.precision - t.scale, t.scale) if types.is_decimal(t) else (_DIGITS[t.bit_width], 0)


def _finer(a: pa.DataType, b: pa.DataType) -> str:
    return str(max(a.unit, b.unit, key=_UNITS.index))


def _timestamp(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a.tz != b.tz:
        raise IncompatibleTypesError(f"mixes {a} and {b}")
    return pa.timestamp(_finer(a, b), a.tz)


def _time(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    unit = _finer(a, b)
    return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)


def _list(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    item = _field(a.value_field, b.value_field)
    sizes = {t.list_size for t in (a, b) if types.is_fixed_size_list(t)}
    fixed = all(types.is_fixed_size_list(t) for t in (a, b)) and len(sizes) == 1
    if fixed:
        return pa.list_(item, sizes.pop())
    return pa.large_list(item) if types.is_large_list(a) else pa.list_(item)


def _map(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    return pa.map_(_field(a.key_field, b.key_field), _field(a.item_field, b.item_field))


def _struct(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """All fields of both, those of ``a`` first; a field that one of them lacks is null there."""
    mine, others = ({field.name: field for field in t if field != EMPTY_STRUCT_FIELD} for t in (a, b))
    if any(len({field.name for field in t}) < t.num_fields for t in (a, b)):
        raise IncompatibleTypesError("has objects with two fields of one name")
    optional = {name: field.with_nullable(True) for name, field in {**others, **mine}.items()}
    both = {name: _field(field, others[name]) for name, field in mine.items() if name in others}
    order = dict.fromkeys([*mine, *others])
    return pa.struct([(optional | both)[name] for name in order] or [*a])


def _field(a: pa.Field, b: pa.Field) -> pa.Field:
    return a.with_type(widen(a.type, b.type)).with_nullable(a.nullable or b.nullable)


_Rule = tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, pa.DataType], pa.DataType]]
_RULES: tuple[_Rule, ...] = (
    (_is_text, _first),
    (_is_bytes, _bytes),
    (_is_number, _number),
    (types.is_timestamp, _timestamp),
    (types.is_time, _time),
    (types.is_duration, lambda a, b: pa.duration(_finer(a, b))),
    (types.is_date, lambda a, b: pa.date64()),
    (_is_list, _list),
    (types.is_map, _map),
    (types.is_struct, _struct),
)
