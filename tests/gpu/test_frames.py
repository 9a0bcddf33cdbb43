"""cuDF columns over torch's memory: values, pointers, nulls, slices, files, streams, lifetimes."""

import gc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask import ColumnError, from_matrix, to_matrix
from nemo_embed_dask.frames import frame_ops
from nemo_embed_dask.ragged import Ragged

pytestmark = pytest.mark.rapids


@pytest.fixture(scope="module")
def ops():
    from nemo_embed_dask.frames import cudf as module

    return module


def rows_of(series):
    return series.to_arrow().to_pylist()


def test_texts_come_out_with_their_nulls(ops):
    import cudf

    values = ["a", None, "", "é 你好 \U0001f600", "x" * 10_000]
    series = cudf.Series(values)
    assert frame_ops(series) is ops
    assert ops.read_texts(series) == values
    assert ops.read_texts(series.iloc[1:4]) == values[1:4]
    assert ops.read_texts(series.iloc[:0]) == []
    with pytest.raises(ColumnError, match="strings are needed"):
        ops.read_texts(cudf.Series([[1.0]]))


def test_the_column_is_the_tensor_s_own_memory(ops):
    import cudf

    matrix = torch.randn(1000, 384, device="cuda")
    series = from_matrix(matrix, index=cudf.RangeIndex(5, 1005), name="v")
    assert series.list.leaves.values.data.ptr == matrix.data_ptr()
    assert series.dtype == cudf.ListDtype("float32")
    assert to_matrix(series).data_ptr() == matrix.data_ptr()
    assert torch.equal(to_matrix(series), matrix)
    assert (np.array(rows_of(series), np.float32) == matrix.cpu().numpy()).all()


@settings(max_examples=50, deadline=None)
@given(
    valid=st.lists(st.booleans(), min_size=1, max_size=1500), width=st.integers(1, 7), seed=st.integers(0, 99)
)
def test_nulls_survive_what_cudf_does_to_a_column(ops, valid, width, seed):
    import cudf

    valid = np.array(valid)
    matrix = torch.arange(len(valid) * width, dtype=torch.float32, device="cuda").view(len(valid), width)
    frame = cudf.DataFrame({"id": np.arange(len(valid))})
    frame["v"] = ops.vector_column(matrix, valid, index=frame.index, name="v")
    assert frame.v.isna().to_numpy().tolist() == (~valid).tolist()
    assert torch.equal(to_matrix(frame.v.dropna()), matrix[torch.from_numpy(valid).cuda()]) or not valid.any()
    mixed = cudf.concat([frame, frame]).sample(frac=1, random_state=seed)
    for i, row in zip(mixed.id.to_numpy().tolist(), rows_of(mixed.v), strict=True):
        assert row == (matrix[i].tolist() if valid[i] else None)


def test_slices_and_gathers_come_back_as_their_own_rows(ops):
    matrix = torch.randn(100, 8, device="cuda")
    series = from_matrix(matrix)
    assert torch.equal(to_matrix(series.iloc[10:20]), matrix[10:20])
    assert torch.equal(to_matrix(series.iloc[[3, 1, 99]]), matrix[[3, 1, 99]])
    assert to_matrix(series.iloc[:0]).numel() == 0


@pytest.mark.parametrize("rows", [0, 3])
def test_empty_and_all_null_columns_are_exact_through_a_file(ops, rows, tmp_path):
    import cudf

    column = ops.vector_column(np.zeros((rows, 1), np.float32), np.zeros(rows, bool), index=None, name="v")
    assert column.dtype == cudf.ListDtype("float32")
    cudf.DataFrame({"v": column}).to_parquet(tmp_path / "v.parquet")
    assert cudf.read_parquet(tmp_path / "v.parquet").v.dtype == cudf.ListDtype("float32")
    both = cudf.concat([column, from_matrix(torch.ones(2, 4, device="cuda"), name="v")])
    assert (len(both), both.null_count) == (rows + 2, rows)


