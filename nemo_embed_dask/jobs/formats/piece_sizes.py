"""Choose how many rows of a Parquet row group to read at once, so that they take few bytes when decoded.

Such rows are a *piece*. If a row group is small when decoded, all pieces have the same number of rows.
Otherwise the headers of its pages bound the size of each row, also where short rows are followed by large ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import pyarrow.parquet as pq

from ..files.streams import ReadStream
from .page_headers import Page, read_pages

# Largest piece: rows, and bytes when decoded.
PIECE_ROWS, PIECE_BYTES = 1024, 1 << 24
# Where only the total size of some rows is known, the largest row is assumed to have at most
# _LARGEST_TO_AVERAGE times the average, or 1 / _SMALL_PART of PIECE_BYTES if that is more. Only the total is
# known within a page, which pyarrow decodes as a whole anyway, and in columns of lists, whose page headers do
# not have the number of rows.
_LARGEST_TO_AVERAGE, _SMALL_PART = 2, 64
# Decoded bytes of a value of each physical type of fixed size.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
# Encodings in which values are not larger when decoded.
_PLAIN_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "DELTA_LENGTH_BYTE_ARRAY"}


class _Run(NamedTuple):
    """Upper bounds for the decoded bytes of consecutive rows: of the largest row, and of all rows."""

    first_row: int
    largest: int
    total: int


_first_row = attrgetter("first_row")


def _bound_bytes(runs: Sequence[_Run], first: int, rows: int) -> int:
    """Return an upper bound for the decoded bytes of some rows. The runs are in order and cover all rows."""
    start = bisect_right(runs, first, key=_first_row) - 1
    stop = bisect_left(runs, first + rows, key=_first_row)
    return sum(min(rows * run.largest, run.total) for run in runs[start:stop])


class PieceSizes:
    """The sizes of a file's pieces, from what is known of its columns before they are decoded.

    Where pyarrow does not understand the metadata of a column (an encrypted column, a damaged footer),
    accessing it crashes the process, but reading the column only raises an error. So the first piece of each
    row group is read before the metadata of its columns is accessed.
    """

    def __init__(self, source: pq.ParquetFile, handle: ReadStream, leaves: Sequence[int]) -> None:
        schema = source.schema
        self._footer, self._handle = source.metadata, handle
        self._columns = [(leaf, _Column(schema.column(leaf))) for leaf in leaves]
        self._is_flat = all(column.is_flat for _, column in self._columns)
        self._width = sum(column.width for _, column in self._columns)
        self._group, self._group_rows, self._first_piece = -1, 0, 1
        # The lists of runs; None until the first piece has been read, empty if the row group is small.
        self._runs: list[Sequence[_Run]] | None = None

    def rows(self, group: int, first: int) -> int:
        """Return how many rows to read from row ``first`` of a row group. Call it in the order of rows."""
        if group != self._group:
            self._start_group(group)
        if first == 0 or first >= self._group_rows:
            return self._first_piece
        if self._runs is None:
            self._runs = self._find_runs(self._footer.row_group(group))
            self._handle.stop_caching()
        rows = PIECE_ROWS
        while rows > 1 and sum(_bound_bytes(runs, first, rows) for runs in self._runs) > PIECE_BYTES:
            rows //= 2
        return rows

    def _start_group(self, group: int) -> None:
        """Choose a first piece that is small even if each row is as large as the whole row group."""
        footer = self._footer.row_group(group)
        self._group, self._group_rows, self._runs = group, footer.num_rows, None
        rows = PIECE_BYTES // (self._width + footer.total_byte_size + 1) if self._is_flat else 1
        self._first_piece = max(1, min(PIECE_ROWS, rows))
        if self._first_piece < self._group_rows:
            self._handle.start_caching()

    def _find_runs(self, footer: pq.RowGroupMetaData) -> list[Sequence[_Run]]:
        """Return one list of runs for all columns of fixed size, and one for each other column.

        If the whole row group is small, return an empty list: then every piece has `PIECE_ROWS` rows.
        """
        rows = max(1, footer.num_rows)
        chunks = [_Chunk(column, footer.column(leaf), rows) for leaf, column in self._columns]
        if sum(chunk.max_bytes for chunk in chunks) <= PIECE_BYTES:
            return []
        width = sum(chunk.max_bytes for chunk in chunks if chunk.is_fixed) // rows
        fixed = [_Run(0, width, width * rows)]
        return [fixed, *(chunk.runs(self._handle) for chunk in chunks if not chunk.is_fixed)]


class _Column:
    """What the schema of a file shows of a leaf.

    ``is_flat`` is whether each row has one value; ``width`` is the bytes of a value, 0 for strings.
    """

    def __init__(self, column: pq.ColumnSchema) -> None:
        kind = column.physical_type
        self.is_flat = column.max_repetition_level == 0
        self.width = 0 if kind == "BYTE_ARRAY" else _WIDTHS.get(kind) or column.length


class _Chunk:
    """A leaf in one row group.

    ``is_fixed`` is whether all rows have the same size; ``max_bytes`` is an upper bound for all of them.
    """

    def __init__(self, column: _Column, footer: pq.ColumnChunkMetaData, rows: int) -> None:
        self._column, self._footer, self._rows = column, footer, rows
        self.is_fixed = bool(column.width and column.is_flat)
        self.max_bytes = int(footer.num_values * column.width) if column.width else self._max_string_bytes()

    def runs(self, handle: ReadStream) -> Sequence[_Run]:
        """Return a run for each page; one run for all rows if the pages are not known."""
        if self._column.width:
            return self._one_run(self.max_bytes)
        pages = self._read_pages(handle)
        if not pages:
            return self._one_run(self.max_bytes)
        if not self._column.is_flat:
            return self._one_run(sum(page.nbytes for page in pages))
        runs, first = [], 0
        for page in pages:
            largest = min(page.largest, _estimate_largest(page.nbytes, page.values))
            runs.append(_Run(first, largest, page.nbytes))
            first += page.values
        return runs

    def _max_string_bytes(self) -> int:
        """Return a bound for all strings. In some encodings each value may be as large as all encoded bytes."""
        nbytes = int(self._footer.total_uncompressed_size)
        is_plain = _PLAIN_ENCODINGS.issuperset(self._footer.encodings)
        return nbytes if is_plain else nbytes * self._footer.num_values

    def _read_pages(self, handle: ReadStream) -> list[Page]:
        """Read the page headers from the bytes that pyarrow fetched for the first piece."""
        start = min(self._footer.data_page_offset, self._footer.dictionary_page_offset or 1 << 62)
        data = handle.cached(start, self._footer.total_compressed_size)
        try:
            return list(read_pages(data, self._footer.compression))
        except ValueError:  # pyarrow will report the damage when it reads them
            return []

    def _one_run(self, total: int) -> Sequence[_Run]:
        return [_Run(0, _estimate_largest(total, self._rows), total)]


def _estimate_largest(total: int, rows: int) -> int:
    """Return the assumed bytes of the largest row if only the total is known."""
    return max(PIECE_BYTES // _SMALL_PART, _LARGEST_TO_AVERAGE * total // max(1, rows))
