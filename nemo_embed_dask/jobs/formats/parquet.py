"""Parquet files opened and read so that no value is changed, in pieces of few bytes.

pyarrow reads INT96 timestamps, as Spark and Hive write them, as nanoseconds, in which the years before 1677 and
after 2262 become others without a word. Here they are read as microseconds, and again as nanoseconds to see
whether that loses any.
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
    """Open a file whose pages' checksums are verified, where they have any."""
    return pq.ParquetFile(
        handle, pre_buffer=False, page_checksum_verification=True, coerce_int96_timestamp_unit=int96_unit
    )


def read_pieces(
    source: pq.ParquetFile, handle: ReadStream, groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read row groups in batches; one by one, for pyarrow cannot read some nested types of several at once.

    Raises
    ------
    ColumnError
        A column is encrypted, or has INT96 timestamps with nanoseconds.
    """
    places = {name: found for name, found in leaf_numbers(source.schema_arrow).items() if name in names}
    leaves = _joined(places.values())
    doubtful = _joined(found for found in places.values() if _has_int96(source, found))
    _check_not_encrypted(source, handle, groups[:1], places)
    pieces = PieceSizes(source, handle, leaves)
    finer = open_parquet(handle, "ns") if doubtful else None
    for group in groups:
        rows = partial(pieces.rows, group)
        batches = _batches(source, group, leaves, rows)
        yield from _checked(batches, _batches(finer, group, doubtful, rows)) if finer else batches


def _batches(
    source: pq.ParquetFile, group: int, leaves: list[int], rows: Callable[[int], int]
) -> Iterator[pa.RecordBatch]:
    """Read some columns, by the numbers of their leaves: names with dots in them may mean several."""
    first = 0
    for batch in source.reader.iter_batches(rows(0), [group], leaves, use_threads=False):
        yield batch
        first += batch.num_rows
        source.reader.set_batch_size(rows(first))  # of the next one


# ---- columns ----------------------------------------------------------------------------------------


def leaf_numbers(schema: pa.Schema) -> dict[str, range]:
    """Number the leaves that Parquet stores of each column. Their paths do not tell: names may have dots."""
    found, first = {}, 0
    for field in schema:
        stop = first + _leaf_count(field.type)
        found[field.name], first = range(first, stop), stop
    return found


def _leaf_count(dtype: pa.DataType) -> int:
    if isinstance(dtype, pa.BaseExtensionType):
        return _leaf_count(dtype.storage_type)
    return sum(_leaf_count(dtype.field(i).type) for i in range(dtype.num_fields)) or 1


def _joined(places: Iterable[range]) -> list[int]:
    return [leaf for place in places for leaf in place]


# ---- encryption -------------------------------------------------------------------------------------


def _is_signed(source: pq.ParquetFile, handle: ReadStream) -> bool:
    """Whether a signature follows the footer, as it does where columns are encrypted and the footer is not."""
    handle.seek(-8, 2)
    return bool(int.from_bytes(handle.read(4), "little") != source.metadata.serialized_size)


def _check_not_encrypted(
    source: pq.ParquetFile, handle: ReadStream, groups: Sequence[int], places: dict[str, range]
) -> None:
    for name, leaves in places.items() if _is_signed(source, handle) else ():
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


def _checked(batches: Iterator[pa.RecordBatch], finer: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches with microseconds, compared with those with nanoseconds of some of their columns."""
    for batch, nanoseconds in zip(batches, finer, strict=True):
        for name in nanoseconds.schema.names:
            pairs = zip(_times(batch.column(name)), _times(nanoseconds.column(name)), strict=True)
            if not all(coarse.cast(fine.type, safe=False).equals(fine) for coarse, fine in pairs):
                raise ColumnError(
                    f"column {name!r} has INT96 timestamps with nanoseconds, which are not carried over; "
                    f"{ADVICE}"
                )
        yield batch


def _times(array: pa.Array) -> Iterator[pa.Array]:
    """The timestamps in an array, at any depth; other values, such as NaN, may not even equal themselves."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if types.is_timestamp(array.type):
        yield array
    elif types.is_nested(array.type):
        # pyarrow cannot flatten maps
        inner = [array.keys, array.items] if types.is_map(array.type) else array.flatten()
        for part in inner if isinstance(inner, list) else [inner]:
            yield from _times(part)
