"""Convert the columns of an input to those of its job, or raise an error that says why that is impossible."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from ...errors import ColumnError
from ...stages.mapping import check_new_columns
from ..files.inputs import Unit
from ..formats.casting import cast_array
from ..formats.widening import ADVICE, are_compatible, holds
from .copied_columns import column_problem
from .hive import folder_value


@dataclass(frozen=True)
class JobColumns:
    """The columns of a job.

    Parameters
    ----------
    text_field : str
    copied : Schema
        The copied columns.
    copy_all : bool
        Whether all columns of the inputs are to be copied; else only those in ``copied``.
    new : tuple of str
        The columns that the stage makes.
    overwrite : bool
        Whether new columns may replace columns of an input.
    """

    text_field: str
    copied: pa.Schema
    copy_all: bool = False
    new: tuple[str, ...] = ()
    overwrite: bool = False


def check_schema(schema: pa.Schema, columns: JobColumns) -> None:
    """Raise ColumnError if the job's columns cannot hold those of a file, or the file has no texts."""
    problem = column_problem(schema, columns.text_field, None if columns.copy_all else columns.copied.names)
    if problem:
        raise ColumnError(problem)
    shared = [name for name in columns.copied.names if name in schema.names]
    # Report incompatible types first: because of them the file was ignored when the job's types were chosen, so
    # other columns may be too narrow only for that reason.
    incompatible = [
        name for name in shared if not are_compatible(columns.copied.field(name).type, schema.field(name).type)
    ]
    for name in [*incompatible, *shared]:
        check_type(name, schema.field(name).type, columns.copied)
    check_no_extra(schema.names, columns)


def check_type(name: str, dtype: pa.DataType, copied: pa.Schema) -> None:
    """Raise ColumnError if the job's column ``name`` cannot hold the values of a type."""
    needed = copied.field(name).type
    if not holds(needed, dtype):
        raise ColumnError(
            f"column {name!r} has type {dtype}, whose values the job's column, {needed}, cannot hold "
            f"unchanged; {ADVICE}"
        )


def check_no_extra(names: Collection[str], columns: JobColumns) -> None:
    """Raise ColumnError if all columns are to be copied, and one of these would be left out or replaced."""
    if not columns.copy_all:
        return
    check_new_columns(columns.new, names, overwrite=columns.overwrite)
    expected = {*columns.copied.names, columns.text_field, *columns.new}
    extra = next((name for name in names if name not in expected), None)
    if extra is not None:
        raise ColumnError(
            f"column {extra!r} is in none of the rows that were sampled when the job was planned; sample more "
            "of them (sample_bytes, --sample-bytes), or name the columns to copy"
        )


def convert_columns(columns: dict[str, pa.Array], rows: int, unit: Unit, copied: pa.Schema) -> pa.Table:
    """Convert columns of a file to the copied columns of the job.

    A column that the file lacks has the value of the file's folder, or is null.
    """
    arrays = [
        _cast(columns[field.name], field)
        if field.name in columns
        else _absent_column(unit, field, rows, copied)
        for field in copied
    ]
    return pa.Table.from_arrays(arrays, schema=copied)


def empty_table(schema: pa.Schema) -> pa.Table:
    """Return a table without rows. Unlike `pyarrow.Schema.empty_table`, it supports every type."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _absent_column(unit: Unit, field: pa.Field, rows: int, copied: pa.Schema) -> pa.Array:
    """Return the value of the file's folder for all rows; else nulls."""
    value = folder_value(unit.file, field.name)
    if value is None:
        return pa.nulls(rows, field.type)
    check_type(field.name, value.type, copied)
    return _cast(pa.repeat(value, rows), field)


def _cast(array: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return cast_array(array, field.type)
    except pa.ArrowInvalid as error:
        raise ColumnError(
            f"column {field.name!r} has a value that the job's column, {field.type}, cannot hold unchanged "
            f"({str(error).splitlines()[0]}); {ADVICE}"
        ) from error
