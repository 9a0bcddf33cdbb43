"""What each input holds, before any is embedded: row groups, columns, types. Reads footers and samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import EmbedError, JobError
from .inputs import PARQUET, InputFile, Unit, open_input, units_of
from .jsonlines import MixedValuesError, parse, to_array
from .storage import explain

_THREADS = 16
# JSON lines tell their types by their values only. So much of each file is looked at: all of a small job,
# of a large one enough to see every column. What comes later must fit, or its file fails by name.
_SAMPLE_BYTES, _LEAST_BYTES, _MOST_BYTES, _MOST_SAMPLED = 1 << 28, 1 << 18, 1 << 26, 1000


@dataclass(frozen=True)
class Survey:
    """What is known of a file before it is read: its columns, or why it cannot be read.

    ``counts``, ``sizes``: rows and bytes of each row group; None for JSON lines.
    """

    file: InputFile
    schema: pa.Schema | None = None
    problem: str = ""
    counts: Sequence[int] | None = None
    sizes: Sequence[int] = ()


def survey(files: Sequence[InputFile], text_field: str, options: dict[str, Any]) -> list[Survey]:
    """Look into every file; one that cannot be read will fail alone."""
    lines = [file for file in files if file.kind != PARQUET]
    step = -(-len(lines) // _MOST_SAMPLED) or 1
    sampled = {file.address for file in lines[::step]}
    share = _SAMPLE_BYTES // max(1, len(sampled))
    most = max(_LEAST_BYTES, min(_MOST_BYTES, share))

    def look(file: InputFile) -> Survey:
        if file.kind != PARQUET and file.address not in sampled:
            return Survey(file)
        try:
            if file.kind == PARQUET:
                return _footer(file, options)
            return Survey(file, _sample(file, text_field, most, options))
        except EmbedError as error:
            return Survey(file, problem=str(error))
        except Exception as error:  # noqa: BLE001 - each decompressor has errors of its own
            return Survey(file, problem=explain(error, file.address, doing="read"))

    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(look, files))


def plan_units(surveys: Sequence[Survey], rows_per_part: int) -> list[Unit]:
    """The files' units, in order. A file whose footer cannot be read is one unit, which will fail alone."""
    return [unit for s in surveys for unit in units_of(s.file, s.counts, s.sizes, rows_per_part)]


def _footer(file: InputFile, options: dict[str, Any]) -> Survey:
    with open_input(file, options) as handle:
        footer = pq.read_metadata(handle)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    counts, sizes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    return Survey(file, footer.schema.to_arrow_schema().remove_metadata(), "", counts, sizes)


def _sample(file: InputFile, text_field: str, most: int, options: dict[str, Any]) -> pa.Schema:
    with open_input(file, options) as handle:
        rows = [line.row for piece in parse(_first_bytes(handle, most)) for line in piece if line.row]
    if not rows:
        raise JobError(f"{file.address}: there is no row in it")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _type_of(file, name, rows, text_field)) for name in names])


def _type_of(file: InputFile, name: str, rows: list[dict[str, Any]], text_field: str) -> pa.DataType:
    values = [row.get(name) for row in rows]
    if name == text_field and any(isinstance(value, str) for value in values):
        return pa.string()  # a text of another type costs its row
    try:
        return to_array(values).type
    except MixedValuesError as error:
        raise JobError(f"{file.address}: column {name!r} mixes {error.reason}") from None


def _first_bytes(lines: Any, most: int) -> Iterator[bytes]:
    for line in lines:
        yield line
        most -= len(line)
        if most < 0:
            return
