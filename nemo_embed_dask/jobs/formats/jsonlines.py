"""Parse JSON lines without changing a value; a line with a problem makes one row that cannot be embedded."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .piece_sizes import PIECE_BYTES, PIECE_ROWS

# As Python objects a line takes several times its bytes: about this many for each comma, colon and bracket.
_OBJECT_BYTES = 64
_MAX_PROBLEM_LENGTH = 200
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
NO_OBJECT_MESSAGE = "no line of it is a JSON object (lines must be UTF-8 and end with a line feed)"


@dataclass(frozen=True)
class Line:
    """One row: its JSON object and, if it cannot be embedded, why.

    ``row`` is empty if the line is not a JSON object, or an empty one. ``problem`` is empty if there is none.
    """

    row: dict[str, Any]
    problem: str = ""

    @property
    def is_object(self) -> bool:
        """Whether the line is a JSON object. An object may still have a problem."""
        # An empty row without a problem is the empty object.
        return bool(self.row or not self.problem)


def parse_lines(lines: Iterable[bytes]) -> Iterator[list[Line]]:
    """Parse lines and yield them in pieces of bounded size.

    Blank lines and a byte order mark at the start are skipped.
    """
    piece: list[Line] = []
    size = 0
    for line in _without_byte_order_mark(lines):
        if not line.strip():
            continue
        piece.append(_parse_line(line))
        size += estimate_object_bytes(line)
        if len(piece) == PIECE_ROWS or size > PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _without_byte_order_mark(lines: Iterable[bytes]) -> Iterator[bytes]:
    # Not "yield from": it would close the file when the consumer stops early.
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(codecs.BOM_UTF8)


def estimate_object_bytes(line: bytes) -> int:
    """Estimate how many bytes a line takes as Python objects.

    Each comma, colon and opening bracket stands for about one object.
    """
    return len(line) + _OBJECT_BYTES * sum(map(line.count, (b",", b":", b"[", b"{")))


def _parse_line(line: bytes) -> Line:
    try:
        row = _DECODER.decode(line.decode("utf-8", "surrogateescape"))
        if not isinstance(row, dict):
            return Line({}, "not a JSON object")
        may_have_surrogates = _SURROGATE.search(line) or not _is_utf8(line)
        return _replace_surrogates(row) if may_have_surrogates else Line(row)
    except json.JSONDecodeError as error:  # its own text counts lines within this one
        return Line({}, f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Line({}, f"not valid JSON: {error}"[:_MAX_PROBLEM_LENGTH])


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its keys and values, and refuse repeated keys.

    Without this, Python's decoder keeps only the last value of a repeated key.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in row if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} appears twice")
    return row


def _parse_float(text: str) -> float:
    """Parse a number with a fraction or an exponent, and refuse numbers that are too large.

    Without this, Python's decoder turns 1e400 into infinity.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"float64 cannot hold the number {text[:40]}")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_build_object, parse_float=_parse_float)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _replace_surrogates(row: dict[str, Any]) -> Line:
    """Return a row with "?" for lone surrogates, which UTF-8 cannot encode, and a problem if it had any."""
    bad = next((name for name, value in row.items() if not _is_encodable({name: value})), None)
    if bad is None:
        return Line(row)
    problem = f"not valid text in {_encodable_text(bad)!r}: a lone surrogate or invalid UTF-8"
    return Line(_encodable_value(row), problem)


def _encodable_value(value: Any) -> Any:
    """Replace lone surrogates by "?" in all strings. Keys with lone surrogates are left out."""
    if isinstance(value, str):
        return _encodable_text(value)
    if isinstance(value, list):
        return [_encodable_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _encodable_value(item) for name, item in value.items() if _is_encodable(name)}
    return value


def _encodable_text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
