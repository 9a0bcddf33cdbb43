"""Hive partitioning: columns in the names of folders, such as ``lang=en/year=2024``, and their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from ..files.inputs import InputFile


def folder_schema(files: Sequence[InputFile], text_field: str) -> pa.Schema:
    """Return the folder columns of all files: int32 if every value is an integer, else string.

    pyarrow's datasets choose the same types. A folder column named ``text_field`` is ignored: its value would
    be copied, but not embedded.
    """
    values: dict[str, set[str]] = {}
    for file in files:
        for name, value in file.partition:
            known = values.setdefault(name, set())
            if value is not None:
                known.add(str(value))
    return pa.schema([(name, _infer_type(found)) for name, found in values.items() if name != text_field])


def convert_folder_values(file: InputFile, folders: pa.Schema) -> InputFile:
    """Return the file with the values of its folder columns converted to their types in ``folders``."""
    partition = tuple(
        (name, _convert(value, folders.field(name).type))
        for name, value in file.partition
        if name in folders.names
    )
    return replace(file, partition=partition)


def add_folder_columns(schema: pa.Schema, file: InputFile, folders: pa.Schema) -> pa.Schema:
    """Append the file's folder columns to its own columns. A column that it already has is not added."""
    added = [folders.field(name) for name, _ in file.partition if name not in schema.names]
    return pa.schema([*schema, *added])


def folder_value(file: InputFile, name: str) -> pa.Scalar | None:
    """Return the value of a folder column for all rows of the file; None if there is none."""
    value = dict(file.partition).get(name)
    return None if value is None else pa.scalar(value, pa.int32() if isinstance(value, int) else pa.string())


def _infer_type(values: set[str]) -> pa.DataType:
    try:
        pa.array(sorted(values), pa.string()).cast(pa.int32())
    except pa.ArrowInvalid:
        return pa.string()
    return pa.int32() if values else pa.string()


def _convert(value: str | int | None, dtype: pa.DataType) -> str | int | None:
    return None if value is None else pa.scalar(value, pa.string()).cast(dtype).as_py()
