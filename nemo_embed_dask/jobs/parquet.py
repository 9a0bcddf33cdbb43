"""Parquet files opened so that no value is changed: INT96 timestamps, as Spark and Hive write them.

pyarrow reads INT96 as nanoseconds, in which the years before 1677 and after 2262 become others without a word.
Here it is read as microseconds, and again as nanoseconds to see whether that loses any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ColumnError
from .widening import WAYS_OUT


def open_parquet(handle: Any, int96_unit: str = "us") -> pq.ParquetFile:
    """Open a file whose pages' checksums are verified, where they have any."""
    return pq.ParquetFile(
        handle, pre_buffer=False, page_checksum_verification=True, coerce_int96_timestamp_unit=int96_unit
    )


def exact_batches(
    source: pq.ParquetFile, handle: Any, rows: int, groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read row groups in batches; one by one, for pyarrow cannot read some nested types of several at once.

    Raises
    ------
    ColumnError
        A column has INT96 timestamps with nanoseconds.
    """
    batches = _batches(source, rows, groups, names)
    doubtful = [name for name in _int96_columns(source) if name in names]
    if not doubtful:
        yield from batches
        return
    nanoseconds = _batches(open_parquet(handle, "ns"), rows, groups, doubtful)
    for batch, finer in zip(batches, nanoseconds, strict=True):
        for name in doubtful:
            column = finer.column(name)
            if not batch.column(name).cast(column.type, safe=False).equals(column):
                raise ColumnError(
                    f"column {name!r} has INT96 timestamps with nanoseconds, which are not carried over; "
                    f"{WAYS_OUT}"
                )
        yield batch


def _batches(
    source: pq.ParquetFile, rows: int, groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for group in groups:
        yield from source.iter_batches(rows, [group], names, use_threads=False)


def _int96_columns(source: pq.ParquetFile) -> set[str]:
    """The names of columns with INT96 somewhere in them."""
    schema = source.schema
    leaves = (schema.column(i) for i in range(len(schema)))
    return {leaf.path.split(".")[0] for leaf in leaves if leaf.physical_type == "INT96"}
