"""A unit's rows as Arrow tables of bounded size, with their texts. Reads; knows no model and no target.

A value that is no valid Unicode comes out as a string with lone surrogates, which the engine refuses row by
row; so does a line that is no JSON object, as a broken row. Everything else about a row stays as it was.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ColumnError, JobError
from ..frames.arrow import is_text
from .inputs import PARQUET, InputFile, Unit, open_input

# A chunk is what is in memory at once: one window of the engine, or fewer rows where they are large.
CHUNK_ROWS, CHUNK_BYTES = 16_384, 1 << 26
# Rows of the first jsonl file that decide its columns and their types.
SAMPLE_ROWS = 10_000


@dataclass
class Rows:
    """Some consecutive rows: the carried columns, the texts, and position -> why a row cannot be read."""

    table: pa.Table
    texts: list[str | None]
    broken: dict[int, str] = field(default_factory=dict)


def read_schema(file: InputFile, options: dict[str, Any]) -> pa.Schema:
    """A file's columns and types, without metadata.

    Raises
    ------
    Exception
        It cannot be read; each decompressor has errors of its own.
    """
    with open_input(file, options) as handle:
        if file.kind == PARQUET:
            return pq.read_schema(handle).remove_metadata()
        lines = islice(_first_bytes(_without_bom(handle), CHUNK_BYTES), SAMPLE_ROWS)
        sample = [row for row, why in _parsed(lines) if not why]
    if not sample:
        raise ValueError("there is no row in it")
    names = list(dict.fromkeys(name for row in sample for name in row))
    schema = pa.Table.from_pylist([_encodable(row, names) for row in sample]).schema
    return pa.schema([pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in schema])


def read_unit(unit: Unit, text_field: str, carried: pa.Schema, options: dict[str, Any]) -> Iterator[Rows]:
    """The unit's rows, in order, in chunks of bounded size.

    Raises
    ------
    JobError
        The file is unreadable, or of another schema than the job's.
    """
    read = _parquet if unit.file.kind == PARQUET else _jsonl
    try:
        yield from read(unit, text_field, carried, options)
    except ColumnError as error:
        raise JobError(f"{unit.file.address}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # each decompressor has errors of its own
        raise JobError(f"{unit.file.address} cannot be read: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """An error in one line."""
    said = f"{type(error).__name__}: {error}".splitlines() or [type(error).__name__]
    return said[0][:300]


def _parquet(unit: Unit, text_field: str, carried: pa.Schema, options: dict[str, Any]) -> Iterator[Rows]:
    with open_input(unit.file, options) as handle, pq.ParquetFile(handle, pre_buffer=False) as source:
        _check_columns(source.schema_arrow, text_field, carried)
        groups = range(*(unit.groups or (0, source.num_row_groups)))
        names = list(dict.fromkeys([*carried.names, text_field]))
        for group in groups:
            batches = source.iter_batches(_chunk_rows(source, group), [group], names, use_threads=False)
            for batch in batches:
                table = pa.Table.from_batches([batch])
                texts = _texts(table.column(text_field))
                yield Rows(table.select(carried.names).cast(carried), texts)


def _chunk_rows(source: pq.ParquetFile, group: int) -> int:
    about = source.metadata.row_group(group)
    fitting = CHUNK_BYTES * about.num_rows // max(1, about.total_byte_size)
    return int(max(1, min(CHUNK_ROWS, fitting)))


def _check_columns(found: pa.Schema, text_field: str, carried: pa.Schema) -> None:
    missing = [name for name in dict.fromkeys([text_field, *carried.names]) if name not in found.names]
    if missing:
        raise ColumnError(
            f"it lacks the column {missing[0]!r} that the job's first file has (its own are {found.names}); "
            "mend the file, or name the columns to carry over"
        )
    check_text(found, text_field)


def check_text(schema: pa.Schema, text_field: str) -> None:
    """Whether the text column is there and holds strings.

    Raises
    ------
    ColumnError
        It does not.
    """
    if text_field not in schema.names:
        raise ColumnError(
            f"there is no column {text_field!r}; the columns are {schema.names}. Name the right one"
        )
    dtype = schema.field(text_field).type
    if not is_text(dtype.value_type if pa.types.is_dictionary(dtype) else dtype):
        raise ColumnError(f"column {text_field!r} has type {dtype}, and strings are needed; convert it first")


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    try:
        values: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
        values = [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]
    return values


def _jsonl(unit: Unit, text_field: str, carried: pa.Schema, options: dict[str, Any]) -> Iterator[Rows]:
    with open_input(unit.file, options) as handle:
        parsed, seen = _parsed(_without_bom(handle)), False
        while chunk := list(_bounded(parsed)):
            rows = [row for row, _ in chunk]
            if not seen and not any(text_field in row for row in rows):
                raise ColumnError(f"no line of it has a field {text_field!r}")
            seen = True
            broken = {i: why for i, (_, why) in enumerate(chunk) if why}
            texts = [row.get(text_field) for row in rows]
            table = pa.Table.from_pylist([_encodable(row, carried.names) for row in rows], schema=carried)
            yield Rows(table, texts, broken)


def _bounded(parsed: Iterator[tuple[dict[str, Any], str]]) -> Iterator[tuple[dict[str, Any], str]]:
    size = 0
    for row, why in islice(parsed, CHUNK_ROWS):
        yield row, why
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if size > CHUNK_BYTES:
            return


def _without_bom(lines: Iterable[bytes]) -> Iterator[bytes]:
    lines = iter(lines)
    yield from (line.removeprefix(codecs.BOM_UTF8) for line in islice(lines, 1))
    yield from lines


def _first_bytes(handle: Iterable[bytes], most: int) -> Iterator[bytes]:
    for line in handle:
        yield line
        most -= len(line)
        if most < 0:
            return


def _parsed(lines: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], str]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            yield {}, f"no valid JSON: {error}"[:200]
            continue
        yield (row, "") if isinstance(row, dict) else ({}, "no JSON object")


def _encodable(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The row's carried values; what UTF-8 cannot hold is replaced in strings, and their vector is null."""
    return {name: _replaced(row.get(name)) for name in names}


def _replaced(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
