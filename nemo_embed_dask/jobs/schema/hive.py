"""Columns in the names of folders, as ``lang=en/year=2024``, and their types. Knows no file's content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from ..files.inputs import InputFile


def with_types(files: Sequence[InputFile], text_field: str) -> list[InputFile]:
    """Convert a folder column to integers if all of its values are integers, as pyarrow's dataset does.

    A folder named like the text column is ignored: its value would be carried over, but not embedded.
    """
    types = {field.name: field.type for field in folder_schema(files) if field.name != text_field}

    def typed(file: InputFile) -> InputFile:
        values = ((name, value) for name, value in file.partition if name in types)
        return replace(file, partition=tuple((name, _typed(value, types[name])) for name, value in values))

    return [typed(file) for file in files]


def folder_schema(files: Iterable[InputFile]) -> pa.Schema:
    """Find the types of all folder columns: int32 where every value is one, else string."""
    values: dict[str, set[str]] = {}
    for file in files:
        for name, value in file.partition:
            values.setdefault(name, set()).update(() if value is None else (str(value),))
    return pa.schema([(name, _type(found)) for name, found in values.items()])


def folder_value(file: InputFile, name: str) -> pa.Scalar | None:
    """Read a column's value from the names of a file's folders; None where they have none."""
    value = dict(file.partition).get(name)
    return None if value is None else pa.scalar(value, pa.int32() if isinstance(value, int) else pa.string())


def _type(values: set[str]) -> pa.DataType:
    try:
        pa.array(sorted(values), pa.string()).cast(pa.int32())
    except pa.ArrowInvalid:
        return pa.string()
    return pa.int32() if values else pa.string()


def _typed(value: str | int | None, dtype: pa.DataType) -> str | int | None:
    return value if value is None else pa.scalar(value, pa.string()).cast(dtype).as_py()
