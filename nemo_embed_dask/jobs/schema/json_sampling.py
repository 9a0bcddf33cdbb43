"""Infer the columns of a file of JSON lines from its first rows.

JSON lines have no schema: only values show the types. Rows after the sample must fit these types, or their file
fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from ...errors import ColumnError, JobError
from ..files.inputs import InputFile
from ..files.open_input import open_input
from ..formats.json_types import first_incompatible, infer_type
from ..formats.jsonlines import NO_OBJECT_MESSAGE, estimate_object_bytes, parse_lines
from ..formats.widening import ADVICE, IncompatibleTypesError, are_compatible, widen

# Bytes of JSON lines to sample, over all files.
SAMPLE_BYTES = 1 << 26
# Smallest sample of a file, unless the file is smaller. If the total does not allow this for all files, fewer
# files are sampled.
MIN_FILE_BYTES = 1 << 18
# Largest line, in bytes of its Python objects, that is parsed on the client. Workers have a memory limit.
_MAX_LINE_BYTES = 1 << 28


def sample_budgets(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many bytes of each file to sample: 0 for a file that is not sampled.

    All sampled files have the same budget. Small files do not use all of theirs; large files share the rest.
    Example: of a total of 100 bytes, files of 10, 500 and 500 bytes may use 45 each: 10 + 45 + 45 = 100.

    If a large file would get less than `MIN_FILE_BYTES`, only every second (or third, ...) file is sampled.
    """
    least = [min(size, MIN_FILE_BYTES) for size in sizes]
    # The smallest step that fits; if none does, only the first file is sampled.
    step = next((step for step in range(1, len(sizes)) if sum(least[::step]) <= total), len(sizes) or 1)
    budget = max(1, _equal_budget(sizes[::step], total))
    return [0 if i % step else budget for i in range(len(sizes))]


def _equal_budget(sizes: Sequence[int], total: int) -> int:
    """Return the budget per file with which all files together use ``total`` bytes."""
    left, budget = total, 0
    for i, size in enumerate(sorted(sizes)):
        budget = max(left // (len(sizes) - i), budget)
        left -= min(size, budget)
    return budget


def sample_file(
    file: InputFile, text_field: str, wanted: set[str] | None, max_bytes: int, options: dict[str, Any]
) -> tuple[pa.Schema, dict[str, pa.Array]]:
    """Infer the columns of a file from its first rows.

    Returns
    -------
    schema : Schema
        All columns; those that are not wanted have the type null.
    integer_ranges : dict
        The least and greatest values of each wanted column of integers, piece by piece.

    Raises
    ------
    ColumnError
        If a wanted column has values that no type holds.
    JobError
        If no JSON object was found.
    """
    columns = _SampledColumns(text_field, wanted)
    has_objects = False
    with open_input(file, options) as handle:
        for piece in parse_lines(_first_lines(handle, max_bytes)):
            has_objects = has_objects or any(line.is_object for line in piece)
            columns.add([line.row for line in piece])
    if not has_objects:
        reason = "it has no rows, or its first row is too large to inspect"
        raise JobError(f"{file.address}: {NO_OBJECT_MESSAGE if columns.rows else reason}")
    return pa.schema(list(columns.types.items())), columns.integer_ranges()


def _first_lines(lines: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the first lines of a file. Stop before a line that is too large to parse on the client."""
    left = max_bytes
    for line in lines:
        if estimate_object_bytes(line) > _MAX_LINE_BYTES:
            return
        yield line
        left -= len(line)
        if left < 0:
            return


class _SampledColumns:
    """The columns of the rows that were sampled so far."""

    def __init__(self, text_field: str, wanted: set[str] | None) -> None:
        self._text_field, self._wanted = text_field, wanted
        self._extremes: dict[str, set[int]] = {}
        self.rows = 0
        self.types: dict[str, pa.DataType] = {}

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Widen the types to hold further rows. Raise ColumnError if no type holds a wanted column."""
        for name in dict.fromkeys(name for row in rows for name in row):
            before = self.types.setdefault(name, pa.null())
            if self._wanted is None or name in self._wanted:
                values = [row.get(name) for row in rows]
                self._extremes.setdefault(name, set()).update(_extremes(values))
                self.types[name] = self._widened(name, before, values)
        self.rows += len(rows)

    def integer_ranges(self) -> dict[str, pa.Array]:
        """Return the extremes of each column of integers, in the type of the column."""
        return {
            name: pa.array([*values], self.types[name])
            for name, values in self._extremes.items()
            if pa.types.is_integer(self.types[name])
        }

    def _widened(self, name: str, before: pa.DataType, values: list[Any]) -> pa.DataType:
        try:
            if name == self._text_field:
                return _text_type(before, values)
            return widen(before, infer_type(values))
        except IncompatibleTypesError as error:
            row = self.rows + first_incompatible(values, partial(are_compatible, before))
            raise ColumnError(f"column {name!r} {error} (see row {row}); {ADVICE}") from None


def _text_type(before: pa.DataType, values: list[Any]) -> pa.DataType:
    """Return string if any text so far is a string: other values only make their own rows fail."""
    if before == pa.string() or any(isinstance(value, str) for value in values):
        return pa.string()
    has_one_type = len({*map(type, values)} - {type(None)}) <= 1
    return infer_type(values) if has_one_type else before


def _extremes(values: Sequence[Any]) -> set[int]:
    """Return the least and greatest of the values; nothing if some are not integers."""
    integers = [value for value in values if value is not None]
    if not integers or any(type(value) is not int for value in integers):
        return set()
    return {min(integers), max(integers)}
