"""Columns of every type that Parquet can hold, with the extremes of each; and columns of two types each."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

TEXTS = ["one", None, "two words", "", "one", "漢字 \U0001f600"]
_ROWS = len(TEXTS)
_UNITS = ("s", "ms", "us", "ns")
_MOST = 2**63 - 1
_DAYS = {"first": -719_162, "last": 2_932_896}  # of year 1 and year 9999
S, L = pa.struct, pa.list_


def column(dtype: pa.DataType, *values: Any) -> pa.Array:
    """Values, then nulls."""
    return pa.array([*values, *[None] * (_ROWS - len(values))], dtype)


def _numbers() -> dict[str, pa.Array]:
    found = {"bool": column(pa.bool_(), True, None, False)}
    for bits in (8, 16, 32, 64):
        found[f"int{bits}"] = column(
            getattr(pa, f"int{bits}")(), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0, None, -1
        )
        found[f"uint{bits}"] = column(getattr(pa, f"uint{bits}")(), 2**bits - 1, None, 0, 1)
    for bits in (16, 32, 64):
        kind = np.dtype(f"float{bits}").type
        info = np.finfo(kind)
        values = [kind(math.nan), kind(-0.0), kind(math.inf), info.max, info.smallest_subnormal, None]
        found[f"float{bits}"] = pa.array(values, getattr(pa, f"float{bits}")())
    for make, digits in ((pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76)):
        for scale in (0, 3, digits):
            most = Decimal((0, (9,) * digits, -scale))
            found[f"{make.__name__}_{scale}"] = column(
                make(digits, scale), most, None, most.copy_negate(), Decimal(0)
            )
    return found


def _strings() -> dict[str, pa.Array]:
    words = ["", "a\x00b", None, "\U0001f600 e\u0301", "x" * 3000, " \n\t"]
    raw = [b"", b"\x00\xff", None, bytes(range(256)), b"x" * 3000, b" "]
    kinds = {"string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view()}
    bytes_kinds = {"binary": pa.binary(), "large_binary": pa.large_binary(), "binary_view": pa.binary_view()}
    words_in_dictionaries = pa.array(["a", "", None, "a", "b", "\U0001f600"])
    return (
        {name: pa.array(words, kind) for name, kind in kinds.items()}
        | {name: pa.array(raw, kind) for name, kind in bytes_kinds.items()}
        | {"fixed_binary": column(pa.binary(3), b"abc", None, b"\x00\x00\x00", b"\xff\xff\xff")}
        | {f"dictionary_{index}": words_in_dictionaries.cast(pa.dictionary(index, pa.string())) for index in (pa.int8(), pa.int32(), pa.uint16())}
        | {"dictionary_ordered": words_in_dictionaries.cast(pa.dictionary(pa.int32(), pa.string(), ordered=True)),
           "dictionary_int": column(pa.int64(), 5, None, 5).dictionary_encode(),
           "dictionary_binary": pa.array([b"a", b"a", None, b"\xff", b"", b"a"]).dictionary_encode()}
    )  # fmt: skip


def _moments() -> dict[str, pa.Array]:
    found = {
        "date32": column(pa.date32(), *_DAYS.values(), None, 0, -1), "date64": column(pa.date64(), *(d * 86_400_000 for d in _DAYS.values()), None),
        "time_s": column(pa.time32("s"), 0, 86_399, None), "time_ms": column(pa.time32("ms"), 86_399_999, None, 1),
        "time_us": column(pa.time64("us"), 86_399_999_999, None, 1), "time_ns": column(pa.time64("ns"), 86_399_999_999_999, None, 1),
    }  # fmt: skip
    for unit in _UNITS:
        # Parquet stores seconds as milliseconds.
        most = _MOST // 1000 if unit == "s" else _MOST
        for name, zone in {"naive": None, "utc": "UTC", "zone": "Europe/Berlin", "offset": "+05:30"}.items():
            found[f"{name}_{unit}"] = column(pa.timestamp(unit, zone), -most, most, None, 0, -1)
        found[f"duration_{unit}"] = column(pa.duration(unit), -_MOST, _MOST, None, 0, 1)
    return found


def _nested() -> dict[str, pa.Array]:
    words = pa.dictionary(pa.int32(), pa.string())
    return {
        "list": column(L(pa.int8()), [], [None], None, [1, None, -128]),
        "large_list": column(pa.large_list(pa.string()), [], [""], None, ["a", None]),
        "list_twice": column(L(L(L(pa.float32()))), [], [None], None, [[], [None], [[1.5, None]]]),
        "fixed_list": column(L(pa.int16(), 2), [1, None], None, [None, None]),
        "fixed_twice": column(L(L(pa.float64(), 2), 2), [[1.0, -0.0], None], None, [None, [None, math.nan]]),
        "list_view": column(pa.list_view(pa.int8()), [], [None, 1], None, [2]),
        "struct": column(S([("a", pa.int8()), ("b.c", pa.string()), ("", pa.bool_())]), {"a": 1}, None, {}, {"b.c": "x", "": True}),
        "struct_in_list": column(L(S([("x y", L(S([("z", pa.decimal128(5, 2))])))])), [], None, [None, {}], [{"x y": [{"z": Decimal("1.25")}, None]}]),
        "struct_of_null": column(S([("n", pa.null())]), {"n": None}, None),
        "map": column(pa.map_(pa.string(), pa.int8()), [], None, [("", None), ("k", 1)]),
        "map_twice": column(pa.map_(pa.int64(), pa.map_(pa.string(), L(pa.int8()))), [(1, [("a", [1])]), (2, None)], None),
        "map_sorted": column(pa.map_(pa.string(), pa.string(), keys_sorted=True), [("a", "b")], None),
        "list_of_null": column(L(pa.null()), [None, None], None, []),
        "list_of_words": pa.array([["a", None], None, [], ["b"], ["a"], None], L(pa.string())).cast(L(words)),
        "list_of_views": column(L(pa.string_view()), ["a", None], None, []),
        "not_null": pa.array([{"a": i} for i in range(_ROWS)], S([pa.field("a", pa.int64(), nullable=False)])),
    }  # fmt: skip


def _odd_names() -> dict[str, pa.Array]:
    names = [
        "a.b",
        "a",
        "a b",
        'quote"d',
        "back`tick",
        "größe in 漢",
        "",
        ".",
        "list.element",
        "\U0001f600",
        "TEXT",
        "new\nline",
        "x" * 300,
    ]
    nested = column(S([("b", pa.int8()), ("", S([("c.d", pa.int8())]))]), {"b": 1, "": {"c.d": 2}}, None)
    return {name: nested if name == "a" else column(pa.int16(), i, None) for i, name in enumerate(names)}


def _extensions() -> dict[str, pa.Array]:
    tensors = pa.array([[1.0, 2.0, 3.0, 4.0], None, [math.nan] * 4, *[None] * 3], L(pa.float64(), 4))
    return {
        "uuid": column(pa.uuid(), b"0123456789abcdef", None, bytes(16)),
        "json": column(pa.json_(), '{"a": 1}', None, ""),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), column(pa.int8(), 1, 0, None)),
        "tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float64(), [2, 2]), tensors),
        "opaque": pa.ExtensionArray.from_storage(
            pa.opaque(pa.binary(), "type", "vendor"), column(pa.binary(), b"x", None)
        ),
    }


def every_type() -> pa.Table:
    columns = _numbers() | _strings() | _moments() | _nested() | _odd_names() | _extensions()
    return pa.table({"null": pa.nulls(_ROWS), "text": TEXTS, **columns})


def _pair(
    a: pa.DataType, first: list, b: pa.DataType, second: list, wide: pa.DataType
) -> tuple[pa.Array, pa.Array, pa.DataType]:
    return *(_array([*values, None, None, None][:3], t) for t, values in ((a, first), (b, second))), wide


def _array(values: list, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(dtype):  # older versions of pyarrow do not make one of large strings
        return pa.array(values, dtype.value_type).cast(dtype)
    return pa.array(values, dtype)


_NOW = datetime.datetime(2024, 2, 29, 12, 30)
_WORDS = pa.dictionary(pa.int32(), pa.string())
# Column -> its values in one file and in another, and the type in which parts have both.
WIDENED = {
    "w_int": _pair(pa.int8(), [-128], pa.int64(), [_MOST], pa.int64()),
    "w_uint": _pair(pa.uint8(), [255], pa.uint32(), [2**32 - 1], pa.uint32()),
    "w_signs": _pair(pa.int8(), [-128], pa.uint8(), [255], pa.int16()),
    "w_64": _pair(pa.int64(), [-(2**63)], pa.uint64(), [2**64 - 1], pa.decimal128(20, 0)),
    "w_float16": _pair(pa.float16(), [np.float16(-0.0)], pa.float64(), [5e-324], pa.float64()),
    "w_float32": _pair(pa.int16(), [-32768], pa.float32(), [math.nan], pa.float32()),
    "w_float64": _pair(pa.int64(), [2**53], pa.float64(), [-0.0, 0.1], pa.float64()),
    "w_decimal": _pair(pa.decimal128(5, 2), [Decimal("999.99")], pa.decimal128(38, 10), [Decimal("0.0000000001")], pa.decimal128(38, 10)),
    "w_decimal256": _pair(pa.decimal128(38, 0), [Decimal(10**38 - 1)], pa.decimal128(5, 5), [Decimal("0.00001")], pa.decimal256(43, 5)),
    "w_int_decimal": _pair(pa.int32(), [-(2**31)], pa.decimal128(5, 2), [Decimal("-0.01")], pa.decimal128(12, 2)),
    "w_naive": _pair(pa.timestamp("ms"), [_NOW], pa.timestamp("ns"), [1], pa.timestamp("ns")),
    "w_zoned": _pair(pa.timestamp("us", "Asia/Tokyo"), [_NOW], pa.timestamp("ms", "Asia/Tokyo"), [_NOW], pa.timestamp("us", "Asia/Tokyo")),
    "w_duration": _pair(pa.duration("s"), [5], pa.duration("us"), [1], pa.duration("us")),
    "w_time": _pair(pa.time32("ms"), [86_399_999], pa.time64("ns"), [1], pa.time64("ns")),
    "w_words": _pair(pa.string(), [""], pa.large_string(), ["\U0001f600"], pa.string()),
    "w_dictionary": _pair(_WORDS, ["a"], pa.dictionary(pa.int8(), pa.large_string()), ["b"], _WORDS),
    "w_bytes": _pair(pa.binary(2), [b"ab"], pa.binary(3), [b"abc"], pa.binary()),
    "w_list": _pair(L(pa.int8()), [[], [None]], pa.large_list(pa.int64()), [[_MOST]], L(pa.int64())),
    "w_fixed": _pair(L(pa.int8(), 2), [[1, None], None], L(pa.int8(), 3), [None, [1, 2, 3]], L(pa.int8())),
    "w_struct": _pair(S([("a", pa.int8()), ("b", pa.string())]), [{"a": 1, "b": "x"}], S([("c", pa.bool_()), ("a", pa.float64())]), [{"c": True, "a": 0.5}],
                      S([("a", pa.float64()), ("b", pa.string()), ("c", pa.bool_())])),
    "w_deep": _pair(L(S([("a", L(pa.null()))])), [[{"a": [None]}, None]], L(S([("a", L(pa.int8()))])), [[{"a": [1]}]],
                    L(S([("a", L(pa.int8()))]))),
    "w_map": _pair(pa.map_(pa.string(), pa.int8()), [[("a", 1)]], pa.map_(pa.large_string(), pa.int64()), [[("b", _MOST)]], pa.map_(pa.string(), pa.int64())),
    "w_null": _pair(pa.null(), [], S([("a", L(pa.int8(), 2))]), [{"a": [1, 2]}], S([("a", L(pa.int8(), 2))])),
    "w_null_words": _pair(pa.null(), [], _WORDS, ["a", "b"], _WORDS),
}  # fmt: skip
