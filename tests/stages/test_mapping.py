"""What a Dask user expects of `map_column`, seen through `embed`."""

from __future__ import annotations

import pickle

import dask
import dask.array
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import nemo_embed_dask as ned
from nemo_embed_dask import runtimes
from nemo_embed_dask.errors import ColumnError, RowError
from nemo_embed_dask.models import card
from nemo_embed_dask.stages import tasks, workers

from ..helpers.tiny import TEXT

VECTOR = pd.ArrowDtype(pa.list_(pa.float32()))


@pytest.fixture(scope="module")
def stage(tiny):
    return ned.EmbeddingCreatorStage(model_identifier=str(tiny("bert")), autocast=False)


@pytest.fixture
def frame():
    text = [*TEXT, None, "", *TEXT]
    return pd.DataFrame(
        {"id": range(len(text)), "text": text, "url": [f"u{i}" for i in range(len(text))], "score": 0.5},
        index=pd.Index([0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9], name="key"),
    )


@pytest.fixture
def parquet(frame, tmp_path):
    for i in range(4):
        frame.iloc[3 * i : 3 * i + 3].to_parquet(tmp_path / f"{i}.parquet")
    return tmp_path


def vectors(frame):
    return ned.to_matrix(frame.embeddings.dropna())


def test_building_the_graph_reads_nothing_and_loads_nothing(stage, frame, monkeypatch):
    monkeypatch.setattr(runtimes, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(card, "find_model", lambda *_: pytest.fail("a model was looked for"))
    out = dd.from_pandas(frame, npartitions=2).pipe(stage)
    assert out.dtypes["embeddings"] == VECTOR
    assert len(out.columns) == 5
    out.optimize()


def test_the_graph_is_small_and_holds_no_secret(stage, frame):
    secret = "hf_verysecretindeed"
    with_token = ned.EmbeddingCreatorStage(
        model_identifier=stage.model_identifier, autocast=False, hf_token=secret
    )
    ddf = dd.from_pandas(frame[["text"]], npartitions=1)
    graph = pickle.dumps(dict(with_token(ddf).optimize().__dask_graph__()))
    assert len(graph) < 50_000
    assert secret.encode() not in graph
    assert secret.encode() not in pickle.dumps(with_token)
    assert secret not in repr(with_token)
    assert secret not in str(dask.base.normalize_token(with_token))
    assert with_token(ddf).__dask_keys__() == stage(ddf).__dask_keys__()


def test_equal_settings_give_equal_keys_and_different_ones_different_keys(stage, frame):
    ddf = dd.from_pandas(frame, npartitions=2)

    def key(**changes):
        knobs = {"model_identifier": stage.model_identifier, "autocast": False, **changes}
        out = ddf.pipe(ned.embed, **knobs)
        return str(out[out.columns[-1]].__dask_keys__())

    changes = [
        {}, {"model_identifier": "other"}, {"max_chars": 9}, {"max_seq_length": 9}, {"padding_side": "left"},
        {"embedding_pooling": "cls"}, {"model_inference_batch_size": 9}, {"autocast": True},
        {"sort_by_length": False}, {"revision": "abc"}, {"on_error": "null"}, {"embedding_field": "e"},
    ]  # fmt: skip
    keys = [key(**change) for change in changes]
    assert len({*keys}) == len(changes)
    assert key() == keys[0]


@pytest.mark.parametrize("rows", ["filled", "empty", "all null"])
def test_meta_is_exact(stage, frame, rows):
    part = {
        "filled": frame,
        "empty": frame.iloc[:0],
        "all null": frame.assign(text=None).astype({"text": "str"}),
    }[rows]
    ddf = dd.from_pandas(part, npartitions=1)
    out = ddf.pipe(stage)
    got = out.compute()
    assert got.dtypes.to_dict() == out.dtypes.to_dict() == out._meta.dtypes.to_dict()
    assert got.columns.tolist() == out.columns.tolist()
    assert got.index.name == "key"
    assert len(got) == len(part)
    assert got.embeddings.isna().tolist() == part.text.isna().tolist()


def test_rows_order_index_divisions_and_columns_survive(stage, frame):
    ddf = dd.from_pandas(frame, npartitions=3)
    out = ddf.pipe(stage)
    assert out.divisions == ddf.divisions
    got = out.compute()
    pd.testing.assert_frame_equal(got.drop(columns="embeddings"), ddf.compute())
    one = ned.embed(frame, model_identifier=stage.model_identifier, autocast=False)
    np.testing.assert_allclose(vectors(got), vectors(one), atol=1e-6)
    pd.testing.assert_index_equal(got.index, frame.index)
    assert "embeddings" not in frame


def test_only_the_columns_needed_are_read(stage, parquet):
    out = dd.read_parquet(parquet).pipe(stage)[["id", "embeddings"]]
    reads = [node for node in out.expr.optimize(fuse=False).walk() if not node.dependencies()]
    assert reads
    assert {column for read in reads for column in read.columns} == {"id", "text"}


def test_bytes_of_other_columns_are_not_read(stage, tmp_path):
    big = np.random.default_rng(0).bytes(4_000_000).hex()
    pd.DataFrame({"id": [1], "text": ["a"], "big": [big]}).to_parquet(tmp_path / "a.parquet")
    read = []
    from fsspec.implementations import local

    class Counting(local.LocalFileSystem):
        protocol = "counting"

        def _open(self, path, mode="rb", **kwargs):
            file = super()._open(path, mode, **kwargs)
            if "r" in mode:
                inner = file.f.read
                file.f = _Reader(file.f, lambda n=-1: read.append(len(data := inner(n))) or data)
            return file

    class _Reader:
        def __init__(self, file, read_):
            self._file, self.read = file, read_

        def __getattr__(self, name):
            return getattr(self._file, name)

    import fsspec

    fsspec.register_implementation("counting", Counting, clobber=True)
    ddf = dd.read_parquet(str(tmp_path / "a.parquet"), filesystem=Counting())
    out = ddf.pipe(stage)[["id", "embeddings"]].compute(scheduler="sync")
    assert len(out) == 1
    assert 0 < sum(read) < 1_000_000


def test_the_model_never_runs_when_vectors_are_not_used(stage, parquet, monkeypatch):
    monkeypatch.setattr(tasks, "embed_texts", lambda *_, **__: pytest.fail("the model ran"))
    out = dd.read_parquet(parquet).pipe(stage)
    assert len(out) == 12
    assert out.id.sum().compute(scheduler="sync") == 66
    assert len(out[["id", "url"]].compute(scheduler="sync")) == 12


BAD = {
    "missing": ({"text_field": "body"}, r"no column 'body'.*\['id', 'text'"),
    "number": ({"text_field": "score"}, "'score' has dtype float64.*astype"),
    "taken": ({"embedding_field": "url"}, "column 'url' already.*overwrite=True"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("lazy", [True, False])
def test_wrong_columns_are_errors_when_the_graph_is_built(stage, frame, case, lazy):
    parameters, message = BAD[case]
    df = dd.from_pandas(frame, npartitions=2) if lazy else frame
    with pytest.raises(ColumnError, match=message):
        df.pipe(ned.embed, model_identifier=stage.model_identifier, **parameters)


def test_overwrite_replaces_and_twin_columns_are_refused(stage, frame):
    out = frame.assign(embeddings=1).pipe(ned.embed, model_identifier=stage.model_identifier, overwrite=True)
    assert out.embeddings.dtype == VECTOR
    with pytest.raises(ColumnError, match="2 columns named 'text'"):
        stage(pd.concat([frame, frame[["text"]]], axis=1))
    with pytest.raises(ColumnError, match="is not a supported dataframe"):
        stage({"text": ["a"]})
    with pytest.raises(ColumnError, match="a DataFrame is needed, not a Series; pass"):
        stage(frame.text)


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (["a", "b"], r"pass one of Dask, pandas or cuDF, such as pandas\.DataFrame\(\{'text': texts\}\)"),
        ("texts/", r"dask\.dataframe\.read_parquet\(path\)"),
        (polars.DataFrame({"text": ["a"]}), r"convert it first with \.to_pandas\(\)"),
        (polars.LazyFrame({"text": ["a"]}), r"convert it first with \.collect\(\)\.to_pandas\(\)"),
        (pa.table({"text": ["a"]}), r"pyarrow.*\.to_pandas\(\)"),
        (pa.array(["a"]), r"pyarrow.*\.to_pandas\(\)"),
        (dask.bag.from_sequence(["a"]), r"Bag.*\.to_dataframe\("),
        (dask.array.from_array(np.array(["a"])), r"Array.*\.to_dask_dataframe\("),
        (dask.delayed(pd.DataFrame)(), "Delayed.*pass one of Dask"),
    ],
)
def test_other_collections_are_told_how_to_become_a_frame(data, advice):
    with pytest.raises(ColumnError, match=advice):
        ned.embed(data)


def test_an_error_names_column_partition_and_row(stage):
    texts = ["a"] * 7 + ["\ud800"]

    def part(number):
        return pd.DataFrame({"text": pd.Series(texts[4 * number :][:4], dtype=object)})

    with dask.config.set({"dataframe.convert-string": False}):
        ddf = dd.from_map(part, [0, 1], meta=part(2)).pipe(stage)
        with pytest.raises(RowError, match="column 'text', partition 1, row 3: not valid text"):
            ddf.compute(scheduler="sync")


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_schedulers_agree(stage, parquet, scheduler):
    out = dd.read_parquet(parquet).pipe(stage).compute(scheduler=scheduler)
    expected = stage(pd.read_parquet(parquet))
    np.testing.assert_allclose(vectors(out), vectors(expected), atol=1e-6)


@pytest.fixture(scope="module")
def client():
    with (
        dask.config.set({"distributed.worker.daemon": True}),
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def _models_in_process():
    return len(runtimes._loaded)


def test_a_cluster_of_threaded_workers_loads_one_model_a_process(stage, parquet, client):
    out = dd.read_parquet(parquet).pipe(stage).compute()
    np.testing.assert_allclose(vectors(out), vectors(stage(pd.read_parquet(parquet))), atol=1e-6)
    assert {*client.run(_models_in_process).values()} <= {0, 1}
    assert client.submit(workers.cores_per_task, pure=False).result() == 2


def test_cores_are_left_to_torch_outside_a_cluster():
    assert workers.cores_per_task() is None


def test_list_columns_survive_a_p2p_shuffle(stage, frame, client):
    from nemo_embed_dask import to_matrix

    out = dd.from_pandas(frame.dropna(), npartitions=3).pipe(stage)
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        shuffled = out.set_index("id").compute()
    expected = stage(frame.dropna()).set_index("id").sort_index()
    assert shuffled.embeddings.dtype == VECTOR
    np.testing.assert_allclose(
        to_matrix(shuffled.sort_index().embeddings), to_matrix(expected.embeddings), atol=1e-6
    )


def test_every_reader_reads_the_parquet_that_dask_writes(stage, frame, tmp_path):
    import duckdb
    import polars

    path = tmp_path / "vectors"
    dd.from_pandas(frame, npartitions=3).pipe(stage).to_parquet(path)
    expected = [
        None if v is None else [*map(float, v)] for v in pa.array(stage(frame).embeddings.array).to_pylist()
    ]

    def check(got):
        for row, want in zip(got, expected, strict=True):
            assert (row is None) == (want is None)
            assert want is None or np.allclose(row, want, atol=1e-6)

    check(pa.array(dd.read_parquet(path).compute().embeddings.array).to_pylist())
    check(pa.array(pd.read_parquet(path).embeddings.array).to_pylist())
    table = pq.read_table(path)
    assert table.schema.field("embeddings").type == pa.list_(pa.float32())
    check(table.column("embeddings").to_pylist())
    check(polars.read_parquet(path / "*.parquet")["embeddings"].to_list())
    assert polars.read_parquet(path / "*.parquet").schema["embeddings"] == polars.List(polars.Float32)
    rows = duckdb.sql(f"select embeddings, typeof(embeddings) from '{path}/*.parquet'").fetchall()
    check([row[0] for row in rows])
    assert {row[1] for row in rows} == {"FLOAT[]"}


def test_a_failed_task_does_not_hide_in_a_short_result(stage, frame):
    """The column handed back has the partition's own index, so that Dask's alignment cannot invent nulls."""
    part = frame.iloc[[3, 0, 2]]
    assert stage(part).index.equals(part.index)
