"""The least and largest value of a file's columns, as far as a wider type may not hold them. Reads no rows.

Whether doubles hold a column of 64-bit integers, or nanoseconds one of microseconds, depends on its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .widening import depends_on_values

# Column -> its least and largest value.
Ranges = Mapping[str, pa.Array]


def footer_ranges(footer: pq.FileMetaData, schema: pa.Schema) -> dict[str, pa.Array]:
    """Find the ranges of a Parquet file's columns by the statistics of its row groups, where it has them."""
    places = {
        column.name: place
        for place in range(footer.num_columns)
        if (column := footer.schema.column(place)).path == column.name and column.physical_type == "INT64"
    }
    found = {}
    for name, place in places.items():
        if schema.names.count(name) == 1 and depends_on_values(schema.field(name).type):
            raw = list(_raw_values(footer, place))
            found[name] = pa.array(raw, pa.int64()).view(schema.field(name).type)
    return found


def _raw_values(footer: pq.FileMetaData, place: int) -> Iterable[int]:
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(place).statistics
        if statistics is not None and statistics.has_min_max:
            yield from (statistics.min_raw, statistics.max_raw)


def extremes(values: Sequence[Any]) -> set[int]:
    """Find the least and largest of a column's integers, as JSON gives them; none where it has other values."""
    if set(map(type, values)) - {type(None)} != {int}:
        return set()
    numbers = [value for value in values if value is not None]
    return {min(numbers), max(numbers)}


def fits(values: pa.Array | None, dtype: pa.DataType) -> bool:
    """Whether a type holds these values; they are taken to fit where they are not known."""
    try:
        if values is not None:
            values.cast(dtype)
    except pa.ArrowInvalid:
        return False
    return True
