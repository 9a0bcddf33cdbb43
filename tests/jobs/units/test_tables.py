"""The columns of parts: number types, extra outputs, counts, one row per window; always one schema."""

from __future__ import annotations

import json

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import ColumnError, calibrate, embed_parquet
from nemo_embed_dask.jobs.report import ERRORS
from nemo_embed_dask.jobs.units import tables

from ...helpers import faults

TYPES = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "uint8": pa.uint8(),
    "binary": pa.int8(),
    "ubinary": pa.uint8(),
}
LONG = "river stone cloud market violin engine harvest winter letter copper garden signal " * 20


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Write three files: texts and nulls in two row groups; one without rows; one without row groups."""
    folder = tmp_path_factory.mktemp("columns") / "in"
    folder.mkdir()
    texts = [LONG, "short", None, "", "stone " * 90, *map(faults.text_of, range(15))]
    table = pa.table({"id": range(20), "text": texts, "tags": [[str(i)] * (i % 3) for i in range(20)]})
    pq.write_table(table, folder / "a.parquet", row_group_size=10)
    pq.write_table(table.slice(0, 0), folder / "none.parquet")
    with pq.ParquetWriter(folder / "nothing.parquet", table.schema):
        pass
    return folder


@pytest.fixture(scope="module")
def ranges(model, tmp_path_factory):
    """Calibrate all 32 dimensions, and 8 of them."""
    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    stage = faults.stage(model, extra_embeddings=("q:8:int8",))
    return str(calibrate(stage, [text for text in map(faults.text_of, range(60)) if text], path))


def run(source, target, stage, **more):
    report = embed_parquet(stage, str(source), str(target), rows_per_part=10, **more)
    assert report.complete, report.failed
    schemas = {str(pq.read_schema(part).remove_metadata()) for part in target.glob("*.parquet")}
    assert len(schemas) == 1 and report.parts == 4, "every part of any input has the same columns"
    return pq.read_table(target).sort_by("id"), report


@pytest.mark.parametrize("dtype", TYPES)
def test_vectors_are_lists_of_the_requested_number_type(dtype, source, model, ranges, tmp_path):
    stage = faults.stage(model, embedding_dtype=dtype, calibration=ranges if dtype.endswith("int8") else None)
    found, _ = run(source, tmp_path / "out", stage)
    width = 4 if "bin" in dtype else 32
    assert found.schema.field("embeddings").type.equals(pa.list_(pa.field("element", TYPES[dtype]), width))
    expected = stage(pd.read_parquet(source / "a.parquet"))["embeddings"]
    for mine, theirs in zip(found["embeddings"].to_pylist(), expected, strict=True):
        assert (mine is None) == (theirs is pd.NA or theirs is None)
        assert mine is None or mine == pytest.approx(theirs, abs=2e-3 if dtype == "float16" else 2e-6), dtype


def test_extra_outputs_and_counts(source, model, ranges, tmp_path):
    stage = faults.stage(
        model,
        extra_embeddings=("q:8:int8", "b:ubinary"),
        calibration=ranges,
        n_tokens_field="n",
        truncated_field="cut",
        embedding_dtype="float16",
    )
    found, _ = run(source, tmp_path / "out", stage)
    assert found.column_names == ["id", "text", "tags", "embeddings", "q", "b", "n", "cut"]
    types = [str(found.schema.field(name).type) for name in ("embeddings", "q", "b", "n", "cut")]
    assert types == [
        "fixed_size_list<element: halffloat>[32]",
        "fixed_size_list<element: int8>[8]",
        "fixed_size_list<element: uint8>[4]",
        "int64",
        "bool",
    ]
    expected = stage(pd.read_parquet(source / "a.parquet"))
    assert found["n"].to_pylist() == expected["n"].tolist()
    assert found["cut"].to_pylist() == expected["cut"].tolist() and any(expected["cut"])
    assert found["b"].null_count == 2 == found["q"].null_count
    for name, leaf in (("q", int), ("b", int), ("embeddings", float)):
        (read,) = duckdb.sql(f"select {name} from '{tmp_path}/out/*.parquet' where id = 1").fetchall()
        assert isinstance(read[0][0], leaf)
    assert pl.read_parquet(tmp_path / "out" / "*.parquet").height == 20
    assert pd.read_parquet(tmp_path / "out").shape == (20, 8)


def test_one_row_per_window(source, model, tmp_path):
    stage = faults.stage(model, long_documents="explode", max_seq_length=12, overlap=2, n_tokens_field="n")
    found, report = run(source, tmp_path / "out", stage)
    expected = stage(pd.read_parquet(source / "a.parquet"))
    assert len(found) == len(expected) > 40
    assert (report.total.rows, report.rows) == (20, len(found))
    for name in ("id", "text", "chunk", "char_start", "char_end", "n"):
        values = [None if pd.isna(value) else value for value in expected[name]]
        assert found.sort_by([("id", "ascending"), ("chunk", "ascending")])[name].to_pylist() == values, name
    by_row = {(row["id"], row["chunk"]): row for row in found.to_pylist()}
    for row in expected.to_dict("records"):
        mine = by_row[row["id"], row["chunk"]]
        assert (mine["embeddings"] is None) == (row["text"] is None or pd.isna(row["text"]))
        assert mine["embeddings"] is None or mine["embeddings"] == pytest.approx(
            list(row["embeddings"]), abs=2e-6
        )
        assert mine["tags"] == list(row["tags"])
    figures = json.loads((tmp_path / "out/_nemo_embed/report.json").read_text())
    assert (figures["total"]["rows"], figures["rows"]) == (20, len(found))


def test_tables_with_one_row_per_window_have_a_bounded_size(source, model, tmp_path, monkeypatch):
    whole, _ = run(source, tmp_path / "whole", faults.stage(model, long_documents="explode", max_seq_length=12))
    monkeypatch.setattr(tables, "SLAB_BYTES", 4 * len(LONG))
    cut, _ = run(source, tmp_path / "cut", faults.stage(model, long_documents="explode", max_seq_length=12))
    assert cut.drop_columns("embeddings").equals(whole.drop_columns("embeddings"))
    groups = [pq.ParquetFile(part).num_row_groups for part in (tmp_path / "cut").glob("*.parquet")]
    assert max(groups) > 5


def test_a_failed_row_is_reported_by_its_row_in_the_input_with_one_row_per_window(model, tmp_path):
    lines = [
        {"id": 0, "text": LONG},
        {"id": 1, "text": "\ud800"},
        {"id": 2, "text": LONG},
        {"id": 3, "text": None},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    stage = faults.stage(model, long_documents="explode", max_seq_length=12, on_error="null")
    report = embed_parquet(stage, str(tmp_path / "x.jsonl"), str(tmp_path / "out"))
    assert report.complete and report.null_rows == 2 and report.total.rows == 5
    assert [row["row"] for row in pq.read_table(tmp_path / "out" / ERRORS).to_pylist()] == [1, 4]
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["embeddings"] is None for row in rows if row["id"] in {0, 2}].count(True) == 0, (
        "others keep theirs"
    )
    assert [row["id"] for row in rows if row["embeddings"] is None] == [1, 3, None]
    strict = embed_parquet(
        faults.stage(model, long_documents="explode", max_seq_length=12),
        str(tmp_path / "x.jsonl"),
        str(tmp_path / "strict"),
    )
    (reason,) = strict.failed.values()
    assert "x.jsonl, row 4: not valid JSON" in reason or "x.jsonl, row 1: not valid text" in reason


@pytest.mark.parametrize(
    "more",
    [
        {"n_tokens_field": "id"},
        {"truncated_field": "embeddings"},
        {"extra_embeddings": ("tags:float16",)},
        {"embedding_field": "text"},
    ],
)
def test_names_that_exist_are_rejected_before_the_target_is_made(more, source, model, tmp_path):
    with pytest.raises(ColumnError, match="already"):
        embed_parquet(faults.stage(model, **more), str(source), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_input_column_named_chunk_is_rejected_or_left_out(model, tmp_path):
    pq.write_table(pa.table({"text": ["a b c"], "chunk": [7]}), tmp_path / "in.parquet")
    stage = faults.stage(model, long_documents="explode")
    with pytest.raises(ColumnError, match="'chunk' already.*leave it out of columns"):
        embed_parquet(stage, str(tmp_path / "in.parquet"), str(tmp_path / "out"))
    embed_parquet(stage, str(tmp_path / "in.parquet"), str(tmp_path / "out"), columns=["text"])
    assert pq.read_table(tmp_path / "out")["chunk"].to_pylist() == [0]
