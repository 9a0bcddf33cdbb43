"""Write the tables of a unit as one Parquet file, with its record in the footer."""

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
from .records import Record, footer_metadata


@dataclass(frozen=True)
class Layout:
    """How a part stores its columns.

    Attributes
    ----------
    compression : str
        The codec of all columns but ``vectors``.
    vectors : tuple of str
        Columns of vectors. They are stored uncompressed and without a dictionary: neither saves space.
    distinct : tuple of str
        Columns whose values hardly ever repeat. They are stored without a dictionary.
    """

    compression: str
    vectors: tuple[str, ...]
    distinct: tuple[str, ...]


def write_part(sink: BinaryIO, tables: Iterable[pa.Table], record: Record, layout: Layout) -> str:
    """Write at least one table, all of one schema, and then the record into the footer.

    ``tables`` may update the record while it is iterated; the footer has its last state.

    Returns
    -------
    str
        The SHA-256 of all bytes written.
    """
    hashing, writer = _HashingSink(sink), None
    try:
        for table in tables:
            start = time.perf_counter()
            writer = writer or _writer(hashing, table.schema, layout)
            writer.write_table(table)
            record.write_s += time.perf_counter() - start
        assert writer is not None
        writer.add_key_value_metadata(footer_metadata(record))
        writer.close()
    except BaseException:
        if writer is not None:
            writer.is_open = False  # else the garbage collector would close it and so complete the file
        raise
    return hashing.sha256.hexdigest()


def _writer(sink: _HashingSink, schema: pa.Schema, layout: Layout) -> pq.ParquetWriter:
    others = [(name, path) for name, path in _leaves(schema) if name not in layout.vectors]
    return pq.ParquetWriter(
        sink,
        schema,
        compression=dict.fromkeys((path for _, path in others), layout.compression),
        use_dictionary=[path for name, path in others if name not in layout.distinct],
        write_page_checksum=True,
    )


@lru_cache(maxsize=8)
def _leaves(schema: pa.Schema) -> list[tuple[str, str]]:
    """Return the leaf columns that Parquet stores for a schema: (name of the column, path of the leaf)."""
    empty = BytesIO()
    pq.write_table(empty_table(schema), empty)
    stored = pq.ParquetFile(empty).schema
    return [(name, stored.column(i).path) for name, found in leaf_numbers(schema).items() for i in found]


class _HashingSink:
    """A writable file that computes the SHA-256 of all bytes written."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self.sha256 = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._sink.write(data)

    def tell(self) -> int:
        return self._sink.tell()

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        """Do nothing: the caller closes the file."""