def test_files_hold_float32_lists_for_everyone(ops, tmp_path):
    import cudf

    matrix = torch.randn(50, 16, device="cuda")
    valid = np.arange(50) % 7 != 0
    cudf.DataFrame({"v": ops.vector_column(matrix, valid, index=None, name="v")}).to_parquet(
        tmp_path / "v.parquet"
    )
    by_arrow = pd.read_parquet(tmp_path / "v.parquet", dtype_backend="pyarrow").v
    assert by_arrow.dtype.pyarrow_dtype.value_type == pa.float32()
    assert by_arrow.isna().tolist() == (~valid).tolist()
    assert (to_matrix(by_arrow.dropna()) == matrix.cpu().numpy()[valid]).all()


def test_tokens_there_and_back(ops):
    ids = Ragged.from_rows([[1, 2, 3], [], [4], [5, 6]])
    valid = np.array([True, False, True, True])
    series = ops.token_column(ids, valid, index=None, name="input_ids")
    found, there, failures = ops.read_tokens(series)
    assert failures == {}
    assert (found.values == ids.values).all()
    assert (found.offsets == ids.offsets).all()
    assert (there == valid).all()
    assert ops.read_tokens(series.iloc[2:])[0].values.tolist() == [4, 5, 6]


def test_lists_of_numbers_and_of_vectors(ops, tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    offsets, valid = np.array([0, 2, 2, 2, 4]), np.array([True, True, False, True])
    index = pd.Index([7, 8, 9, 10])
    rows = [vectors[:2].tolist(), [], None, vectors[2:].tolist()]
    series = ops.list_column(vectors, offsets, valid, index=index, name="v")
    assert rows_of(series) == rows
    assert (series.name, series.index.to_pandas().tolist()) == ("v", index.tolist())
    series.to_frame().to_parquet(tmp_path / "v.parquet")
    assert pd.read_parquet(tmp_path / "v.parquet").v.iloc[2] is None
    ids = ops.list_column(np.arange(4, dtype=np.int32), offsets, valid, index=None, name="ids")
    assert rows_of(ids) == [[0, 1], [], None, [2, 3]]
    with pytest.raises(ColumnError, match="float16"):
        ops.list_column(vectors.astype(np.float16), offsets, valid, index=None, name="v")


def test_unequal_lists_nulls_and_doubles(ops):
    import cudf

    assert to_matrix(cudf.Series([[1.0, 2.0]])).dtype == torch.float32
    with pytest.raises(ColumnError, match="differ in length"):
        to_matrix(cudf.Series([[1.0, 2.0], [3.0]]))
    with pytest.raises(ColumnError, match="nulls"):
        to_matrix(cudf.Series([[1.0, 2.0], None]))


def test_work_queued_on_another_stream_is_waited_for(ops):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        noise = torch.randn(8192, 8192, device="cuda")
        for _ in range(20):
            product = noise @ noise
        matrix = torch.zeros(64, 8, device="cuda") + product[0, 0] * 0 + 7
        assert not stream.query()  # the device still works when the column is made
        series = ops.vector_column(matrix, None, index=None, name="v")
        assert all(row == [7.0] * 8 for row in rows_of(series))


def test_memory_lives_as_long_as_the_column_and_no_longer(ops):
    gc.collect()
    before = torch.cuda.memory_allocated()
    matrix = torch.full((100_000, 64), 2.0, device="cuda")  # float32 holds all sums of them exactly
    series = ops.vector_column(matrix, None, index=None, name="v")
    del matrix
    noise = [torch.randn(100_000, 64, device="cuda") for _ in range(4)]
    assert float(series.list.leaves.sum()) == 2.0 * 6_400_000
    back = to_matrix(series)
    del series, noise
    gc.collect()
    assert float(back.sum()) == 2.0 * 6_400_000
    del back
    gc.collect()
    assert torch.cuda.memory_allocated() <= before


def test_the_limit_of_a_list_column(ops):
    with pytest.raises(ColumnError, match="at most 5592405 rows"):
        ops.vector_column(torch.empty(5_592_406, 384, device="meta"), None, index=None, name="v")
