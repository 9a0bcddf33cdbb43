"""The same stages over cuDF frames and dask_cudf collections, and what dask_cudf does behind one's back."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from nemo_embed_dask import (  # fmt: skip
    ColumnError,
    EmbeddingCreatorStage,
    EmbeddingModelStage,
    ModelError,
    TokenizerStage,
    crossfit,
    embed,
    embed_cluster,
    to_matrix,
)

pytestmark = pytest.mark.rapids
# "auto" reads the machine's memory once, at start, and the memory of a lent machine may grow later.
CLUSTER = {"memory_limit": 0, "dashboard_address": ":0"}


@pytest.fixture(scope="module")
def model(tiny):
    return {"model_identifier": str(tiny("bert"))}


@pytest.fixture(scope="module")
def frame(texts):
    some = [text if i % 11 else None for i, text in enumerate(texts)]
    return pd.DataFrame({"id": np.arange(len(some)) * 3, "text": some}, index=np.arange(len(some))[::-1] + 5)


@pytest.fixture(scope="module")
def expected(frame, model):
    return embed(frame, **model)


def same(found, expected):
    """Rows in order, index, nulls, and vectors within what bfloat16 batches differ by."""
    assert found.index.to_pandas().tolist() == expected.index.tolist()
    assert found.embeddings.isna().to_numpy().tolist() == expected.embeddings.isna().tolist()
    a = to_matrix(found.embeddings.dropna()).cpu()
    b = torch.from_numpy(to_matrix(expected.embeddings.dropna()).copy())
    assert torch.nn.functional.cosine_similarity(a, b, dim=1).min() > 0.99


def test_a_cudf_frame(frame, expected, model):
    import cudf

    same(embed(cudf.from_pandas(frame), **model), expected)


@pytest.mark.parametrize("partitions", [1, 7])
def test_to_backend_cudf(frame, expected, model, partitions):
    import cudf

    ddf = dd.from_pandas(frame, npartitions=partitions, sort=False).to_backend("cudf").pipe(embed, **model)
    assert ddf._meta.embeddings.dtype == cudf.ListDtype("float32")
    assert list(ddf.columns) == ["id", "text", "embeddings"]
    same(ddf.compute(), expected)


def test_empty_partitions_have_the_exact_dtype(frame, model):
    import cudf

    ddf = dd.from_pandas(frame, npartitions=4, sort=False).to_backend("cudf")
    for part in ddf[ddf.id < 0].pipe(embed, **model).to_delayed():
        done = part.compute()
        assert (len(done), done.embeddings.dtype) == (0, cudf.ListDtype("float32"))
    assert len(ddf[ddf.id < 300].pipe(embed, **model).compute()) == 100


def test_tokens_then_vectors(frame, expected, model):
    import cudf

    ddf = dd.from_pandas(frame, npartitions=3, sort=False).to_backend("cudf")
    tokens = ddf.pipe(TokenizerStage(**model))
    assert tokens._meta.input_ids.dtype == cudf.ListDtype("int32")
    same(tokens.pipe(EmbeddingModelStage(**model)).compute(), expected)


@pytest.mark.parametrize("mode", ["truncate", "mean", "explode"])
@pytest.mark.parametrize("lazy", [False, True])
def test_windows_flags_and_several_outputs(frame, model, mode, lazy):
    import cudf

    knobs = model | {
        "long_documents": mode, "overlap": 0 if mode == "truncate" else 2, "max_seq_length": 16, "prompt": "query: ", "n_tokens_field": "n",
        "truncated_field": "cut", "extra_embeddings": ("small:8:binary",),
    }  # fmt: skip
    expected = embed(frame, **knobs)
    gdf = cudf.from_pandas(frame)
    df = dd.from_pandas(frame, npartitions=3, sort=False).to_backend("cudf") if lazy else gdf
    out = embed(df, **knobs)
    found = out.compute() if lazy else out
    if lazy:
        assert out._meta.dtypes.to_dict() == found.dtypes.to_dict()
    assert found.columns.tolist() == expected.columns.tolist()
    for name in {*expected.columns} - {"embeddings", "small", "text"}:
        assert found[name].to_arrow().to_pylist() == expected[name].tolist(), name
    assert found.small.dtype == cudf.ListDtype("int8")
    same(found, expected)


def test_float16_is_refused_with_what_to_do(frame, model):
    import cudf

    with pytest.raises(ColumnError, match="cuDF has no float16"):
        embed(cudf.from_pandas(frame), embedding_dtype="float16", **model)


def test_a_crossfit_pipeline(frame, model):
    name = model["model_identifier"]
    encoder = crossfit.SentenceTransformerModel(name)
    pipe = crossfit.op.Sequential(
        crossfit.op.Tokenizer(encoder, cols=["text"]), crossfit.op.Embedder(encoder), keep_cols=["id"]
    )
    out = pipe(dd.from_pandas(frame, npartitions=2, sort=False).to_backend("cudf")).compute()
    assert out.columns.tolist() == ["id", "embedding"]
    same(out.rename(columns={"embedding": "embeddings"}), embed(frame, embedding_pooling="auto", **model))


@pytest.fixture(scope="module")
def files(frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i, rows in enumerate(np.array_split(np.arange(len(frame)), 6)):
        frame.iloc[rows].to_parquet(folder / f"{i}.parquet")
    return folder


def test_parquet_to_parquet(files, expected, model, tmp_path):
    import cudf
    import dask_cudf

    dask_cudf.read_parquet(files, blocksize=None).pipe(embed, **model).to_parquet(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 6
    same(cudf.read_parquet(tmp_path / "out"), expected)
    assert (
        pq.read_schema(next((tmp_path / "out").glob("*.parquet"))).field("embeddings").type.value_type
        == "float"
    )


def test_a_list_column_read_back_has_to_be_declared(files, expected, model, tmp_path):
    """dask_cudf gives every list column a string's meta (cudf#9314); the page on GPUs says what to do."""
    import cudf
    import dask_cudf

    dask_cudf.read_parquet(files, blocksize=None).pipe(embed, **model).to_parquet(tmp_path / "out")
    read = dask_cudf.read_parquet(tmp_path / "out", blocksize=None)
    assert read._meta.embeddings.dtype != cudf.ListDtype("float32"), (
        "mended: take the advice out of docs/guide/gpu.md"
    )
    meta = read._meta.assign(embeddings=embed(read._meta[["text"]], **model).embeddings)
    declared = read.map_partitions(lambda part: part, meta=meta)
    assert declared._meta.embeddings.dtype == cudf.ListDtype("float32")
    assert declared.embeddings.list.len().dropna().compute().unique().to_arrow().to_pylist() == [32]


