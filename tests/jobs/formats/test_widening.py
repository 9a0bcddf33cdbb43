"""Widened types hold the values of both types unchanged; incompatible types are refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nemo_embed_dask.jobs.formats.casting import cast_array
from nemo_embed_dask.jobs.formats.parquet_types import EMPTY_STRUCT_FIELD, storable_type
from nemo_embed_dask.jobs.formats.widening import IncompatibleTypesError, holds, widen

from ...helpers.arrow_values import KINDS, arrays, dtypes, same, similar, through_parquet

S, F = pa.struct, pa.field
DICTIONARY = pa.dictionary(pa.int32(), pa.string())
thorough = settings(max_examples=150)


def widened(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    try:
        return widen(a, b)
    except IncompatibleTypesError:
        return None


def may_not_fit(value: Any) -> bool:
    """Return whether a value has an integer beyond 2^53, which float64 may not hold."""
    if isinstance(value, dict):
        return any(map(may_not_fit, value.values()))
    if isinstance(value, list | tuple):
        return any(map(may_not_fit, value))
    return isinstance(value, int) and abs(value) > 2**53


def assert_unchanged(array: pa.Array, wide: pa.DataType) -> None:
    try:
        cast = cast_array(array, wide)
    except pa.ArrowInvalid:
        assert may_not_fit(array.to_pylist()), "only large integers among floats may be refused"
        return
    assert cast.type == wide
    assert len(cast) == len(array)
    for before, after in zip(array.to_pylist(), cast.to_pylist(), strict=True):
        assert same(before, after), (before, after)


@thorough
@given(st.data(), similar)
def test_values_of_both_types_are_cast_unchanged(data, pair):
    wide = widened(*pair)
    assume(wide is not None)
    for dtype in pair:
        assert_unchanged(data.draw(arrays(dtype)), storable_type(wide))


@pytest.mark.parametrize("kind", KINDS)
def test_every_two_types_of_a_kind_can_be_cast(kind):
    """Arrow lacks some casts, whatever the values."""
    for pair in product(KINDS[kind], repeat=2):
        wide = widened(*pair)
        for dtype in pair if wide is not None else ():
            assert_unchanged(pa.nulls(2, dtype), storable_type(wide))


@thorough
@given(similar)
def test_the_widened_type_holds_both_and_stays(pair):
    a, b = pair
    wide = widened(a, b)
    if wide is None:
        assert widened(b, a) is None
        return
    assert holds(wide, a) and holds(wide, b)
    assert holds(storable_type(wide), a) and holds(storable_type(wide), b)
    assert widen(wide, b) == wide == widen(wide, a)


@thorough
@given(dtypes, dtypes)
def test_any_two_types_are_unlike_or_widened_both_ways(a, b):
    wide, other = widened(a, b), widened(b, a)
    assert (wide is None) == (other is None)
    if wide is not None:
        assert holds(wide, b) and holds(other, a)


@given(dtypes)
def test_a_type_and_itself_or_null(dtype):
    assert widen(dtype, dtype) == dtype
    assert widen(dtype, pa.null()) == dtype == widen(pa.null(), dtype)
    assert holds(dtype, dtype) and holds(dtype, pa.null())


@thorough
@given(dtypes)
def test_nulls_become_nulls_of_any_type(dtype):
    assume("list_view" not in str(dtype))  # which Arrow casts from nothing
    cast = pa.nulls(3).cast(storable_type(dtype))
    assert cast.type == storable_type(dtype) and cast.null_count == 3
    nested = pa.array([[None, None], [], None], pa.list_(pa.null()))
    assert_unchanged(nested, storable_type(widen(nested.type, pa.list_(dtype))))


@thorough
@given(st.data(), dtypes)
def test_storable_types_are_kept_by_parquet(data, dtype):
    array = data.draw(arrays(dtype))
    written = array.cast(storable_type(dtype))
    read = through_parquet(written)
    for before, after in zip(array.to_pylist(), read.to_pylist(), strict=True):
        assert same(before, after), (before, after)


@pytest.mark.parametrize("holder", [
    pa.list_, pa.large_list, lambda t: pa.list_(t, 1), lambda t: pa.map_(pa.string(), t),
    lambda t: S([("x", t)]), lambda t: pa.list_(pa.large_list(t)),
])  # fmt: skip
def test_objects_without_fields_are_storable_at_any_depth(holder):
    """A file of JSON lines gives ``{}``; another file of Parquet gives the list that it is in."""
    dtype = storable_type(holder(S([])))
    assert dtype == holder(S([EMPTY_STRUCT_FIELD]))
    through_parquet(pa.nulls(2, dtype))


UNLIKE = [
    (pa.int64(), pa.string()), (pa.bool_(), pa.int8()), (pa.bool_(), pa.string()), (pa.float64(), pa.string()),
    (pa.string(), pa.binary()), (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin")), (pa.timestamp("s"), pa.date32()),
    (pa.timestamp("s"), pa.int64()), (pa.duration("s"), pa.int64()), (pa.time32("s"), pa.duration("s")),
    (pa.list_(pa.int8()), S([("a", pa.int8())])), (pa.list_(pa.int8()), pa.int8()),
    (pa.map_(pa.string(), pa.int8()), S([("a", pa.int8())])), (pa.list_(pa.int8()), pa.list_(pa.string())),
    (S([("a", pa.int8())]), S([("a", pa.string())])), (pa.decimal128(5, 2), pa.float64()),
    (pa.decimal256(76, 0), pa.decimal128(38, 38)), (pa.uuid(), pa.string()), (DICTIONARY, pa.int64()),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.int8(), pa.int8())),
    (S([("a", pa.int8()), ("a", pa.int8())]), S([("a", pa.int16())])),
    # Arrow's cast from a view of lists fails on some arrays.
    (pa.list_view(pa.int8()), pa.list_(pa.int8())), (pa.large_list_view(pa.int8()), pa.large_list(pa.int8())),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), UNLIKE, ids=str)
def test_types_without_a_common_one_are_refused(a, b):
    for pair in ((a, b), (b, a)):
        with pytest.raises(IncompatibleTypesError):
            widen(*pair)
    assert not holds(a, b) and not holds(b, a)


def test_kinds_are_unlike_each_other():
    kinds = {name: kind for name, kind in KINDS.items() if name != "null"}
    for name, kind in kinds.items():
        others = [dtype for other, found in kinds.items() if other != name for dtype in found]
        assert not [(a, b) for a in kind for b in others if widened(a, b) is not None]


EXPECTED = [
    (pa.int8(), pa.int64(), pa.int64()), (pa.uint8(), pa.uint32(), pa.uint32()),
    (pa.int8(), pa.uint8(), pa.int16()), (pa.int64(), pa.uint32(), pa.int64()),
    (pa.uint32(), pa.int32(), pa.int64()), (pa.int8(), pa.uint64(), pa.decimal128(20, 0)),
    (pa.int16(), pa.float32(), pa.float32()), (pa.int32(), pa.float32(), pa.float64()),
    (pa.int64(), pa.float64(), pa.float64()), (pa.float16(), pa.float32(), pa.float32()),
    (pa.int8(), pa.float16(), pa.float32()), (pa.int8(), pa.decimal128(5, 2), pa.decimal128(5, 2)),
    (pa.int16(), pa.decimal128(5, 2), pa.decimal128(7, 2)),
    (pa.decimal128(5, 2), pa.decimal128(5, 4), pa.decimal128(7, 4)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.decimal32(5, 2), pa.decimal128(5, 2), None), (DICTIONARY, pa.string(), pa.string()),
    (DICTIONARY, pa.dictionary(pa.int8(), pa.string()), DICTIONARY),
    (pa.binary(2), pa.binary(3), pa.binary()), (pa.date32(), pa.date64(), pa.date64()),
    (pa.time32("s"), pa.time32("ms"), pa.time32("ms")), (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
    (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")), (pa.duration("s"), pa.duration("ms"), pa.duration("ms")),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())),
    (pa.list_(pa.null()), pa.list_(S([("a", pa.int8())])), pa.list_(S([("a", pa.int8())]))),
    (S([]), S([("a", pa.int8())]), S([("a", pa.int8())])), (S([EMPTY_STRUCT_FIELD]), S([]), S([EMPTY_STRUCT_FIELD])),
    (S([("a", pa.int8()), ("b", pa.int8())]), S([("c", pa.bool_()), ("a", pa.int16())]),
     S([("a", pa.int16()), ("b", pa.int8()), ("c", pa.bool_())])),
    (S([F("a", pa.int8(), nullable=False)]), S([F("a", pa.int8())]), S([F("a", pa.int8())])),
    (S([F("a", pa.int8(), nullable=False)]), S([F("b", pa.int8(), nullable=False)]), S([("a", pa.int8()), ("b", pa.int8())])),
    (pa.list_(F("item", pa.int8(), nullable=False)), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.large_string(), pa.int16()), pa.map_(pa.string(), pa.int16())),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "wide"), EXPECTED, ids=str)
def test_the_narrowest_type(a, b, wide):
    found = widen(a, b)
    assert wide is None or found == wide
    assert holds(found, a) and holds(found, b)
    assert holds(widen(b, a), a)


@pytest.mark.parametrize(("value", "narrow", "wide"), [
    (2**53 + 1, pa.int64(), pa.float64()), (2**64 - 1, pa.uint64(), pa.float64()),
    (10**11, pa.timestamp("s"), pa.timestamp("ns")), (10**11, pa.duration("s"), pa.duration("ns")),
])  # fmt: skip
def test_what_the_types_do_not_tell_is_refused_by_the_cast(value, narrow, wide):
    assert widen(narrow, wide) == wide
    with pytest.raises(pa.ArrowInvalid):
        pa.array([value], pa.int64() if pa.types.is_temporal(narrow) else narrow).cast(narrow).cast(wide)


@pytest.mark.parametrize("extension", [
    pa.array([b"0123456789abcdef", None], pa.uuid()), pa.array(["{}", None], pa.json_()),
    pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
], ids=lambda array: str(array.type))  # fmt: skip
def test_extension_types_beside_what_is_widened(extension):
    struct = pa.StructArray.from_arrays([pa.array([1, 2], pa.int8()), extension], ["n", "x"])
    wide = widen(struct.type, S([("n", pa.int16())]))
    cast = struct.cast(wide)
    assert cast.field("x").to_pylist() == extension.to_pylist() and cast.field("n").type == pa.int16()
