"""The least and largest value of a file's columns, where a wider type may not hold them.

Whether doubles hold a column of 64-bit integers, or nanoseconds one of microseconds, depends on its values. A
column is read where files differ so, and only there. Statistics in footers would tell it too, but a look at
those of a column that is encrypted or damaged ends the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import EmbedError
from ..files.file_names import PARQUET
from ..files.inputs import InputFile
from ..files.open_input import open_input
from ..formats.parquet import exact_batches, open_parquet
from .survey import THREADS, Survey


@dataclass
class Ranges:
    """Ranges of columns by file, each read at most once; ``options`` are for the file system."""

    options: dict[str, Any] = field(default_factory=dict, repr=False)
    _found: dict[tuple[str, str], pa.Array] = field(default_factory=dict)

    def of(self, surveys: Sequence[Survey], name: str) -> list[pa.Array]:
        """Find a column's least and largest value in each file; no values where they are not known."""

        def look(survey: Survey) -> pa.Array:
            key = survey.file.address, name
            if key not in self._found:
                self._found[key] = self._range(survey, name)
            return self._found[key]

        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(look, surveys))

    def _range(self, survey: Survey, name: str) -> pa.Array:
        if survey.file.format != PARQUET:
            return survey.ranges.get(name, pa.array([], pa.int64()))
        try:
            return _read_range(survey.file, name, self.options)
        except (EmbedError, OSError, pa.ArrowException):  # its unit will tell why
            return pa.array([], pa.int64())


def _read_range(file: InputFile, name: str, options: dict[str, Any]) -> pa.Array:
    with open_input(file, options) as handle, open_parquet(handle) as source:
        dtype = source.schema_arrow.field(name).type
        plain = dtype if pa.types.is_integer(dtype) else pa.int64()  # as times are stored
        batches = exact_batches(source, handle, range(source.num_row_groups), [name])
        found = [pc.min_max(batch.column(name).view(plain)).values() for batch in batches]
    return pa.array([value for pair in found for value in pair], plain).view(dtype)


def fits(values: pa.Array, dtype: pa.DataType) -> bool:
    """Whether a type holds these values."""
    try:
        values.cast(dtype)
    except pa.ArrowInvalid:
        return False
    return True
