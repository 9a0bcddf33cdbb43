"""The columns that a job carries over: their names and types, over all inputs. Knows schemas; reads no file.

A job's parts all have the same columns. Each is of the narrowest type that holds the values of all inputs
unchanged; where there is none, the type of most files wins, and the others fail by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from ...errors import ColumnError, EmbedError, JobError
from ...frames.arrow import is_text
from ..files.file_names import PARQUET
from ..formats.widening import holds
from .common import Known, common_schema
from .hive import folder_schema
from .ranges import Ranges
from .survey import Survey


def carried_columns(
    surveys: Sequence[Survey],
    text_field: str,
    names: Sequence[str] | None,
    earlier: pa.Schema | None = None,
    ranges: Ranges | None = None,
) -> pa.Schema:
    """Find the columns to carry over, of types that hold all inputs' values.

    Parameters
    ----------
    surveys : sequence of Survey
    text_field : str
        A file without it, or with another type of it, has no say.
    names : sequence of str, optional
        The columns wanted; those of all files if None.
    earlier : Schema, optional
        What the target's parts have; it stays where it holds what there is now.
    ranges : Ranges, optional
        Reads the range of a column's values, where the type depends on that.

    Raises
    ------
    ColumnError, JobError
        No file has text, or none has a column that is wanted.
    """
    folders = folder_schema(survey.file for survey in surveys)
    whole = [_with_folders(survey, folders) for survey in surveys]
    usable = [schema for schema in whole if schema is not None and not _problem(schema, text_field, names)]
    if not usable:
        raise _unusable(surveys, text_field, names)
    found = common_schema(usable, Known(surveys, ranges or Ranges()), text_field, names)
    if any(survey.file.format != PARQUET for survey in surveys):
        found = pa.schema([_without_null_type(field) for field in found])
    if names is not None:
        _check_wanted(names, usable)
        found = pa.schema([found.field(name) for name in names])
    return earlier if earlier is not None and _still_holds(earlier, found, names is not None) else found


def lacking(surveys: Sequence[Survey], columns: pa.Schema) -> list[str]:
    """Say which columns some Parquet files lack, whose rows have nulls there."""
    having = [
        (s.file.address, {*s.schema.names, *dict(s.file.partition)})
        for s in surveys
        if s.schema is not None and s.file.format == PARQUET
    ]
    notes = []
    for name in columns.names:
        without = [address for address, names in having if name not in names]
        if without:
            notes.append(
                f"{len(without)} files have no column {name!r}, such as {without[0]}: it is null there"
            )
    return notes


def _with_folders(survey: Survey, folders: pa.Schema) -> pa.Schema | None:
    """A file's own columns, and those of its folders' names that it lacks."""
    if survey.schema is None:
        return None
    more = [folders.field(name) for name, _ in survey.file.partition if name not in survey.schema.names]
    return pa.schema([*survey.schema, *more]) if more else survey.schema


def _problem(schema: pa.Schema, text_field: str, names: Sequence[str] | None) -> ColumnError | None:
    try:
        check_columns(schema, text_field, names)
    except ColumnError as error:
        return error
    return None


def check_columns(schema: pa.Schema, text_field: str, names: Sequence[str] | None) -> None:
    """Whether a file has text, and each of its columns that is wanted only once.

    Raises
    ------
    ColumnError
        It has not.
    """
    check_text(schema, text_field)
    counts = Counter(schema.names)
    twice = [name for name in (schema.names if names is None else names) if counts[name] > 1]
    if twice:
        raise ColumnError(
            f"there are {counts[twice[0]]} columns named {twice[0]!r}; rename all but one, or name the "
            "columns to carry over"
        )


def check_text(schema: pa.Schema, text_field: str) -> None:
    """Whether the text column is there and holds strings, or nothing but nulls.

    Raises
    ------
    ColumnError
        It does not.
    """
    if text_field not in schema.names:
        raise ColumnError(
            f"there is no column {text_field!r}; the columns are {schema.names}. Name the right one"
        )
    if schema.names.count(text_field) > 1:
        raise ColumnError(f"there are two columns named {text_field!r}; rename all but one")
    dtype = schema.field(text_field).type
    plain = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    if not is_text(plain) and not pa.types.is_null(plain):
        raise ColumnError(f"column {text_field!r} has type {dtype}, and strings are needed; convert it first")


def _unusable(surveys: Sequence[Survey], text_field: str, names: Sequence[str] | None) -> EmbedError:
    """Why no file can be used: of the first that could be read, else of the first."""
    for survey in surveys:
        if survey.schema is not None:
            return ColumnError(f"{survey.file.address}: {_problem(survey.schema, text_field, names)}")
    return JobError(f"none of the {len(surveys)} inputs can be read; {surveys[0].problem}")


def _without_null_type(field: pa.Field) -> pa.Field:
    """JSON does not tell what its nulls are of; strings can be read everywhere."""
    return field.with_type(pa.string()) if pa.types.is_null(field.type) else field


def _check_wanted(names: Sequence[str], schemas: Sequence[pa.Schema]) -> None:
    there = list(dict.fromkeys(name for schema in dict.fromkeys(schemas) for name in schema.names))
    missing = [name for name in names if name not in there]
    if missing:
        raise ColumnError(f"there is no column {missing[0]!r} to carry over; the columns are {there}")


def _still_holds(earlier: pa.Schema, now: pa.Schema, exactly: bool) -> bool:
    """Whether parts of an earlier run have all columns that there are now, of types that hold their values."""
    same = set(earlier.names) == set(now.names) if exactly else set(earlier.names) >= set(now.names)
    return same and all(holds(earlier.field(field.name).type, field.type) for field in now)
