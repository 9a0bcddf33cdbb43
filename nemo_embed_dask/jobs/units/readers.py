"""Read a unit's rows as slabs: Arrow tables of bounded size, with their texts.

Formats are read in small pieces, whose size is bounded by the memory that they take when decoded. Pieces are
joined to slabs, also across row groups. Every value is copied unchanged; a file with a value that the job's
columns cannot hold fails. A problem with one row is reported with that row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...errors import ColumnError, InputError
from ...frames.arrow import read_texts
from ..files.errors import explain_damage
from ..files.file_names import PARQUET
from ..files.inputs import Unit
from ..files.open_input import open_input
from ..formats.json_types import MixedValuesError, first_incompatible, to_array
from ..formats.jsonlines import NO_OBJECT_MESSAGE, Line, parse_lines
from ..formats.parquet import open_parquet, read_pieces
from ..formats.widening import ADVICE, holds
from ..schema.conversion import JobColumns, check_no_extra, check_schema, check_type, convert_columns
from ..schema.hive import folder_value

# Largest slab: rows, and bytes when decoded.
SLAB_ROWS, SLAB_BYTES = 16_384, 1 << 26


@dataclass
class Rows:
    """Consecutive rows of an input: a piece or a slab.

    Attributes
    ----------
    table : pyarrow.Table
        The copied columns.
    texts : list
        The text of each row, or None.
    bad_rows : dict
        Rows that cannot be embedded: position -> reason.
    """

    table: pa.Table
    texts: list[str | None]
    bad_rows: dict[int, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes in memory; a character counts as one byte."""
        return int(self.table.nbytes) + sum(len(text) for text in self.texts if text is not None)

    def divide(self, rows: int) -> Iterator[Rows]:
        """Yield the rows in pieces of at most ``rows`` rows, at least one piece."""
        for start in range(0, max(1, len(self.texts)), rows):
            stop = start + rows
            bad = {row - start: why for row, why in self.bad_rows.items() if start <= row < stop}
            yield Rows(self.table.slice(start, rows), self.texts[start:stop], bad)


def read_unit(unit: Unit, job_columns: JobColumns, options: dict[str, Any]) -> Iterator[Rows]:
    """Yield the unit's rows, in order, as slabs.

    Raises
    ------
    InputError
        The file is unreadable, or has columns or values that the job's columns cannot hold.
    """
    read = _read_parquet if unit.file.format == PARQUET else _read_jsonl
    try:
        yield from _slabs(read(unit, job_columns, options))
    except (InputError, MemoryError):
        raise
    except ColumnError as error:
        raise InputError(f"{unit.file.address}: {error}") from error
    except Exception as error:  # of a parser or a decompressor; `open_input` explains those of file systems
        raise InputError(explain_damage(error, unit.file.address)) from error


def _slabs(pieces: Iterable[Rows]) -> Iterator[Rows]:
    """Join pieces until a slab is full; a piece that is larger becomes a slab by itself."""
    pending: list[Rows] = []
    rows = size = 0
    for piece in pieces:
        piece_rows, piece_size = len(piece.texts), piece.nbytes
        if pending and (rows + piece_rows > SLAB_ROWS or size + piece_size > SLAB_BYTES):
            yield _join_and_clear(pending)
            rows = size = 0
        pending.append(piece)
        rows, size = rows + piece_rows, size + piece_size
    if pending:
        yield _join_and_clear(pending)


def _join_and_clear(pieces: list[Rows]) -> Rows:
    """Join pieces to a slab, and empty the list, so that it does not keep the slab in memory."""
    slab = pieces[0] if len(pieces) == 1 else _joined(pieces)
    pieces.clear()
    return slab


def _joined(pieces: list[Rows]) -> Rows:
    joined = Rows(pa.concat_tables([piece.table for piece in pieces]).combine_chunks(), [])
    for piece in pieces:
        joined.bad_rows |= {len(joined.texts) + row: why for row, why in piece.bad_rows.items()}
        joined.texts += piece.texts
    return joined


# ---- Parquet ----------------------------------------------------------------------------------------


