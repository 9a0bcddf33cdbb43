"""Which leaf columns Parquet stores for a schema; each one has its own codec and dictionary."""

from __future__ import annotations

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from nemo_embed_dask.jobs.units.writer import _leaves

TYPES = {
    "plain": pa.int64(),
    "a.b": pa.struct([("c", pa.int8()), ("d.e", pa.list_(pa.int8()))]),
    "a": pa.struct([("b", pa.struct([("c", pa.int8())]))]),
    "map": pa.map_(pa.string(), pa.list_(pa.string())),
    "7": pa.list_(pa.null()),
    "": pa.string(),
}


def paths(schema: pa.Schema) -> list[str]:
    sink = BytesIO()
    pq.write_table(schema.empty_table(), sink)
    found = pq.ParquetFile(sink).schema
    return [found.column(i).path for i in range(len(found))]


def test_leaves_are_those_of_each_column_written_by_itself():
    alone = [(name, path) for name, dtype in TYPES.items() for path in paths(pa.schema([(name, dtype)]))]
    assert _leaves(pa.schema([*TYPES.items()])) == alone


def test_leaves_of_a_wide_table_need_one_write(monkeypatch):
    written, write = [], pq.write_table
    monkeypatch.setattr(pq, "write_table", lambda *args, **more: (written.append(1), write(*args, **more)))
    schema = pa.schema([(f"c{i}", pa.int64()) for i in range(2000)])
    assert _leaves(schema) == [(f"c{i}", f"c{i}") for i in range(2000)] and len(written) == 1