def test_partitions_are_fused_unless_told_not_to(files):
    import dask_cudf

    # dask_cudf fuses files when the expression is optimized.
    assert dask_cudf.read_parquet(files, blocksize=None).optimize().npartitions == 6
    assert dask_cudf.read_parquet(files).optimize().npartitions < 6, (
        "mended: take the advice out of docs/guide/gpu.md"
    )


def test_dask_cudf_drops_the_compression(files, model, tmp_path):
    import dask_cudf

    ddf = dask_cudf.read_parquet(files, blocksize=None).pipe(embed, **model)
    ddf.to_parquet(tmp_path / "out", compression="zstd")
    column = pq.ParquetFile(next((tmp_path / "out").glob("*.parquet"))).metadata.row_group(0).column(0)
    assert column.compression == "SNAPPY", "mended: take the advice out of docs/guide/gpu.md"
    for part in ddf.partitions[:1].to_delayed():
        part.compute().to_parquet(tmp_path / "one.parquet", compression="ZSTD")
    assert pq.ParquetFile(tmp_path / "one.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cuda_cluster_parquet_to_parquet(files, expected, model, tmp_path, workers):
    import cudf
    import dask_cudf

    stage = EmbeddingCreatorStage(**model)
    with embed_cluster(stage, n_workers=workers, **CLUSTER) as client:
        assert "LocalCUDACluster" in {kind.__name__ for kind in type(client.cluster).__mro__}
        loaded = client.run(lambda: len(__import__("nemo_embed_dask.runtimes", fromlist=["_loaded"])._loaded))
        assert list(loaded.values()) == [1] * workers
        dask_cudf.read_parquet(files, blocksize=None).pipe(stage).to_parquet(tmp_path / "out")
    same(cudf.read_parquet(tmp_path / "out"), expected)


def test_one_pool_for_cudf_and_torch(model, frame):
    """torch on RMM's pool: no memory statistics, and out-of-memory by another name."""
    settings = CLUSTER | {"rmm_pool_size": 0.5, "rmm_allocator_external_lib_list": ["torch"]}
    with embed_cluster(EmbeddingCreatorStage(**model), n_workers=1, **settings):
        ddf = dd.from_pandas(frame, npartitions=2, sort=False).to_backend("cudf")
        assert ddf.pipe(embed, **model).embeddings.isna().sum().compute() == frame.text.isna().sum()


def test_a_model_that_is_not_there_fails_before_the_cluster(tmp_path):
    with (
        pytest.raises(ModelError),
        embed_cluster(EmbeddingCreatorStage(model_identifier=str(tmp_path))),
    ):
        pytest.fail("there is a cluster")
