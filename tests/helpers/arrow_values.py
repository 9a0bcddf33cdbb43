"""Generate Arrow types and values for property tests, and compare values of different types."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

_UNITS = ("s", "ms", "us", "ns")
# Types that the same values may have in different files. Two types of one kind may still be incompatible.
KINDS: dict[str, list[pa.DataType]] = {
    "number": [
        pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
        pa.float16(), pa.float32(), pa.float64(), pa.decimal32(5, 2), pa.decimal64(12, 0), pa.decimal128(5, 2),
        pa.decimal128(20, 0), pa.decimal128(38, 10), pa.decimal256(50, 3), pa.decimal256(76, 0),
    ],
    "text": [
        pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    "bytes": [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2), pa.binary(3)],
    "naive": [pa.timestamp(unit) for unit in _UNITS],
    "zoned": [pa.timestamp(unit, "UTC") for unit in _UNITS],
    "time": [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")],
    "duration": [pa.duration(unit) for unit in _UNITS],
    "date": [pa.date32(), pa.date64()],
    "bool": [pa.bool_()],
    "null": [pa.null()],
}  # fmt: skip
FIELDS = ("a", "b", "a.b", "")


def _list_kinds(item: pa.DataType) -> st.SearchStrategy[pa.DataType]:
    plain = st.sampled_from([pa.list_, pa.large_list]).flatmap(lambda kind: st.just(kind(item)))
    return plain | st.integers(1, 2).map(lambda size: pa.list_(item, size))


@st.composite
def _struct(draw, item):
    names = draw(st.permutations(FIELDS))[: draw(st.integers(0, 3))]
    return pa.struct([pa.field(name, draw(item)) for name in names])


leaves = st.sampled_from([dtype for kind in KINDS.values() for dtype in kind])
dtypes = st.recursive(
    leaves,
    lambda inner: inner.flatmap(_list_kinds) | _struct(inner) | inner.map(lambda t: pa.map_(pa.string(), t)),
    max_leaves=4,
)


@st.composite
def _struct_pair(draw, pairs):
    """Two structs that share some fields, in different order, and have others that only one of them has."""
    shared = {name: draw(pairs) for name in FIELDS}
    sides = [draw(st.permutations(FIELDS))[: draw(st.integers(0, 4))] for _ in range(2)]
    first, second = ([pa.field(name, shared[name][i]) for name in side] for i, side in enumerate(sides))
    return pa.struct(first), pa.struct(second)


def _nested_pairs(inner: st.SearchStrategy) -> st.SearchStrategy:
    lists = inner.flatmap(lambda pair: st.tuples(_list_kinds(pair[0]), _list_kinds(pair[1])))
    maps = inner.map(lambda pair: tuple(pa.map_(pa.string(), t) for t in pair))
    return lists | _struct_pair(inner) | maps


_leaf_pairs = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(st.sampled_from(KINDS[kind]), st.sampled_from(KINDS[kind]))
)
# Pairs of types that are usually compatible.
similar = st.recursive(_leaf_pairs, _nested_pairs, max_leaves=4)


def values_of(dtype: pa.DataType) -> st.SearchStrategy[Any]:
    """Return a strategy for None and values of a type. Times are in the range of every finer unit."""
    return st.none() | _present(dtype)


_NESTED = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
# Whole milliseconds, so that datetime and pandas.Timestamp are equal.
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECONDS = st.sampled_from([0, 1, -1, 86_399, 86_400, 951_782_400]) | st.integers(-(2**32), 2**32)


def _present(t: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_struct(t):
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in t})
    if pa.types.is_fixed_size_list(t):
        return st.lists(values_of(t.value_type), min_size=t.list_size, max_size=t.list_size)
    if any(test(t) for test in _NESTED):
        return st.lists(values_of(t.value_type), max_size=3)
    if pa.types.is_map(t):
        return st.lists(st.tuples(st.text(max_size=2), values_of(t.item_type)), max_size=2)
    if pa.types.is_dictionary(t):
        return _present(t.value_type)
    return _leaf(t)


def _leaf(t: pa.DataType) -> st.SearchStrategy[Any]:
    return next(strategy(t) for applies, strategy in _LEAVES if applies(t))


def _decimal(digits: int, scale: int) -> Decimal:
    """Build a decimal exactly. Arithmetic on decimals would round it."""
    return Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), -scale))


def _integers(t: pa.DataType) -> st.SearchStrategy[int]:
    low = 0 if pa.types.is_unsigned_integer(t) else -(2 ** (t.bit_width - 1))
    high = low + 2**t.bit_width - 1
    return st.sampled_from([low, high, 0, 1]) | st.integers(low, high)


def _temporal(t: pa.DataType) -> st.SearchStrategy[Any]:
    moments = _SECONDS.map(lambda seconds: _EPOCH + datetime.timedelta(seconds=seconds))
    if pa.types.is_timestamp(t):
        return moments if t.tz else moments.map(lambda moment: moment.replace(tzinfo=None))
    if pa.types.is_date(t):
        return moments.map(datetime.datetime.date)
    if pa.types.is_time(t):
        return moments.map(datetime.datetime.time)
    return _SECONDS.map(lambda seconds: datetime.timedelta(seconds=seconds))


_LEAVES = (
    (pa.types.is_null, lambda _: st.none()),
    (pa.types.is_boolean, lambda _: st.booleans()),
    (
        pa.types.is_decimal,
        lambda t: st.integers(1 - 10**t.precision, 10**t.precision - 1).map(lambda n: _decimal(n, t.scale)),
    ),
    (pa.types.is_integer, _integers),
    (pa.types.is_floating, lambda t: st.floats(width=t.bit_width)),
    (pa.types.is_fixed_size_binary, lambda t: st.binary(min_size=t.byte_width, max_size=t.byte_width)),
    (pa.types.is_temporal, _temporal),
    (lambda t: "binary" in str(t), lambda _: st.binary(max_size=4)),
    (lambda _: True, lambda _: st.text(max_size=4)),
)


def arrays(dtype: pa.DataType) -> st.SearchStrategy[pa.Array]:
    return (
        st.lists(values_of(dtype), max_size=4).map(lambda values: make_array(values, dtype)).filter(_is_valid)
    )


def _is_valid(array: pa.Array) -> bool:
    """Return whether an array is valid: `pyarrow.array` makes invalid ones of nulls in fixed-size lists in structs."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def make_array(values: list[Any], dtype: pa.DataType) -> pa.Array:
    """Make an array, dictionaries by a cast: in a null, `pyarrow.array` makes an index into an empty dictionary."""
    return pa.array(values, _plain(dtype)).cast(dtype)


