"""Lines of JSON to Arrow columns, each value as it stands or not at all. Knows no file and no schema of a job.

Arrow's own conversion from Python objects is not used without a type that was inferred from all of them: given
another type it makes 1 of 1.5, the letters of a string, and drops the keys of an object.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from .pieces import PIECE_BYTES, PIECE_ROWS
from .widening import UnlikeError

# A line takes several times its bytes as Python objects: so many for each comma, colon and bracket.
_OBJECT_BYTES = 64
# Integers that a float64 holds exactly.
_EXACT = 1 << 53
_MOST_DIGITS = 38
# Nested lists or objects that pyarrow can read back from Parquet: 49 lists, 98 objects.
_DEEPEST = 48
NO_OBJECT = "no line of it is a JSON object (lines must be UTF-8 and end with a line feed)"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Line:
    """One row: its object, empty where there is none, and why it cannot be embedded, if it cannot."""

    row: dict[str, Any]
    problem: str = ""

    @property
    def is_object(self) -> bool:
        """Whether the line is a JSON object; one with a problem may be one too."""
        return bool(self.row or not self.problem)


class MixedValuesError(Exception):
    """Values of one column that no type can hold, from ``place`` on; ``reason``: what the column does."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason


def parse(lines: Iterable[bytes]) -> Iterator[list[Line]]:
    """Parse lines in pieces of bounded size; blank lines and a byte order mark are left out."""
    piece: list[Line] = []
    size = 0
    for line in _without_bom(lines):
        if not line.strip():
            continue
        piece.append(_parsed(line))
        size += object_bytes(line)
        if len(piece) == PIECE_ROWS or size > PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _without_bom(lines: Iterable[bytes]) -> Iterator[bytes]:
    # Not "yield from": it would close the file when the consumer stops early.
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(codecs.BOM_UTF8)


def object_bytes(line: bytes) -> int:
    """Estimate the bytes that a line takes as Python objects: one for each comma, colon and bracket."""
    return len(line) + _OBJECT_BYTES * sum(map(line.count, (b",", b":", b"[", b"{")))


def _parsed(line: bytes) -> Line:
    try:
        row = _DECODER.decode(line.decode("utf-8", "surrogateescape"))
        if not isinstance(row, dict):
            return Line({}, "no JSON object")
        return _repaired(row) if _SURROGATE.search(line) or not _is_utf8(line) else Line(row)
    except (ValueError, RecursionError) as error:
        return Line({}, f"no valid JSON: {error}"[:200])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; Python's own way drops all values of a repeated key but the last."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in row if names.count(name) > 1)!r} appears twice")
    return row


def _number(text: str) -> float:
    """Parse a number with a fraction or exponent; Python's own way makes infinity of 1e400."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"float64 cannot hold the number {text[:40]}")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _repaired(row: dict[str, Any]) -> Line:
    """A row whose strings UTF-8 can hold: lone surrogates become "?", and the row says so."""
    bad = next((name for name, value in row.items() if not _encodable({name: value})), None)
    if bad is None:
        return Line(row)
    return Line(_cleaned(row), f"no valid text in {_replaced(bad)!r}: a lone surrogate or invalid UTF-8")


def _cleaned(value: Any) -> Any:
    """A value with "?" for lone surrogates; keys that have any are left out, for they name no column."""
    if isinstance(value, str):
        return _replaced(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {name: _cleaned(item) for name, item in value.items() if _encodable(name)}
    return value


def _replaced(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def to_array(values: Sequence[Any]) -> pa.Array:
    """Parsed values as an Arrow array of the narrowest type that holds all of them.

    Raises
    ------
    MixedValuesError
        There is none.
    """
    try:
        return pa.array(values, infer(values))
    except UnlikeError as error:
        raise MixedValuesError(first_unlike(values), str(error)) from None


def infer(values: Sequence[Any], depth: int = 0) -> pa.DataType:
    """Find the narrowest Arrow type of parsed JSON values; null where all are null.

    ``depth`` is the number of lists and objects that they are within.

    Raises
    ------
    UnlikeError
        There is none.
    """
    if depth > _DEEPEST:
        raise UnlikeError(f"has more than {_DEEPEST} nested lists or objects")
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.null()
    if kinds == {int, float}:
        return _mixed_numbers(values)
    if len(kinds) > 1:
        raise UnlikeError("mixes " + " and ".join(sorted(_NAMES[kind] for kind in kinds)))
    present = [value for value in values if value is not None]
    return _INFER[kinds.pop()](present, depth + 1)


def first_unlike(values: Sequence[Any], fits: Callable[[pa.DataType], bool] = lambda _: True) -> int:
    """Find the first value with which the values so far have no type, or none that ``fits``."""

    def unlike(count: int) -> bool:
        try:
            return not fits(infer(values[:count]))
        except UnlikeError:
            return True

    return bisect_left(range(len(values)), True, key=lambda place: unlike(place + 1))


def _mixed_numbers(values: Sequence[Any]) -> pa.DataType:
    large = next((v for v in values if type(v) is int and abs(v) > _EXACT), None)
    if large is not None:
        raise UnlikeError(f"mixes numbers with fractions and the integer {large}, which float64 cannot hold")
    return pa.float64()


def _integers(values: list[int], _: int) -> pa.DataType:
    low, high = min(values), max(values)
    if low >= -(2**63) and high < 2**63:
        return pa.int64()
    if low >= 0 and high < 2**64:
        return pa.uint64()
    if max(high, -low) < 10**_MOST_DIGITS:
        return pa.decimal128(_MOST_DIGITS, 0)
    raise UnlikeError(f"has an integer of more than {_MOST_DIGITS} digits")


def _objects(values: list[dict[str, Any]], depth: int) -> pa.DataType:
    names = dict.fromkeys(chain.from_iterable(values))
    return pa.struct([(name, infer([value.get(name) for value in values], depth)) for name in names])


def _lists(values: list[list[Any]], depth: int) -> pa.DataType:
    return pa.list_(infer(list(chain.from_iterable(values)), depth))


_NAMES = {str: "strings", bool: "booleans", int: "integers", float: "numbers", list: "lists", dict: "objects"}
_INFER: dict[type, Callable[[list[Any], int], pa.DataType]] = {
    str: lambda *_: pa.string(),
    bool: lambda *_: pa.bool_(),
    int: _integers,
    float: lambda *_: pa.float64(),
    list: _lists,
    dict: _objects,
}
