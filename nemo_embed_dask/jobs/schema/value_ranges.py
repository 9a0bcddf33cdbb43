"""Read the least and greatest values of columns, where the types do not tell if a wider type holds them.

For example, float64 holds an int64 column only if no value is beyond 2^53, and a timestamp in nanoseconds holds
no year after 2262. The values are read from the pages, not from the statistics in the footer: pyarrow
crashes the process when it accesses those of an encrypted or damaged column.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import EmbedError
from ..files.file_names import PARQUET
from ..files.inputs import InputFile
from ..files.open_input import open_input
from ..formats.parquet import open_parquet, read_pieces
from .inspection import THREADS, InputInfo

# The range of a column that cannot be read. It has no values, so it fits every type.
_UNKNOWN = pa.array([], pa.int64())


@dataclass
class ValueRanges:
    """The ranges of values in a job's inputs. Each column of an input is read at most once.

    ``options`` are for the file system.
    """

    inputs: Sequence[InputInfo]
    options: dict[str, Any] = field(repr=False)
    _cache: dict[tuple[str, str], pa.Array] = field(default_factory=dict)

    def count_misfits(self, name: str, narrow: Container[pa.DataType], wide: pa.DataType) -> int:
        """Count the inputs whose column of a narrow type has values that ``wide`` cannot hold."""
        inputs = [
            info
            for info in self.inputs
            if info.schema is not None
            and info.schema.names.count(name) == 1
            and info.schema.field(name).type in narrow
        ]
        with ThreadPoolExecutor(THREADS) as threads:
            ranges = threads.map(lambda info: self._range(info, name), inputs)
            return sum(not _fits(values, wide) for values in ranges)

    def _range(self, info: InputInfo, name: str) -> pa.Array:
        """Return the extremes of a column; no values if they are not known."""
        key = info.file.address, name
        if key not in self._cache:
            self._cache[key] = self._find_range(info, name)
        return self._cache[key]

    def _find_range(self, info: InputInfo, name: str) -> pa.Array:
        if info.file.format != PARQUET:
            return info.integer_ranges.get(name, _UNKNOWN)
        try:
            return _read_range(info.file, name, self.options)
        except (EmbedError, OSError, pa.ArrowException):  # the input's unit will report it
            return _UNKNOWN


def _read_range(file: InputFile, name: str, options: dict[str, Any]) -> pa.Array:
    """Return the least and greatest value of each piece of a column of integers or times."""
    with open_input(file, options) as handle, open_parquet(handle) as source:
        dtype = source.schema_arrow.field(name).type
        integers = dtype if pa.types.is_integer(dtype) else pa.int64()  # times are stored as int64
        pieces = read_pieces(source, handle, range(source.num_row_groups), [name])
        extremes = [pc.min_max(piece.column(name).view(integers)).values() for piece in pieces]
    return pa.array([value for pair in extremes for value in pair], integers).view(dtype)


def _fits(values: pa.Array, dtype: pa.DataType) -> bool:
    try:
        values.cast(dtype)
    except pa.ArrowInvalid:
        return False
    return True
