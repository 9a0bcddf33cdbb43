"""Tables into one Parquet file, with its record in the footer. Knows no input and no target."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..formats.parquet import leaf_numbers
from ..schema.conversion import empty_table
from .records import Record, footer


@dataclass(frozen=True)
class Layout:
    """How columns are stored.

    ``compression``: the codec of all but ``vectors``, which are noise to a compressor and to a dictionary;
    ``distinct``: columns whose values hardly ever repeat, so that a dictionary would save nothing.
    """

    compression: str
    vectors: tuple[str, ...]
    distinct: tuple[str, ...]


def write_part(sink: BinaryIO, tables: Iterable[pa.Table], record: Record, layout: Layout) -> str:
    """Write tables of one schema, at least one; the record, as it is by then, goes into the footer.

    Returns
    -------
    str
        The SHA-256 of all bytes written.
    """
    summed, writer = _Summed(sink), None
    try:
        for table in tables:
            start = time.perf_counter()
            writer = writer or _writer(summed, table.schema, layout)
            writer.write_table(table)
            record.write_s += time.perf_counter() - start
        assert writer is not None
        writer.add_key_value_metadata(footer(record))
        writer.close()
    except BaseException:
        if writer is not None:
            writer.is_open = False  # a part given up is not to be finished by the garbage collector
        raise
    return summed.hash.hexdigest()


def _writer(sink: _Summed, schema: pa.Schema, layout: Layout) -> pq.ParquetWriter:
    small = [(name, path) for name, path in _leaves(schema) if name not in layout.vectors]
    return pq.ParquetWriter(
        sink, schema, compression=dict.fromkeys((path for _, path in small), layout.compression),
        use_dictionary=[path for name, path in small if name not in layout.distinct],
        write_page_checksum=True,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _leaves(schema: pa.Schema) -> list[tuple[str, str]]:
    """List what Parquet stores of a schema: the column that each leaf is of, and the leaf's own path."""
    empty = BytesIO()
    pq.write_table(empty_table(schema), empty)
    stored = pq.ParquetFile(empty).schema
    return [(name, stored.column(i).path) for name, found in leaf_numbers(schema).items() for i in found]


class _Summed:
    """A file to write into, and the SHA-256 of what was written."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self.hash = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._sink.write(data)

    def tell(self) -> int:
        return self._sink.tell()

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        """Closing is the caller's."""
