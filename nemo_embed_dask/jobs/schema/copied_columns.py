"""Choose the input columns that a job copies into its parts, and their types.

All parts of a job have the same columns. The type of each holds the values of all inputs unchanged. If there
is no such type, the type of most inputs is chosen, and the other inputs fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ...errors import ColumnError, EmbedError, JobError
from ...frames.arrow import is_text
from ..files.file_names import PARQUET
from ..formats.widening import holds
from .common_schema import common_schema
from .inspection import InputInfo
from .value_ranges import ValueRanges


def copied_columns(
    inputs: Sequence[InputInfo],
    text_field: str,
    names: Sequence[str] | None,
    earlier: pa.Schema | None = None,
    options: dict[str, Any] | None = None,
) -> pa.Schema:
    """Return the columns to copy, each of a type that holds the values of all inputs, or of most.

    Parameters
    ----------
    inputs : sequence of InputInfo
    text_field : str
        Inputs without this column, or with another type of it, are ignored.
    names : sequence of str, optional
        The columns to copy; those of all inputs if None.
    earlier : Schema, optional
        The columns of the target's parts, which are kept if they hold the values of these inputs.
    options : dict, optional
        For the file system, if values must be read to choose a type.

    Raises
    ------
    ColumnError, JobError
        If no input has texts, or none has a column that was asked for.
    """
    usable = [info.schema for info in inputs if _is_usable(info, text_field, names)]
    if not usable:
        raise _no_usable_input(inputs, text_field, names)
    found = common_schema(usable, ValueRanges(inputs, options or {}), text_field, names)
    if any(info.file.format != PARQUET for info in inputs):
        found = pa.schema([_null_to_string(field) for field in found])
    if names is not None:
        _check_names_exist(names, usable)
        found = pa.schema([found.field(name) for name in names])
    keeps_earlier = earlier is not None and _still_holds(earlier, found, same_names=names is not None)
    return earlier if keeps_earlier else found


def missing_column_notes(inputs: Sequence[InputInfo], columns: pa.Schema, text_field: str) -> list[str]:
    """Return one note for each column that some Parquet files lack. It is null in the rows of these files.

    A file without the text column fails, and its error says so.
    """
    parquet = [
        (info.file, info.schema.names)
        for info in inputs
        if info.schema is not None and info.file.format == PARQUET and text_field in info.schema.names
    ]
    notes = []
    for name in columns.names:
        without = [file.address for file, names in parquet if name not in names]
        if without:
            notes.append(
                f"{len(without)} {'file has' if len(without) == 1 else 'files have'} no column {name!r}, "
                f"such as {without[0]}: it is null there"
            )
    return notes


def column_problem(schema: pa.Schema, text_field: str, names: Sequence[str] | None) -> str:
    """Return why a file with this schema cannot be used; an empty string if it can.

    The text column must exist and hold strings or only nulls; each column to copy must exist only once.
    """
    counts = Counter(schema.names)
    if not counts[text_field]:
        return f"there is no column {text_field!r}; the columns are {schema.names}. Name the right one"
    if counts[text_field] > 1:
        return f"there are {counts[text_field]} columns named {text_field!r}; rename all but one"
    dtype = schema.field(text_field).type
    value_type = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    if not is_text(value_type) and not pa.types.is_null(value_type):
        return f"column {text_field!r} has type {dtype}, but must have strings; convert it first"
    repeated = [name for name in (schema.names if names is None else names) if counts[name] > 1]
    if repeated:
        return (
            f"there are {counts[repeated[0]]} columns named {repeated[0]!r}; rename all but one, or name the "
            "columns to copy"
        )
    return ""


def _is_usable(info: InputInfo, text_field: str, names: Sequence[str] | None) -> bool:
    return info.schema is not None and not column_problem(info.schema, text_field, names)


def _no_usable_input(inputs: Sequence[InputInfo], text_field: str, names: Sequence[str] | None) -> EmbedError:
    """Return the error of the first input that could be read; else of the first input."""
    for info in inputs:
        if info.schema is not None:
            return ColumnError(f"{info.file.address}: {column_problem(info.schema, text_field, names)}")
    return JobError(f"none of the {len(inputs)} inputs can be read; {inputs[0].problem}")


def _null_to_string(field: pa.Field) -> pa.Field:
    """Return a column of strings for one of type null: JSON does not tell the type of its nulls."""
    return field.with_type(pa.string()) if pa.types.is_null(field.type) else field


def _check_names_exist(names: Sequence[str], schemas: Sequence[pa.Schema]) -> None:
    existing = list(dict.fromkeys(name for schema in dict.fromkeys(schemas) for name in schema.names))
    missing = [name for name in names if name not in existing]
    if missing:
        raise ColumnError(f"there is no column {missing[0]!r} to copy; the columns are {existing}")


def _still_holds(earlier: pa.Schema, now: pa.Schema, *, same_names: bool) -> bool:
    """Return whether parts of an earlier run have all columns of this run, of types that hold their values.

    If ``same_names``, they must have no other columns.
    """
    before, after = set(earlier.names), set(now.names)
    has_names = before == after if same_names else before >= after
    return has_names and all(holds(earlier.field(field.name).type, field.type) for field in now)
