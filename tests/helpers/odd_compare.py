"""Read the files of `odd_files` with pyarrow and json only, and compare the parts of a job with them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from .arrow_values import same
from .odd_files import Odd

MADE = "embeddings"
_NS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}


def values(column: pa.ChunkedArray) -> list[Any]:
    """Return Python values. Times are integers in nanoseconds: datetime holds neither all years nor all units."""
    t = column.type
    if isinstance(t, pa.BaseExtensionType):
        return values(pa.chunked_array([chunk.storage for chunk in column.chunks], t.storage_type))
    if not pa.types.is_temporal(t):
        return column.to_pylist()
    unit = 86_400 * 10**9 if t == pa.date32() else _NS["ms" if t == pa.date64() else t.unit]
    plain = column.cast(pa.int32() if t.bit_width == 32 else pa.int64())
    return [None if value is None else value * unit for value in plain.to_pylist()]


def parquet_rows(path: Path) -> tuple[int, dict[str, list]]:
    table = read_parquet(path)
    return table.num_rows, {name: values(table[name]) for name in table.column_names}


def read_parquet(path: Path) -> pa.Table:
    """Read a file by row groups: pyarrow cannot read lists of dictionaries from several row groups at once."""
    with path.open("rb") as source:
        file = pq.ParquetFile(source)
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
        return pa.concat_tables(groups or [file.schema_arrow.empty_table()])


def folder_values(path: Path) -> dict[str, Any]:
    """Return the values in the names of folders, as pyarrow reads them."""
    types = pa.schema([("lang", pa.string()), ("year", pa.int32()), ("no", pa.string())])
    parsed = ds.HivePartitioning(types, segment_encoding="uri").parse(str(path))
    return ds.get_partition_keys(parsed)


def json_rows(path: Path) -> list[dict]:
    """Read a file of JSON lines that are all valid."""
    read = {
        ".gz": gzip.decompress,
        ".bz2": bz2.decompress,
        ".xz": lzma.decompress,
        ".zst": lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(),
    }
    data = read.get(path.suffix.lower(), lambda data: data)(path.read_bytes())
    lines = data.decode("utf-8-sig").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def expected_of(odd: Odd, name: str) -> tuple[int, dict[str, list]]:
    """Return the number of rows of a file, and its columns including those of its folders."""
    path = odd.root / name
    if name not in odd.lines:
        count, columns = parquet_rows(path)
    else:
        rows = odd.lines[name][0]
        count, columns = len(rows), {key: [row.get(key) for row in rows] for row in rows for key in row}
    folders = folder_values(path.relative_to(odd.root)) if name.startswith("hive/") else {}
    return count, {key: [value] * count for key, value in folders.items()} | columns


def differences(name: str, expected: tuple[int, dict[str, list]], found: pa.Table) -> list[str]:
    """Describe each value of a file that its parts do not have, one line each."""
    count, columns = expected
    if found.num_rows != count:
        return [f"{name}: {found.num_rows} rows instead of {count}"]
    lost = [f"{name}: no column {key!r}" for key in columns if key not in found.column_names]
    for key in found.column_names:
        if key != MADE:
            wanted = columns.get(key, [None] * count)
            lost += [
                f"{name}, {key!r}, row {i}: {a!r} became {b!r} ({found[key].type})"
                for i, (a, b) in enumerate(zip(wanted, values(found[key]), strict=True))
                if not unchanged(a, b)
            ]
    return lost


def unchanged(before: Any, after: Any) -> bool:
    return same(before, after) and (before is None) == (after is None)
