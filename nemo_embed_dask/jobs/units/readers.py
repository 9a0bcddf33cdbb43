"""A unit's rows as Arrow tables of bounded size, with their texts. Reads; knows no model and no target.

Rows come in small pieces, bounded by what they take when decoded, and are joined across row groups to slabs:
what is in memory, and embedded, at once. Every value is carried over as it stands; a file that has one which
the job's columns cannot hold fails by name. What is wrong with one row is told with that row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...errors import ColumnError, InputError
from ...frames.arrow import texts
from ..files.errors import damaged
from ..files.inputs import PARQUET, Unit
from ..files.opening import open_input
from ..formats.json_types import MixedValuesError, first_incompatible, to_array
from ..formats.jsonlines import NO_OBJECT_MESSAGE, Line, parse_lines
from ..formats.parquet import read_pieces, open_parquet
from ..formats.widening import ADVICE, holds
from ..schema.conversion import JobColumns, check_no_extra, check_schema, check_type, convert_columns
from ..schema.hive import folder_value

# A slab: rows, and bytes when decoded.
CHUNK_ROWS, CHUNK_BYTES = 16_384, 1 << 26


@dataclass
class Rows:
    """Some consecutive rows: the carried columns, the texts, and position -> why a row cannot be embedded."""

    table: pa.Table
    texts: list[str | None]
    broken: dict[int, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes in memory; characters count as bytes."""
        return int(self.table.nbytes) + sum(len(text) for text in self.texts if text is not None)


def read_unit(unit: Unit, wanted: JobColumns, options: dict[str, Any]) -> Iterator[Rows]:
    """The unit's rows, in order, in slabs of bounded size.

    Raises
    ------
    InputError
        The file is unreadable, or has columns or values that the job's columns cannot hold.
    """
    read = _parquet if unit.file.kind == PARQUET else _jsonl
    try:
        yield from _slabs(read(unit, wanted, options))
    except InputError:
        raise
    except ColumnError as error:
        raise InputError(f"{unit.file.address}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # of a parser or a decompressor: those of file systems are explained already
        raise InputError(damaged(error, unit.file.address)) from error


def _slabs(pieces: Iterable[Rows]) -> Iterator[Rows]:
    """Join pieces until a slab is full; a piece that is larger is a slab alone."""
    held: list[Rows] = []
    rows = size = 0
    for piece in pieces:
        count, nbytes = len(piece.texts), piece.nbytes
        if held and (rows + count > CHUNK_ROWS or size + nbytes > CHUNK_BYTES):
            held, rows, size = [_joined(held)], 0, 0
            yield held.pop()  # held by who takes it only
        held.append(piece)
        rows, size = rows + count, size + nbytes
    if held:
        yield _joined(held)


def _joined(pieces: list[Rows]) -> Rows:
    if len(pieces) == 1:
        return pieces[0]
    joined = Rows(pa.concat_tables([piece.table for piece in pieces]).combine_chunks(), [])
    for piece in pieces:
        joined.broken |= {len(joined.texts) + row: why for row, why in piece.broken.items()}
        joined.texts += piece.texts
    return joined


# ---- Parquet ----------------------------------------------------------------------------------------


def _parquet(unit: Unit, wanted: JobColumns, options: dict[str, Any]) -> Iterator[Rows]:
    with open_input(unit.file, options) as handle, open_parquet(handle) as source:
        schema = source.schema_arrow
        check_schema(schema, wanted)
        groups = list(range(*(unit.groups or (0, source.num_row_groups))))
        there = {*schema.names}
        own = [name for name in wanted.copied.names if name in there]
        names = list(dict.fromkeys([*own, wanted.text_field]))
        for batch in read_pieces(source, handle, groups, names):
            columns = {name: batch.column(name) for name in own}
            table = convert_columns(columns, batch.num_rows, unit, wanted)
            yield Rows(table, texts(batch.column(wanted.text_field)))


# ---- JSON lines -------------------------------------------------------------------------------------


def _jsonl(unit: Unit, wanted: JobColumns, options: dict[str, Any]) -> Iterator[Rows]:
    with open_input(unit.file, options) as handle:
        try:
            yield from _lines(handle, unit, wanted)
        except ColumnError:
            deque(handle, maxlen=0)  # a damaged archive gives odd rows before it tells that it is damaged
            raise


def _lines(handle: Iterable[bytes], unit: Unit, wanted: JobColumns) -> Iterator[Rows]:
    first, has_objects, has_text = 0, False, False
    for piece in parse_lines(handle):
        has_objects = has_objects or any(line.is_object for line in piece)
        has_text = has_text or any(wanted.text_field in line.row for line in piece)
        yield _rows(piece, first, unit, wanted)
        first += len(piece)
    if first and not has_objects:
        raise ColumnError(NO_OBJECT_MESSAGE)
    if first and not has_text:
        raise ColumnError(f"no line of it has a field {wanted.text_field!r}")


def _rows(piece: list[Line], first: int, unit: Unit, wanted: JobColumns) -> Rows:
    rows = [line.row for line in piece]
    broken = {place: line.problem for place, line in enumerate(piece) if line.problem}
    found = [row.get(wanted.text_field) for row in rows]
    for place, text in enumerate(found):
        if text is not None and not isinstance(text, str):
            broken[place] = f"no valid text in {wanted.text_field!r}: {type(text).__name__} instead of a string"
    columns = {}
    there = dict.fromkeys(name for row in rows for name in row)
    try:
        check_no_extra(there, wanted)
    except ColumnError:
        for place, row in enumerate(rows):
            _check_row(row, first + place, wanted)
    for name in (name for name in wanted.copied.names if name in there):
        in_folder = folder_value(unit.file, name)
        absent = None if in_folder is None else in_folder.as_py()
        values = [row.get(name, absent) for row in rows]
        if name == wanted.text_field:
            values = [value if isinstance(value, str) else None for value in values]
        columns[name] = _column(name, values, first, wanted.copied)
    readable = [None if place in broken else text for place, text in enumerate(found)]
    return Rows(convert_columns(columns, len(rows), unit, wanted), readable, dict(sorted(broken.items())))


def _check_row(row: dict[str, Any], place: int, wanted: JobColumns) -> None:
    try:
        check_no_extra(row, wanted)
    except ColumnError as error:
        raise ColumnError(f"row {place}: {error}") from None


def _column(name: str, values: Sequence[Any], first: int, carried: pa.Schema) -> pa.Array:
    """Values in a type of their own, checked against the job's."""
    try:
        column = to_array(values)
    except MixedValuesError as error:
        row = first + error.position
        raise ColumnError(f"column {name!r} {error.reason} (see row {row}); {ADVICE}") from error
    try:
        check_type(name, column.type, carried)
    except ColumnError as error:
        needed = carried.field(name).type
        row = first + first_incompatible(values, lambda dtype: holds(needed, dtype))
        raise ColumnError(f"row {row}: {error}") from None
    return column
