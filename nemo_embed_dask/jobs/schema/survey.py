"""What each input holds, before any is embedded: row groups, columns, types. Reads footers and samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from ...errors import ColumnError, JobError
from ..files.errors import explain_damage
from ..files.file_names import PARQUET, compression_ending
from ..files.inputs import InputFile, Unit, split_into_units
from ..files.open_input import open_input
from ..formats.jsonlines import NO_OBJECT, first_unlike, infer, object_bytes, parse
from ..formats.parquet import open_parquet
from ..formats.widening import WAYS_OUT, UnlikeError, are_alike, widen

# Files that are looked into at once.
THREADS = 16
# Bytes of a line as Python objects: one that takes more is for a worker, whose memory is limited.
_LARGEST_LINE = 1 << 28
# Waits before a file is looked into again.
_PAUSES_S = (0.5, 2.0)
# JSON lines tell their types by their values only. `SAMPLE_BYTES` of all files together are looked at, and of
# each file at least so many, or else of fewer files. What comes later must fit, or its file fails by name.
SAMPLE_BYTES, _LEAST_BYTES = 1 << 26, 1 << 18
# How many times larger than its archive a file of JSON lines is taken to be.
_UNPACKED = 10


@dataclass(frozen=True)
class Survey:
    """What is known of a file before it is read: its columns, or why it cannot be read.

    ``counts``, ``sizes``: rows and bytes of each row group; None for JSON lines. ``ranges``: the least and
    largest of a column's integers, as far as they were looked at; of JSON lines only.
    """

    file: InputFile
    schema: pa.Schema | None = None
    problem: str = ""
    counts: Sequence[int] | None = None
    sizes: Sequence[int] = ()
    ranges: Mapping[str, pa.Array] = field(default_factory=dict)


def survey(
    files: Sequence[InputFile],
    text_field: str,
    names: Sequence[str] | None,
    options: dict[str, Any],
    sample_bytes: int = SAMPLE_BYTES,
) -> list[Survey]:
    """Look into every file; one that cannot be read will fail alone.

    Parameters
    ----------
    files : sequence of InputFile
    text_field : str
    names : sequence of str, optional
        The columns wanted; all if None. Types of others are not looked at.
    options : dict
        For the file system.
    sample_bytes : int
        Bytes of JSON lines to look at, over all files.
    """
    lines = [file for file in files if file.format != PARQUET]
    budgets = dict(
        zip(lines, sample_budgets([_decoded_size(file) for file in lines], sample_bytes), strict=True)
    )
    wanted = None if names is None else {text_field, *names}

    def look(file: InputFile) -> Survey:
        if file.format == PARQUET:
            return _tried(file, lambda: _footer(file, options))
        if not budgets[file]:
            return Survey(file)
        return _tried(file, lambda: _sample(file, text_field, wanted, budgets[file], options))

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(look, files))


def sample_budgets(sizes: Sequence[int], total: int) -> list[int]:
    """Share ``total`` bytes among files of these sizes: how much of each to look at, 0 for none.

    Small files are looked at wholly; what they leave is for the large ones. Where that would be less than
    `_LEAST_BYTES` of each large file, only every second, third and so on is looked at.
    """
    wanted = [min(size, _LEAST_BYTES) for size in sizes]
    step = next((k for k in range(1, len(sizes)) if sum(wanted[::k]) <= total), len(sizes) or 1)
    chosen = sorted(sizes[::step])
    left, most = total, 0
    for place, size in enumerate(chosen):
        most = max(left // (len(chosen) - place), most)
        left -= min(size, most)
    return [0 if place % step else max(1, most) for place in range(len(sizes))]


def _decoded_size(file: InputFile) -> int:
    """About a file's bytes when it is unpacked."""
    return file.identity.size * (_UNPACKED if compression_ending(file.address) else 1)


def _tried(file: InputFile, look: Callable[[], Survey]) -> Survey:
    """What looking into a file gives; after an error that may pass it is looked into again."""
    for pause in (*_PAUSES_S, None):
        try:
            return look()
        except JobError as error:
            problem = str(error)
            if pause is None or not error.temporary:
                break
        except ColumnError as error:  # no attempt of a worker can help
            return Survey(replace(file, problem=str(error)), problem=f"{file.address}: {error}")
        except Exception as error:  # noqa: BLE001 - of a parser or a decompressor
            problem = explain_damage(error, file.address)
            break
        time.sleep(pause)
    return Survey(file, problem=problem)


def plan_units(surveys: Sequence[Survey], rows_per_part: int) -> list[Unit]:
    """The files' units, in order. A file whose footer cannot be read is one unit, which will fail alone."""
    return [unit for s in surveys for unit in split_into_units(s.file, s.counts, s.sizes, rows_per_part)]


def _footer(file: InputFile, options: dict[str, Any]) -> Survey:
    with open_input(file, options) as handle, open_parquet(handle) as source:
        footer, schema = source.metadata, source.schema_arrow.remove_metadata()
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    counts, sizes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    return Survey(file, schema, "", counts, sizes)


def _sample(
    file: InputFile, text_field: str, wanted: set[str] | None, most: int, options: dict[str, Any]
) -> Survey:
    """The columns of a file's first rows, a piece at a time; of type null where they are not wanted."""
    found: dict[str, pa.DataType] = {}
    large: dict[str, set[int]] = {}
    first, has_objects = 0, False
    with open_input(file, options) as handle:
        for piece in parse(_first_bytes(handle, most)):
            rows = [line.row for line in piece]
            has_objects = has_objects or any(line.is_object for line in piece)
            for name in dict.fromkeys(name for row in rows for name in row):
                if wanted is not None and name not in wanted:
                    found.setdefault(name, pa.null())
                    continue
                values = [row.get(name) for row in rows]
                large.setdefault(name, set()).update(_extremes(values))
                try:
                    found[name] = _type_of(values, found.get(name, pa.null()), is_text=name == text_field)
                except UnlikeError as error:
                    so_far = found.get(name, pa.null())
                    row = first + first_unlike(values, partial(are_alike, so_far))
                    raise ColumnError(f"column {name!r} {error} (see row {row}); {WAYS_OUT}") from None
            first += len(rows)
    if not has_objects:
        why = NO_OBJECT if first else "it has no rows, or its first is too large to look at"
        raise JobError(f"{file.address}: {why}")
    ranges = {name: pa.array([*large[name]], found[name]) for name in large if pa.types.is_integer(found[name])}
    return Survey(file, pa.schema(list(found.items())), ranges=ranges)


def _extremes(values: Sequence[Any]) -> set[int]:
    """Find the least and largest of a column's integers; none where it has other values."""
    if set(map(type, values)) - {type(None)} != {int}:
        return set()
    numbers = [value for value in values if value is not None]
    return {min(numbers), max(numbers)}


def _type_of(values: list[Any], so_far: pa.DataType, *, is_text: bool) -> pa.DataType:
    if not is_text:
        return widen(so_far, infer(values))
    if so_far == pa.string() or any(isinstance(value, str) for value in values):
        return pa.string()  # a text of another type costs its row
    return infer(values) if len({*map(type, values)} - {type(None)}) <= 1 else so_far


def _first_bytes(lines: Any, most: int) -> Iterator[bytes]:
    """The first lines of a file, up to one too large to be parsed where a job is planned."""
    for line in lines:
        if object_bytes(line) > _LARGEST_LINE:
            return
        yield line
        most -= len(line)
        if most < 0:
            return
