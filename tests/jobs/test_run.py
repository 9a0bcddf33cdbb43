"""`embed_parquet` without faults: vectors, columns, formats, names, readers, clusters, memory."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask import dataframe as dd
from distributed import Client, LocalCluster

from nemo_embed_dask import ColumnError, EmbeddingCreatorStage, JobError, embed_parquet
from nemo_embed_dask.jobs.report import ERRORS, load_report

from ..helpers import faults


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("jobs") / "in", files=3)


@pytest.fixture(scope="module")
def target(source, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("jobs") / "out"
    embed_parquet(faults.stage(model, on_error="null"), str(source), str(path), rows_per_part=20)
    return path


def test_a_job_gives_the_vectors_of_the_stage(source, target, model):
    frame = pd.read_parquet(source)
    expected = faults.stage(model)(frame)
    found = faults.vectors(target)
    for i, vector in zip(expected["id"], expected["embeddings"], strict=True):
        if found[i][2] is None:
            assert vector is pd.NA or vector is None
        else:
            np.testing.assert_allclose(found[i][2], vector, atol=2e-6)


def test_parquet_readers_read_the_parts_and_no_other_file(target):
    rows, glob = 180, f"{target}/*.parquet"
    schema = pq.read_schema(next(target.glob("*.parquet")))
    assert pa.types.is_fixed_size_list(schema.field("embeddings").type)
    assert schema.field("embeddings").type.value_type == pa.float32()
    assert b"pandas" not in (schema.metadata or {})
    assert pq.read_table(target).num_rows == rows
    assert len(pd.read_parquet(target)) == rows
    assert len(dd.read_parquet(target).compute()) == rows
    assert pl.read_parquet(glob).height == rows
    for pattern in (glob, f"{target}/**/*.parquet"):
        assert duckdb.sql(f"select count(*) from '{pattern}'").fetchall() == [(rows,)]


def test_parts_are_named_after_their_inputs_in_every_run(source, target, model, tmp_path):
    embed_parquet(faults.stage(model), str(source), str(tmp_path / "again"), rows_per_part=20)
    names = sorted(path.name for path in target.glob("*.parquet"))
    assert names == sorted(path.name for path in (tmp_path / "again").glob("*.parquet"))
    assert len(names) == 9 and all(name.startswith("in-0") for name in names)
    ids = [pq.read_table(target / name)["id"].to_pylist() for name in names]
    assert [i for part in ids for i in part] == list(range(180)), "parts do not line up with inputs"


def test_plain_and_compressed_json_lines_give_the_same_vectors(source, target, model, tmp_path):
    rows = pq.read_table(source).to_pylist()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text("\n" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.jsonl", "b.jsonl.gz"):
        report = embed_parquet(faults.stage(model), str(tmp_path / name), str(tmp_path / name[0]))
        assert report.complete and report.total.rows == 180
        faults.assert_same(tmp_path / name[0], faults.vectors(target))


def test_copied_columns_are_unchanged(model, tmp_path):
    table = pa.table(
        {
            "text": ["a", None, "c"],
            "day": pa.array([1, 2, None], pa.date32()),
            "raw": [b"\xff", None, b""],
            "tags": [["x"], [], None],
            "deep": [{"a": 1}, None, {"a": 2}],
            "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
            "big": pa.array(["p", "q", None], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    embed_parquet(faults.stage(model), str(tmp_path / "in.parquet"), str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out")
    assert found.drop_columns("embeddings").equals(pq.read_table(tmp_path / "in.parquet"))
    chosen = tmp_path / "chosen"
    embed_parquet(faults.stage(model), str(tmp_path / "in.parquet"), str(chosen), columns=["day"])
    assert pq.read_table(chosen).column_names == ["day", "embeddings"]


def test_a_column_is_replaced_with_overwrite_and_rejected_without(target, model, tmp_path):
    with pytest.raises(ColumnError, match="overwrite=True"):
        embed_parquet(faults.stage(model), str(target / "*.parquet"), str(tmp_path / "out"))
    embed_parquet(faults.stage(model, overwrite=True), str(target / "*.parquet"), str(tmp_path / "out"))
    faults.assert_same(tmp_path / "out", faults.vectors(target))


def test_a_cluster_gives_the_same_vectors_and_no_task_holds_the_token(source, target, model, tmp_path):
    stage = EmbeddingCreatorStage(model_identifier=str(model), autocast=False, hf_token="hf_secret")
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 2}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, rows_per_part=20)
        seen = str(
            client.run_on_scheduler(
                lambda dask_scheduler: [
                    *map(repr, dask_scheduler.tasks.values()),
                    *map(repr, dask_scheduler.worker_plugins.values()),
                ]
            )
        )
    assert report.complete and report.parts_this_run == 9
    assert set(report.workers) != {"here"}
    assert "hf_secret" not in seen
    faults.assert_same(tmp_path / "out", faults.vectors(target))


def test_a_worker_without_the_model_is_named_before_the_job_starts(source, tmp_path):
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 1}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        stage = EmbeddingCreatorStage(model_identifier=str(tmp_path / "nowhere"))
        with pytest.raises(Exception, match=r"worker .*nowhere"):
            embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)
    assert not (tmp_path / "out").exists()


def test_a_target_inside_its_source_is_not_read_as_input(model, tmp_path):
    folder = faults.write_inputs(tmp_path / "in", files=1)
    for _ in range(2):
        report = embed_parquet(faults.stage(model), str(folder), str(folder / "vectors"))
    assert report.parts == 1 and report.parts_this_run == 0
    with pytest.raises(JobError):
        embed_parquet(faults.stage(model), str(folder), str(folder))


PEAK = """
import resource, sys
from tests.helpers import faults
from nemo_embed_dask import embed_parquet
embed_parquet(faults.stage(sys.argv[3]), sys.argv[1], sys.argv[2], rows_per_part=10**9, columns=["id"])
unit = 20 if sys.platform == "darwin" else 10  # ru_maxrss is in bytes on macOS, in kB on Linux
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> unit)
"""


def test_peak_memory_is_flat_in_the_number_of_row_groups(model, tmp_path):
    """Compare one and fifty row groups of 10 MB of text: one slab is in memory at once, not the file."""
    text, peaks = ["word " * 20_000 + str(i) for i in range(100)], {}
    for groups in (1, 50):
        path = tmp_path / f"{groups}.parquet"
        table = pa.table({"id": range(100), "text": text})
        with pq.ParquetWriter(path, table.schema) as writer:
            for _ in range(groups):
                writer.write_table(table)
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / f"out-{groups}"), str(model)]
        ran = subprocess.run(command, env=faults.environment(), capture_output=True, text=True, check=True)
        peaks[groups] = int(ran.stdout)
    print(peaks)
    assert peaks[50] < peaks[1] + 150, peaks


def test_a_run_without_new_parts_reports_what_failed_and_keeps_the_figures_of_the_last(source, model, tmp_path):
    folder, target = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, folder)
    (folder / "bad.parquet").write_bytes(b"no")

    def saved():
        embed_parquet(faults.stage(model), str(folder), str(target))
        return load_report(str(target))

    first, again = saved(), saved()
    assert list(first.failed) == [str(folder / "bad.parquet")] and (target / ERRORS).exists()
    assert first.run.rows > 0 and again == first
    (folder / "bad.parquet").unlink()
    last = saved()
    assert last.complete and last.parts == first.parts - 1 and not (target / ERRORS).exists()
    assert (last.run, last.workers, last.seconds) == (first.run, first.workers, first.seconds)
