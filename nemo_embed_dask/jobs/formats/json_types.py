"""Convert parsed JSON values to Arrow arrays of the narrowest type that holds all of them unchanged.

`pyarrow.array` is only called with a type that was inferred from all values. With any other type it changes
values: it makes 1 of 1.5, splits a string into letters, and drops keys of objects.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from .widening import IncompatibleTypesError

# float64 holds every integer up to this one exactly.
_MAX_EXACT_INTEGER = 1 << 53
_MAX_DIGITS = 38
# pyarrow can read 49 nested lists or 98 nested objects back from Parquet.
_MAX_DEPTH = 48


class MixedValuesError(Exception):
    """No type holds all values of a column.

    ``position`` is the first value that does not fit those before it; ``reason`` continues a sentence that
    starts with the column, such as "mixes integers and strings".
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position, self.reason = position, reason


def to_array(values: Sequence[Any]) -> pa.Array:
    """Convert parsed JSON values to an Arrow array of the narrowest type that holds all of them.

    Raises
    ------
    MixedValuesError
        If there is no such type.
    """
    try:
        return pa.array(values, infer_type(values))
    except IncompatibleTypesError as error:
        raise MixedValuesError(first_incompatible(values), str(error)) from None


def infer_type(values: Sequence[Any], depth: int = 0) -> pa.DataType:
    """Return the narrowest Arrow type that holds all of the values; null if all values are null.

    Examples: ``[1, None]`` is int64, ``[1, 0.5]`` is float64, ``[2**64]`` is decimal128(38, 0),
    ``[{"a": 1}, {"b": "x"}]`` is struct<a: int64, b: string>, ``[[], [True]]`` is list<bool>.

    Parameters
    ----------
    values : sequence
        Parsed JSON values.
    depth : int
        How many lists and objects the values are nested in.

    Raises
    ------
    IncompatibleTypesError
        If there is no such type, or it would be nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise IncompatibleTypesError(f"has more than {_MAX_DEPTH} nested lists or objects")
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.null()
    if kinds == {int, float}:
        return _mixed_numbers(values)
    if len(kinds) > 1:
        raise IncompatibleTypesError("mixes " + " and ".join(sorted(_KIND_NAMES[kind] for kind in kinds)))
    present = [value for value in values if value is not None]
    return _INFER_KIND[kinds.pop()](present, depth + 1)


def first_incompatible(
    values: Sequence[Any], accepts: Callable[[pa.DataType], bool] = lambda dtype: True
) -> int:
    """Return the position of the first value that does not fit those before it.

    Parameters
    ----------
    values : sequence
        Parsed JSON values.
    accepts : callable
        Whether a type is acceptable. The values up to and including the returned position have no type, or
        one that is not acceptable. If all values fit, the number of values is returned.
    """

    def are_incompatible(count: int) -> bool:
        try:
            return not accepts(infer_type(values[:count]))
        except IncompatibleTypesError:
            return True

    # More values never become compatible again, so the first position can be found by bisection.
    return bisect_left(range(len(values)), True, key=lambda position: are_incompatible(position + 1))


def _mixed_numbers(values: Sequence[Any]) -> pa.DataType:
    large = next((v for v in values if type(v) is int and abs(v) > _MAX_EXACT_INTEGER), None)
    if large is not None:
        raise IncompatibleTypesError(
            f"mixes numbers with fractions and the integer {large}, which float64 cannot hold"
        )
    return pa.float64()


def _integer_type(values: list[int], _depth: int) -> pa.DataType:
    low, high = min(values), max(values)
    if low >= -(2**63) and high < 2**63:
        return pa.int64()
    if low >= 0 and high < 2**64:
        return pa.uint64()
    if max(high, -low) < 10**_MAX_DIGITS:
        return pa.decimal128(_MAX_DIGITS, 0)
    raise IncompatibleTypesError(f"has an integer of more than {_MAX_DIGITS} digits")


def _struct_type(values: list[dict[str, Any]], depth: int) -> pa.DataType:
    names = dict.fromkeys(chain.from_iterable(values))
    return pa.struct([(name, infer_type([value.get(name) for value in values], depth)) for name in names])


def _list_type(values: list[list[Any]], depth: int) -> pa.DataType:
    return pa.list_(infer_type(list(chain.from_iterable(values)), depth))


_KIND_NAMES = {
    str: "strings",
    bool: "booleans",
    int: "integers",
    float: "numbers",
    list: "lists",
    dict: "objects",
}
_INFER_KIND: dict[type, Callable[[list[Any], int], pa.DataType]] = {
    str: lambda values, depth: pa.string(),
    bool: lambda values, depth: pa.bool_(),
    int: _integer_type,
    float: lambda values, depth: pa.float64(),
    list: _list_type,
    dict: _struct_type,
}
