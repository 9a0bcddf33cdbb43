"""A file's columns in the types of the job, or an error that says why not. Knows no file and no row's text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from ...errors import ColumnError
from ..files.inputs import Unit
from ..formats.casting import converted
from ..formats.widening import WAYS_OUT, are_alike, holds
from .carried import check_columns
from .hive import folder_value


@dataclass(frozen=True)
class Wanted:
    """What to read of a unit.

    ``carried``: the job's columns; ``everything``: whether these are to be all that a file has; ``made``:
    columns that the stage makes; ``overwrite``: whether these may replace a file's own.
    """

    text_field: str
    carried: pa.Schema
    everything: bool = False
    made: frozenset[str] = frozenset()
    overwrite: bool = False


def check_schema(found: pa.Schema, wanted: Wanted) -> None:
    """Check that the job's columns can hold those of a file.

    Raises
    ------
    ColumnError
        They cannot, or the file has no text.
    """
    names = None if wanted.everything else wanted.carried.names
    check_columns(found, wanted.text_field, names)
    common = [name for name in wanted.carried.names if name in found.names]
    # A type that no other could hold is why a file fails; others may only be wider because of that.
    unlike = [n for n in common if not are_alike(wanted.carried.field(n).type, found.field(n).type)]
    for name in [*unlike, *common]:
        check_type(name, found.field(name).type, wanted.carried)
    check_no_more(found.names, wanted)


def check_type(name: str, dtype: pa.DataType, carried: pa.Schema) -> None:
    """Check that a column of the job can hold a type's values.

    Raises
    ------
    ColumnError
        It cannot.
    """
    needed = carried.field(name).type
    if not holds(needed, dtype):
        raise ColumnError(
            f"column {name!r} has type {dtype}, whose values the job's column, {needed}, cannot hold "
            f"unchanged; {WAYS_OUT}"
        )


def check_no_more(names: Iterable[str], wanted: Wanted) -> None:
    """Check that no column of a file would be left out or replaced, where all are to be carried over.

    Raises
    ------
    ColumnError
        One would.
    """
    if not wanted.everything:
        return
    known = {*wanted.carried.names, wanted.text_field} | (wanted.made if wanted.overwrite else set())
    more = next((name for name in names if name not in known), None)
    if more in wanted.made:
        raise ColumnError(
            f"there is a column {more!r} already; choose another name for the new one, name the columns to "
            "carry over, or pass overwrite=True"
        )
    if more is not None:
        raise ColumnError(
            f"column {more!r} is in none of the rows looked at when the job was planned; look at more of them "
            "(sample_bytes, --sample-bytes), or name the columns to carry over"
        )


def fit_columns(columns: dict[str, pa.Array], rows: int, unit: Unit, wanted: Wanted) -> pa.Table:
    """Convert a file's columns to those of the job; one that it lacks is in its folders' names, or null."""
    fitted = [
        _cast(columns[want.name], want) if want.name in columns else _repeated(unit, want, rows, wanted.carried)
        for want in wanted.carried
    ]
    return pa.Table.from_arrays(fitted, schema=wanted.carried)


def _repeated(unit: Unit, want: pa.Field, rows: int, carried: pa.Schema) -> pa.Array:
    """A column from the names of the file's folders, else nulls."""
    value = folder_value(unit.file, want.name)
    if value is None:
        return pa.nulls(rows, want.type)
    check_type(want.name, value.type, carried)
    return _cast(pa.repeat(value, rows), want)


def empty_table(schema: pa.Schema) -> pa.Table:
    """Make a table without rows, also of types that pyarrow's own way has no builder for."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _cast(column: pa.Array, want: pa.Field) -> pa.Array:
    try:
        return converted(column, want.type)
    except pa.ArrowInvalid as error:
        raise ColumnError(
            f"column {want.name!r} has a value that the job's column, {want.type}, cannot hold unchanged "
            f"({str(error).splitlines()[0]}); {WAYS_OUT}"
        ) from error
