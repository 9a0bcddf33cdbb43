"""Small files that decode to a gigabyte are read in little memory, and no row is lost when pieces change size."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask.jobs.files.streams import ReadStream
from nemo_embed_dask.jobs.formats import parquet, piece_sizes

from ...helpers import faults
from ...helpers.peak import peak
from ...helpers.slow import slow

LARGE = "y" * 1_000_000
# pyarrow decodes a page as a whole: these have few values each, as from a writer that limits the size of pages.
SMALL_PAGES = {"use_dictionary": False, "compression": "zstd", "write_batch_size": 4}


def lists(path):
    """1,000 rows of 100,000 zeros, in 3 kB."""
    offsets = pa.array(np.arange(0, 100_000_001, 100_000, dtype="int32"))
    column = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(100_000_000, "int64")))
    pq.write_table(pa.table({"text": ["a"] * 1000, "v": column}), path)


def lists_amid_empty_ones(path):
    sizes = np.repeat([0, 100_000, 0], [50_000, 1000, 49_000])
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype("int32"))
    column = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(sizes.sum(), "int64")))
    pq.write_table(pa.table({"text": ["a"] * len(sizes), "v": column}), path)


def fixed_bytes(path):
    column = pa.array([LARGE.encode()] * 1000, pa.binary(len(LARGE)))
    pq.write_table(pa.table({"text": ["a"] * 1000, "v": column}), path)


def one_group(path):
    """Forty row groups, of which one has large rows."""
    schema = pa.schema([("text", pa.string()), ("v", pa.string())])
    with pq.ParquetWriter(path, schema, **SMALL_PAGES) as writer:
        for group in range(40):
            values = [LARGE] * 961 if group == 1 else ["y"]
            writer.write_table(pa.table({"text": ["a"] * len(values), "v": values}))


def some_rows(path):
    """Large rows between short ones in the same row group."""
    values = ["y"] * 100_000 + [LARGE] * 1000 + ["y"] * 99_000
    table = pa.table({"text": ["a"] * len(values), "v": values})
    pq.write_table(table, path, row_group_size=len(values), **SMALL_PAGES)


@pytest.mark.parametrize(
    ("write", "count"),
    [
        (lists_amid_empty_ones, 100_000),
        (fixed_bytes, 1000),
        *slow((lists, 1000), (one_group, 1000), (some_rows, 200_000)),
    ],
)
def test_memory_is_bounded_by_what_is_decoded(write, count, tmp_path):
    write(tmp_path / "in.parquet")
    assert (tmp_path / "in.parquet").stat().st_size < 2_000_000
    rows, slab, grown = peak(tmp_path / "in.parquet")
    assert rows == count and slab <= 80 and grown < 450, (slab, grown)


def batches(data, *names, groups=None):
    handle = ReadStream(io.BytesIO(data), nullcontext)
    with parquet.open_parquet(handle) as source:
        groups = range(source.num_row_groups) if groups is None else groups
        return list(parquet.read_pieces(source, handle, groups, names or source.schema_arrow.names))


ROWS = 5000
TABLE = pa.table(
    {
        "text": [None if i % 5 == 0 else "ab" * (i % 100) for i in range(ROWS)],
        "words": [f"word {i % 30}" * 9 for i in range(ROWS)],
        "large": ["z" * 20_000 if 2000 < i < 2020 else str(i) for i in range(ROWS)],
        "list": [None if i % 7 == 0 else ["x" * (i % 9)] * (i % 4) for i in range(ROWS)],
        "struct": [{"n": i, "s": str(i)} for i in range(ROWS)],
        "fixed": pa.array([i.to_bytes(8, "big") for i in range(ROWS)], pa.binary(8)),
    }
)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_dictionary": False, "compression": "none"},
        {"data_page_version": "2.0", "compression": "gzip"},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "columns": ["text", "large"]},
        {"compression": "lz4", "row_group_size": 1700},
        {"compression": "brotli", "row_group_size": 7},
    ],
)
def test_every_row_is_read_once_in_pieces_of_few_bytes(how, monkeypatch):
    """Whatever the encoding, and wherever the large rows are."""
    monkeypatch.setattr(piece_sizes, "PIECE_BYTES", 100_000)
    how = dict(how)
    table = TABLE.select(how.pop("columns", TABLE.schema.names))
    out = io.BytesIO()
    pq.write_table(table, out, data_page_size=2000, write_batch_size=16, **how)
    found = batches(out.getvalue())
    assert pa.Table.from_batches(found).equals(table)
    assert max(batch.nbytes for batch in found) <= 200_000, max(batch.nbytes for batch in found)


def test_pieces_are_large_where_rows_are_short():
    out = io.BytesIO()
    table = pa.table({"text": [f"text {i}" * 10 for i in range(500_000)]})
    pq.write_table(table, out)
    sizes = [batch.num_rows for batch in batches(out.getvalue())]
    assert sum(sizes) == len(table) and sizes.count(piece_sizes.PIECE_ROWS) >= len(sizes) - 2, sizes[:20]


class Counted(io.BytesIO):
    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


def test_pages_are_looked_at_without_being_fetched_again(monkeypatch):
    monkeypatch.setattr(piece_sizes, "PIECE_BYTES", 100_000)
    out = io.BytesIO()
    pq.write_table(TABLE, out, row_group_size=1000, compression="none", use_dictionary=False)
    counted = Counted(out.getvalue())
    handle = ReadStream(counted, nullcontext)
    with parquet.open_parquet(handle) as source:
        opened = counted.count
        found = list(parquet.read_pieces(source, handle, range(5), TABLE.schema.names))
    assert sum(batch.num_rows for batch in found) == ROWS
    assert counted.count - opened <= len(out.getvalue())


DAMAGE = """
import random, sys
from tests.jobs.formats.test_piece_sizes import batches
from nemo_embed_dask import EmbedError
good = open(sys.argv[1], "rb").read()
footer = int.from_bytes(good[-8:-4], "little") + 8
for seed in range(400):
    data, chance = bytearray(good), random.Random(seed)
    data[-chance.randrange(9, footer)] = chance.randrange(256)
    try:
        batches(bytes(data), "text", "list")
    except (OSError, ValueError, KeyError, EmbedError, NotImplementedError):
        pass
"""


def test_no_damage_to_a_footer_ends_the_process(tmp_path):
    """Accessing column metadata that pyarrow does not understand would end the process."""
    pq.write_table(TABLE.slice(0, 600), tmp_path / "in.parquet", row_group_size=200)
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(tmp_path / "in.parquet")],
        env=faults.environment(),
        capture_output=True,
        text=True,
        cwd=os.fspath(faults.ROOT),
    )
    assert done.returncode == 0, done.stderr[-500:]