def _read_parquet(unit: Unit, job_columns: JobColumns, options: dict[str, Any]) -> Iterator[Rows]:
    with open_input(unit.file, options) as handle, open_parquet(handle) as source:
        schema = source.schema_arrow
        check_schema(schema, job_columns)
        groups = list(range(*(unit.row_groups or (0, source.num_row_groups))))
        in_file = {*schema.names}
        copied = [name for name in job_columns.copied.names if name in in_file]
        names = list(dict.fromkeys([*copied, job_columns.text_field]))
        for batch in read_pieces(source, handle, groups, names):
            columns = {name: batch.column(name) for name in copied}
            table = convert_columns(columns, batch.num_rows, unit, job_columns.copied)
            yield Rows(table, read_texts(batch.column(job_columns.text_field)))


# ---- JSON lines -------------------------------------------------------------------------------------


def _read_jsonl(unit: Unit, job_columns: JobColumns, options: dict[str, Any]) -> Iterator[Rows]:
    with open_input(unit.file, options) as handle:
        try:
            yield from _jsonl_pieces(handle, unit, job_columns)
        except ColumnError:
            # A damaged archive may give wrong rows before its end shows the damage: report the damage instead.
            deque(handle, maxlen=0)
            raise


def _jsonl_pieces(handle: Iterable[bytes], unit: Unit, job_columns: JobColumns) -> Iterator[Rows]:
    first, has_objects, has_text = 0, False, False
    for lines in parse_lines(handle):
        has_objects = has_objects or any(line.is_object for line in lines)
        has_text = has_text or any(job_columns.text_field in line.row for line in lines)
        yield _jsonl_piece(lines, first, unit, job_columns)
        first += len(lines)
    if first and not has_objects:
        raise ColumnError(NO_OBJECT_MESSAGE)
    if first and not has_text:
        raise ColumnError(f"no line has a field {job_columns.text_field!r}")


def _jsonl_piece(lines: list[Line], first: int, unit: Unit, job_columns: JobColumns) -> Rows:
    """Return parsed lines as rows; the first of them is row ``first`` of the input."""
    rows = [line.row for line in lines]
    _check_fields(rows, first, job_columns)
    values = [row.get(job_columns.text_field) for row in rows]
    bad_rows = _bad_rows(lines, values, job_columns.text_field)
    in_piece = {name for row in rows for name in row}
    columns = {
        name: _jsonl_column(name, rows, first, unit, job_columns)
        for name in job_columns.copied.names
        if name in in_piece
    }
    readable = [None if position in bad_rows else text for position, text in enumerate(values)]
    return Rows(convert_columns(columns, len(rows), unit, job_columns.copied), readable, bad_rows)


def _check_fields(rows: list[dict[str, Any]], first: int, job_columns: JobColumns) -> None:
    """Raise a `ColumnError` that names the row if a row has an unexpected field."""
    try:
        check_no_extra(dict.fromkeys(name for row in rows for name in row), job_columns)
    except ColumnError:
        for position, row in enumerate(rows):
            try:
                check_no_extra(row, job_columns)
            except ColumnError as error:
                raise ColumnError(f"row {first + position}: {error}") from None


def _bad_rows(lines: list[Line], values: Sequence[Any], text_field: str) -> dict[int, str]:
    """Return why lines cannot be embedded: position -> reason, in order."""
    bad_rows = {}
    for position, (line, value) in enumerate(zip(lines, values, strict=True)):
        if value is not None and not isinstance(value, str):
            bad_rows[position] = f"not valid text in {text_field!r}: {type(value).__name__} instead of a string"
        elif line.problem:
            bad_rows[position] = line.problem
    return bad_rows


def _jsonl_column(
    name: str, rows: list[dict[str, Any]], first: int, unit: Unit, job_columns: JobColumns
) -> pa.Array:
    """Return one field of all rows. Rows that lack it have the value in the folder's name, or null.

    Raises
    ------
    ColumnError
        The job's column cannot hold the values; the error names the first such row.
    """
    in_folder = folder_value(unit.file, name)
    absent = None if in_folder is None else in_folder.as_py()
    values = [row.get(name, absent) for row in rows]
    if name == job_columns.text_field:
        values = [value if isinstance(value, str) else None for value in values]
    try:
        column = to_array(values)
    except MixedValuesError as error:
        row = first + error.position
        raise ColumnError(f"column {name!r} {error.reason} (see row {row}); {ADVICE}") from error
    try:
        check_type(name, column.type, job_columns.copied)
    except ColumnError as error:
        needed = job_columns.copied.field(name).type
        row = first + first_incompatible(values, lambda dtype: holds(needed, dtype))
        raise ColumnError(f"row {row}: {error}") from None
    return column
