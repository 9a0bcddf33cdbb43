"""Read the page headers of a Parquet column of strings or bytes, to bound the size of its decoded values.

The footer has only the encoded size of a whole row group. The headers of pages, a few bytes each in Thrift's
compact protocol, have the number of values in each page and their encoding. A dictionary page shows the size of
its largest value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

# Numbers in parquet.thrift: of page types, of encodings, and of fields in the header of a page.
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_PLAIN, _DELTA_LENGTH = 0, 6
_DICTIONARY_ENCODINGS = (2, 8)
_TYPE_FIELD, _SIZE_FIELD, _COMPRESSED_SIZE_FIELD = 1, 2, 3
_DATA_HEADER_FIELD, _DATA_HEADER_V2_FIELD = 5, 8
_VALUES_FIELD, _ENCODING_FIELD, _ENCODING_V2_FIELD = 1, 2, 4
_MAX_PAGE_BYTES = 1 << 31
_LENGTH = struct.Struct("<I")


class Page(NamedTuple):
    """The number of values in a page, and upper bounds in bytes for its largest value and for all of them."""

    values: int
    largest: int
    nbytes: int


def read_pages(chunk: bytes, codec: str) -> Iterator[Page]:
    """Read the page headers of a column chunk, which must be of strings or bytes.

    Raises
    ------
    ValueError
        If these bytes are not pages.
    """
    try:
        yield from _read_pages(chunk, codec)
    except (IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("these bytes are not pages") from error


def _read_pages(chunk: bytes, codec: str) -> Iterator[Page]:
    offset = largest_in_dictionary = 0
    while offset < len(chunk):
        header, offset = _read_struct(chunk, offset)
        nbytes, compressed = header[_SIZE_FIELD], header[_COMPRESSED_SIZE_FIELD]
        if not (0 <= nbytes < _MAX_PAGE_BYTES and 0 <= compressed < _MAX_PAGE_BYTES):
            raise ValueError(f"a page has {nbytes} bytes, {compressed} compressed")
        if header[_TYPE_FIELD] == _DICTIONARY_PAGE:
            data = memoryview(chunk)[offset : offset + compressed]
            largest_in_dictionary = _largest_value(data, nbytes, codec)
        elif header[_TYPE_FIELD] == _DATA_PAGE:
            page = header[_DATA_HEADER_FIELD]
            yield _bound_page(page[_VALUES_FIELD], page[_ENCODING_FIELD], nbytes, largest_in_dictionary)
        elif header[_TYPE_FIELD] == _DATA_PAGE_V2:
            page = header[_DATA_HEADER_V2_FIELD]
            yield _bound_page(page[_VALUES_FIELD], page[_ENCODING_V2_FIELD], nbytes, largest_in_dictionary)
        offset += compressed


def _bound_page(values: int, encoding: int, nbytes: int, largest_in_dictionary: int) -> Page:
    if encoding in _DICTIONARY_ENCODINGS:
        return Page(values, largest_in_dictionary, values * largest_in_dictionary)
    if encoding in (_PLAIN, _DELTA_LENGTH):
        return Page(values, nbytes, nbytes)
    # In other encodings each value may repeat a part of the value before it.
    return Page(values, nbytes, values * nbytes)


def _largest_value(compressed: memoryview, nbytes: int, codec: str) -> int:
    """Return the bytes of a dictionary's largest value; those of the whole dictionary if it cannot be read.

    A dictionary is a sequence of values, each after its length in four bytes.
    """
    name = "lz4_raw" if codec == "LZ4" else codec.lower()
    try:
        data = (
            bytes(compressed)
            if codec == "UNCOMPRESSED"
            else pa.decompress(compressed, nbytes, name, asbytes=True)
        )
    except (pa.ArrowException, OSError, ValueError):
        return nbytes
    offset = largest = 0
    while offset + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, offset)
        largest = max(largest, length)
        offset += _LENGTH.size + length
    return largest if offset == len(data) else nbytes


# ---- Thrift's compact protocol ----------------------------------------------------------------------
# Each function returns a value and the offset after it.

# Numbers of types in Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)


def _read_struct(data: bytes, offset: int) -> tuple[dict[int, Any], int]:
    """Read a struct: its fields by number.

    The upper half of a field's first byte is its number minus that of the field before it, or 0 if the number
    follows as an integer; the lower half is the type. A zero byte ends the struct.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := data[offset]:
        difference, kind = head >> 4, head & 15
        if difference:
            number, offset = number + difference, offset + 1
        else:
            number, offset = _read_integer(data, offset + 1)
        fields[number], offset = _read_value(data, offset, kind)
    return fields, offset + 1


def _read_value(data: bytes, offset: int, kind: int) -> tuple[Any, int]:
    """Read a value. Bytes and floats are not needed: return None for them."""
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, offset
    if kind in _INTEGERS:
        return _read_integer(data, offset)
    if kind == _STRUCT:
        return _read_struct(data, offset)
    if kind == _BINARY:
        size, offset = _read_varint(data, offset)
        return None, offset + size
    if kind == _BYTE:
        return None, offset + 1
    if kind == _DOUBLE:
        return None, offset + 8
    raise ValueError(f"the header of a page has a field of the unknown type {kind}")


def _read_integer(data: bytes, offset: int) -> tuple[int, int]:
    """Read a signed integer in zigzag encoding: 0, -1, 1, -2, ... are stored as 0, 1, 2, 3, ..."""
    number, offset = _read_varint(data, offset)
    return number >> 1 ^ -(number & 1), offset


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read an unsigned integer: seven bits per byte, the lowest first; the last byte is below 128."""
    number = shift = 0
    while data[offset] & 128:
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
        number |= (data[offset] & 127) << shift
        offset, shift = offset + 1, shift + 7
    return number | data[offset] << shift, offset + 1
