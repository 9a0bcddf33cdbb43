"""Read Parquet files without changing a value, in pieces that take few bytes when decoded.

pyarrow reads INT96 timestamps, which Spark and Hive write, as nanoseconds. Years before 1677 and after 2262 do
not fit and silently become other years. Here such columns are read as microseconds, and a second time as
nanoseconds to detect timestamps that microseconds cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from ...errors import ColumnError
from ..files.streams import ReadStream
from .piece_sizes import PieceSizes
from .widening import ADVICE


def open_parquet(handle: Any, int96_unit: str = "us") -> pq.ParquetFile:
    """Open a Parquet file. The checksums of its pages are verified, where it has any."""
    return pq.ParquetFile(
        handle, pre_buffer=False, page_checksum_verification=True, coerce_int96_timestamp_unit=int96_unit
    )


def read_pieces(
    source: pq.ParquetFile, handle: ReadStream, groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read some columns of some row groups, and yield them in pieces of bounded size.

    Row groups are read one by one: pyarrow cannot read some nested types from several at once.

    Raises
    ------
    ColumnError
        If a column is encrypted, or has INT96 timestamps with nanoseconds.
    """
    columns = {name: leaves for name, leaves in leaf_numbers(source.schema_arrow).items() if name in names}
    leaves = _join(columns.values())
    int96_leaves = _join(leaves for leaves in columns.values() if _has_int96(source, leaves))
    _check_not_encrypted(source, handle, groups[:1], columns)
    sizes = PieceSizes(source, handle, leaves)
    in_nanoseconds = open_parquet(handle, "ns") if int96_leaves else None
    for group in groups:
        rows = partial(sizes.rows, group)
        pieces = _read_group(source, group, leaves, rows)
        if in_nanoseconds is None:
            yield from pieces
        else:
            yield from _check_int96(pieces, _read_group(in_nanoseconds, group, int96_leaves, rows))


def _read_group(
    source: pq.ParquetFile, group: int, leaves: list[int], rows: Callable[[int], int]
) -> Iterator[pa.RecordBatch]:
    """Read a row group in pieces; ``rows`` returns the size of the piece that starts at a row.

    Columns are chosen by the numbers of their leaves, because names with dots are ambiguous.
    """
    first = 0
    for piece in source.reader.iter_batches(rows(0), [group], leaves, use_threads=False):
        yield piece
        first += piece.num_rows
        source.reader.set_batch_size(rows(first))  # of the next piece


# ---- columns ----------------------------------------------------------------------------------------


def leaf_numbers(schema: pa.Schema) -> dict[str, range]:
    """Return the numbers of the leaves in which Parquet stores each column.

    Example: of ``id: int64, name: struct<first: string, last: string>``, ``id`` is leaf 0 and ``name`` leaves 1
    and 2. The paths of leaves do not show their column, because names may contain dots.
    """
    numbers, first = {}, 0
    for field in schema:
        stop = first + _count_leaves(field.type)
        numbers[field.name] = range(first, stop)
        first = stop
    return numbers


def _count_leaves(dtype: pa.DataType) -> int:
    if isinstance(dtype, pa.BaseExtensionType):
        return _count_leaves(dtype.storage_type)
    return sum(_count_leaves(dtype.field(i).type) for i in range(dtype.num_fields)) or 1


def _join(ranges: Iterable[range]) -> list[int]:
    return [number for numbers in ranges for number in numbers]


# ---- encryption -------------------------------------------------------------------------------------


def _has_signature(source: pq.ParquetFile, handle: ReadStream) -> bool:
    """Return whether a signature follows the footer.

    That is so in files with encrypted columns and a plain footer.
    """
    handle.seek(-8, 2)
    return bool(int.from_bytes(handle.read(4), "little") != source.metadata.serialized_size)


def _check_not_encrypted(
    source: pq.ParquetFile, handle: ReadStream, groups: Sequence[int], columns: dict[str, range]
) -> None:
    """Raise ColumnError if a column is encrypted, by reading its first row if the file has a signature."""
    if not _has_signature(source, handle):
        return
    for name, leaves in columns.items():
        try:
            for group in groups:
                next(source.reader.iter_batches(1, [group], list(leaves), use_threads=False), None)
        except OSError as error:
            raise ColumnError(
                f"column {name!r} is encrypted ({str(error).splitlines()[0]}); decrypt the file, or leave the "
                "column out of columns"
            ) from error


# ---- INT96 ------------------------------------------------------------------------------------------


def _has_int96(source: pq.ParquetFile, leaves: range) -> bool:
    return any(source.schema.column(leaf).physical_type == "INT96" for leaf in leaves)


def _check_int96(
    pieces: Iterator[pa.RecordBatch], in_nanoseconds: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield pieces read with microseconds. Raise ColumnError if they differ from those read with nanoseconds.

    The pieces with nanoseconds have the INT96 columns only.
    """
    for piece, fine_piece in zip(pieces, in_nanoseconds, strict=True):
        for name in fine_piece.schema.names:
            pairs = zip(_timestamps(piece.column(name)), _timestamps(fine_piece.column(name)), strict=True)
            if not all(coarse.cast(fine.type, safe=False).equals(fine) for coarse, fine in pairs):
                raise ColumnError(
                    f"column {name!r} has INT96 timestamps with nanoseconds, which cannot be copied; {ADVICE}"
                )
        yield piece


def _timestamps(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the arrays of timestamps in an array, at any depth.

    Other values are not compared, because NaN does not equal itself.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if types.is_timestamp(array.type):
        yield array
    elif types.is_nested(array.type):
        for child in _children(array):
            yield from _timestamps(child)


def _children(array: pa.Array) -> list[pa.Array]:
    if types.is_map(array.type):  # pyarrow cannot flatten maps
        return [array.keys, array.items]
    children = array.flatten()
    return children if isinstance(children, list) else [children]