def _plain(t: pa.DataType) -> pa.DataType:
    """Replace dictionaries in a type by the type of their values."""
    if pa.types.is_dictionary(t):
        return t.value_type
    if "dictionary" not in str(t):
        return t
    if pa.types.is_struct(t):
        return pa.struct([field.with_type(_plain(field.type)) for field in t])
    if pa.types.is_map(t):
        return pa.map_(t.key_type, _plain(t.item_type))
    if pa.types.is_fixed_size_list(t):
        return pa.list_(_plain(t.value_type), t.list_size)
    return (pa.large_list if pa.types.is_large_list(t) else pa.list_)(_plain(t.value_type))


def same(before: Any, after: Any) -> bool:
    """Return whether a value is unchanged: numbers by value and sign of zero; added fields of objects are null."""
    if isinstance(before, dict) and isinstance(after, dict):
        return _same_objects(before, after)
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    if isinstance(before, float) and isinstance(after, float | int):
        return _same_float(before, float(after))
    return bool(before == after)  # Python compares int, float and Decimal by their exact values


def _same_objects(before: dict[str, Any], after: dict[str, Any]) -> bool:
    known = all(name in after and same(value, after[name]) for name, value in before.items())
    return known and all(value is None for name, value in after.items() if name not in before)


def _same_float(before: float, after: float) -> bool:
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return before == after and math.copysign(1, before) == math.copysign(1, after)


def through_parquet(array: pa.Array) -> pa.Array:
    """Write a column to Parquet and read it back."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": array}), sink)
    return pq.read_table(pa.BufferReader(sink.getvalue()))["x"].combine_chunks()
