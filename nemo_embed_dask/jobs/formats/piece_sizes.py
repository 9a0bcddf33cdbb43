"""How many rows of a Parquet row group to read at once, so that they take few bytes when decoded.

A row group whose columns cannot take many is read in pieces of the same size. Of any other the pages are looked
at, whose bounds hold for each row, also where short rows are followed by large ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from ..files.streams import ReadStream
from .page_headers import read_pages

# A piece: so many rows at most, and bytes when decoded.
PIECE_ROWS, PIECE_BYTES = 1024, 1 << 24
# Where only a total is known, rows are taken to be at most so many times the average, or so large a part of a
# piece: in a page, which pyarrow holds whole anyway, and in columns of lists, whose pages do not tell their
# rows.
_TIMES, _PARTS = 2, 64
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
# Encodings in which no value takes more when decoded.
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED", "DELTA_LENGTH_BYTE_ARRAY"}


@dataclass(frozen=True)
class _Bounds:
    """Upper bounds for decoded bytes, stretch by stretch of rows: of the largest row, and of all."""

    firsts: Sequence[int]
    stretches: Sequence[tuple[int, int]]

    def nbytes(self, first: int, rows: int) -> int:
        """Bytes of some consecutive rows, at most."""
        start, stop = bisect_right(self.firsts, first) - 1, bisect_left(self.firsts, first + rows)
        return sum(min(rows * largest, total) for largest, total in self.stretches[start:stop])


class PieceSizes:
    """The sizes of a file's pieces, from what is known of its columns before they are decoded.

    A look at a column's metadata in a row group ends the process where pyarrow cannot understand them (of an
    encrypted column, or in a damaged footer), while to read the column is an error. So some rows come first.
    """

    def __init__(self, source: pq.ParquetFile, handle: ReadStream, leaves: Sequence[int]) -> None:
        schema = source.schema
        self._footer, self._handle = source.metadata, handle
        self._columns = [(leaf, _Column(schema.column(leaf))) for leaf in leaves]
        self._is_flat = all(column.is_flat for _, column in self._columns)
        self._width = sum(column.width for _, column in self._columns)
        self._group, self._count, self._few = -1, 0, 1
        self._bounds: list[_Bounds] | None = None

    def rows(self, group: int, first: int) -> int:
        """How many rows of a row group to read at once, from a first row on; row groups come one by one."""
        if group != self._group:
            self._start(group)
        if first == 0 or first >= self._count:
            return self._few
        if self._bounds is None:
            self._bounds = self._found(self._footer.row_group(group))
            self._handle.stop_caching()
        rows = PIECE_ROWS
        while rows > 1 and sum(one.nbytes(first, rows) for one in self._bounds) > PIECE_BYTES:
            rows //= 2
        return rows

    def _start(self, group: int) -> None:
        """Begin with rows that take few bytes, were each string to be all there is in the row group."""
        footer = self._footer.row_group(group)
        self._group, self._count, self._bounds = group, footer.num_rows, None
        most = PIECE_BYTES // (self._width + footer.total_byte_size + 1) if self._is_flat else 1
        self._few = max(1, min(PIECE_ROWS, most))
        if self._few < self._count:
            self._handle.start_caching()

    def _found(self, footer: pq.RowGroupMetaData) -> list[_Bounds]:
        rows = max(1, footer.num_rows)
        chunks = [_Chunk(column, footer.column(leaf), rows) for leaf, column in self._columns]
        if sum(chunk.most for chunk in chunks) <= PIECE_BYTES:
            return []
        width = sum(chunk.most for chunk in chunks if chunk.is_fixed) // rows
        fixed = _Bounds([0], [(width, width * rows)])
        return [fixed, *(chunk.bounds(self._handle) for chunk in chunks if not chunk.is_fixed)]


class _Column:
    """What a file's schema says of a leaf: whether each row has one value, and its bytes if it is no string."""

    def __init__(self, column: pq.ColumnSchema) -> None:
        kind = column.physical_type
        self.is_flat = column.max_repetition_level == 0
        self.width = 0 if kind == "BYTE_ARRAY" else _WIDTHS.get(kind) or column.length


class _Chunk:
    """A column of a row group."""

    def __init__(self, column: _Column, footer: pq.ColumnChunkMetaData, rows: int) -> None:
        self._column, self._footer, self._rows = column, footer, rows
        self.is_fixed = bool(column.width and column.is_flat)
        self.most = int(footer.num_values * column.width) if column.width else self._most_bytes()

    def _most_bytes(self) -> int:
        """The bytes of all strings, were each to be all that there is where encodings allow it."""
        nbytes = int(self._footer.total_uncompressed_size)
        return nbytes if _PLAIN.issuperset(self._footer.encodings) else nbytes * self._footer.num_values

    def bounds(self, handle: ReadStream) -> _Bounds:
        if self._column.width:
            return self._alike(self.most)
        start = min(self._footer.data_page_offset, self._footer.dictionary_page_offset or 1 << 62)
        data = handle.cached(start, self._footer.total_compressed_size)
        try:
            found = list(read_pages(data, self._footer.compression))
        except ValueError:  # what is wrong is told when it is read
            found = []
        if not found:
            return self._alike(self.most)
        if not self._column.is_flat:
            return self._alike(sum(page.nbytes for page in found))
        firsts = [0]
        for page in found:
            firsts.append(firsts[-1] + page.values)
        stretches = [(min(page.largest, _guess(page.nbytes, page.values)), page.nbytes) for page in found]
        return _Bounds(firsts[:-1], stretches)

    def _alike(self, total: int) -> _Bounds:
        return _Bounds([0], [(_guess(total, self._rows), total)])


def _guess(total: int, rows: int) -> int:
    """The bytes of the largest row, where only their sum is known."""
    return max(PIECE_BYTES // _PARTS, _TIMES * total // max(1, rows))
