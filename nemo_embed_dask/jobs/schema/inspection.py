"""Inspect every input before a job starts: its columns, their types, and its row groups.

Only the footer of a Parquet file is read, and only a sample of a file of JSON lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from ...errors import ColumnError, JobError
from ..files.errors import explain_damage
from ..files.file_names import PARQUET, compression_ending
from ..files.inputs import InputFile, Unit, split_into_units
from ..files.open_input import open_input
from ..formats.parquet import open_parquet
from .hive import add_folder_columns, convert_folder_values, folder_schema
from .json_sampling import SAMPLE_BYTES, sample_budgets, sample_file

# Files that are inspected at the same time.
THREADS = 16
# Seconds to wait before each further attempt to inspect a file.
_PAUSES_S = (0.5, 2.0)
# Assumed size of a compressed file after decompression, as a multiple of its size.
_DECOMPRESSED_FACTOR = 10


@dataclass(frozen=True)
class InputInfo:
    """What is known of an input before it is read: its columns, or why it cannot be read.

    Parameters
    ----------
    file : InputFile
    schema : Schema, optional
        The file's own columns and those of its folders. None if the file was not inspected, or cannot be read.
    problem : str
        Why the file cannot be read.
    group_rows, group_bytes : sequence of int
        Rows and bytes of each row group of a Parquet file.
    integer_ranges : mapping
        For JSON lines: the least and greatest values of each column of integers, within the sample.
    """

    file: InputFile
    schema: pa.Schema | None = None
    problem: str = ""
    group_rows: Sequence[int] | None = None
    group_bytes: Sequence[int] = ()
    integer_ranges: Mapping[str, pa.Array] = field(default_factory=dict)


def inspect_inputs(
    files: Sequence[InputFile],
    text_field: str,
    names: Sequence[str] | None,
    options: dict[str, Any],
    sample_bytes: int = SAMPLE_BYTES,
) -> list[InputInfo]:
    """Inspect every file. A file that cannot be read is reported in its `InputInfo.problem`.

    Parameters
    ----------
    files : sequence of InputFile
    text_field : str
    names : sequence of str, optional
        The columns to copy; all if None. The types of other columns are not inferred from JSON.
    options : dict
        For the file system.
    sample_bytes : int
        How many bytes of JSON lines to sample, over all files.
    """
    folders = folder_schema(files, text_field)
    converted = [convert_folder_values(file, folders) for file in files]
    budgets = _json_budgets(converted, sample_bytes)
    wanted = None if names is None else {text_field, *names}

    def inspect(file: InputFile) -> InputInfo:
        if file.format == PARQUET:
            info = _inspect(file, lambda: _read_footer(file, options))
        elif budgets[file]:
            info = _inspect(file, lambda: _read_sample(file, text_field, wanted, budgets[file], options))
        else:
            info = InputInfo(file)
        if info.schema is None:
            return info
        return replace(info, schema=add_folder_columns(info.schema, file, folders))

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(inspect, converted))


def plan_units(inputs: Sequence[InputInfo], rows_per_part: int) -> list[Unit]:
    """Return the units of all inputs, in order. An input that cannot be read is one unit, which will fail."""
    return [
        unit
        for info in inputs
        for unit in split_into_units(info.file, info.group_rows, info.group_bytes, rows_per_part)
    ]


def _json_budgets(files: Sequence[InputFile], sample_bytes: int) -> dict[InputFile, int]:
    """Return how many bytes of each file of JSON lines to sample."""
    json_files = [file for file in files if file.format != PARQUET]
    sizes = [_estimate_decompressed_size(file) for file in json_files]
    return dict(zip(json_files, sample_budgets(sizes, sample_bytes), strict=True))


def _estimate_decompressed_size(file: InputFile) -> int:
    return file.identity.size * (_DECOMPRESSED_FACTOR if compression_ending(file.address) else 1)


def _inspect(file: InputFile, inspect: Callable[[], InputInfo]) -> InputInfo:
    """Call ``inspect`` and turn its errors into the problem of the file."""
    try:
        return _with_retries(inspect)
    except ColumnError as error:
        # Stored with the file too, so that its unit fails without reading it again.
        return InputInfo(replace(file, problem=str(error)), problem=f"{file.address}: {error}")
    except JobError as error:
        return InputInfo(file, problem=str(error))
    except Exception as error:  # noqa: BLE001 - parsers and decompressors raise errors of many types
        return InputInfo(file, problem=explain_damage(error, file.address))


def _with_retries(inspect: Callable[[], InputInfo]) -> InputInfo:
    for pause in _PAUSES_S:
        try:
            return inspect()
        except JobError as error:
            if not error.temporary:
                raise
        time.sleep(pause)
    return inspect()


def _read_footer(file: InputFile, options: dict[str, Any]) -> InputInfo:
    with open_input(file, options) as handle, open_parquet(handle) as source:
        footer, schema = source.metadata, source.schema_arrow.remove_metadata()
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    rows, sizes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    return InputInfo(file, schema, group_rows=rows, group_bytes=sizes)


def _read_sample(
    file: InputFile, text_field: str, wanted: set[str] | None, max_bytes: int, options: dict[str, Any]
) -> InputInfo:
    schema, ranges = sample_file(file, text_field, wanted, max_bytes, options)
    return InputInfo(file, schema, integer_ranges=ranges)
