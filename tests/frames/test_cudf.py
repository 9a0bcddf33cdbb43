"""Tests with real pylibcudf columns and cuDF series over CPU memory, without a GPU or a driver.

Only the two functions that share memory (`_share_tensor`, `_share_column`) are replaced.
"""

import ctypes
import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask import ColumnError, from_matrix, to_matrix
from nemo_embed_dask.device_ragged import DeviceRagged
from nemo_embed_dask.ragged import Ragged

pytestmark = pytest.mark.rapids


class FakeGpuMemory:
    """CPU memory with the interface of GPU memory, as `torch.Tensor.__cuda_array_interface__` of torch 2.13."""

    def __init__(self, tensor):
        assert tensor.is_contiguous()
        self.tensor = tensor
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape), "typestr": np.dtype(str(tensor.dtype)[6:]).str, "version": 2,
            "strides": None, "data": (tensor.data_ptr() if tensor.numel() else 0, False),
        }  # fmt: skip


def read(pointer, count, dtype):
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype) if count else np.empty(0, dtype)


def leaves_pointer(series):
    return series.to_pylibcudf()[0].child(1).data().ptr


@pytest.fixture(scope="module")
def ops():
    import pylibcudf as plc

    from nemo_embed_dask.frames import cudf as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "default_device", lambda: torch.device("cpu"))
        patch.setattr(module, "_share_tensor", lambda tensor: plc.gpumemoryview(FakeGpuMemory(tensor)))

        def values(column, dtype):
            memory = module._ColumnMemory(column, dtype).__cuda_array_interface__ if column.size() else None
            pointer, count = (memory["data"][0], memory["shape"][0]) if memory else (0, 0)
            return torch.from_numpy(read(pointer, count, str(dtype)[6:]).copy())

        patch.setattr(module, "_share_column", values)
        yield module


def masked(series):
    """Return which rows are null, read from the bits that libcudf reads."""
    column, _ = series.to_pylibcudf()
    if column.null_mask() is None:
        return np.zeros(column.size(), bool)
    size = -(-column.size() // 512) * 64
    bits = np.unpackbits(read(column.null_mask().ptr, size, np.uint8), bitorder="little")
    assert not bits[column.size() :].any()
    return ~bits[: column.size()].astype(bool)


def test_a_matrix_becomes_a_list_column_over_its_own_memory(ops):
    import cudf

    matrix = torch.arange(12, dtype=torch.float32).view(4, 3)
    index = cudf.RangeIndex(10, 14)
    series = ops.vector_column(matrix, None, index=index, name="embeddings")
    column, metadata = series.to_pylibcudf()
    assert leaves_pointer(series) == matrix.data_ptr()
    assert isinstance(series, cudf.Series)
    assert series.dtype == cudf.ListDtype("float32")
    assert (len(series), series.name, metadata["index"].start) == (4, "embeddings", 10)
    assert read(column.child(0).data().ptr, 5, np.int32).tolist() == [0, 3, 6, 9, 12]
    assert cudf.DataFrame({"embeddings": series}).columns.tolist() == ["embeddings"]


def test_the_column_keeps_the_memory_alive_after_the_matrix_is_gone(ops):
    matrix = torch.full((1000, 384), 7.0)
    series = ops.vector_column(matrix, None, index=None, name=None)
    del matrix
    noise = [torch.full((1000, 384), float(i)) for i in range(8)]
    assert (read(leaves_pointer(series), 384_000, np.float32) == 7.0).all()
    assert len(noise) == 8


@settings(max_examples=60)
@given(valid=st.lists(st.booleans(), min_size=1, max_size=1200), width=st.integers(1, 5))
def test_nulls_are_where_they_were_and_hold_no_values(ops, valid, width):
    valid = np.array(valid)
    matrix = torch.arange(len(valid) * width, dtype=torch.float32).view(len(valid), width)
    series = ops.vector_column(matrix, valid, index=None, name="v")
    column, _ = series.to_pylibcudf()
    assert series.null_count == (~valid).sum()
    assert (masked(series) == ~valid).all()
    offsets = read(column.child(0).data().ptr, len(valid) + 1, np.int32)
    assert (np.diff(offsets) == np.where(valid, width, 0)).all()
    left = read(leaves_pointer(series), int(valid.sum()) * width, np.float32)
    assert (left.reshape(-1, width) == matrix.numpy()[valid]).all()


@pytest.mark.parametrize("rows", [0, 3])
def test_empty_and_all_null_columns_have_the_exact_type(ops, rows):
    import cudf

    made = ops.vector_column(
        np.zeros((rows, 1), np.float32), np.zeros(rows, bool), index=None, name="embeddings"
    )
    ids = ops.token_column(
        Ragged.from_lengths(np.empty(0, np.int32), [0] * rows), np.zeros(rows, bool), index=None, name="t"
    )
    assert (made.dtype, ids.dtype) == (cudf.ListDtype("float32"), cudf.ListDtype("int32"))
    assert (len(made), made.null_count, len(ids), ids.null_count) == (rows, rows, rows, rows)


def test_tokens_are_ragged_int32(ops):
    ids = Ragged.from_rows([[1, 2, 3], [], [4]])
    series = ops.token_column(ids, np.array([True, False, True]), index=None, name="input_ids")
    column, _ = series.to_pylibcudf()
    assert read(leaves_pointer(series), 4, np.int32).tolist() == [1, 2, 3, 4]
    assert read(column.child(0).data().ptr, 4, np.int32).tolist() == [0, 3, 3, 4]
    assert masked(series).tolist() == [False, True, False]


def test_tokens_on_the_gpu_become_a_column_over_their_own_memory(ops):
    ids = DeviceRagged.from_host(Ragged.from_rows([[1, 2, 3], [], [4]]), torch.device("cpu"))
    series = ops.token_column(ids, np.array([True, False, True]), index=None, name="input_ids")
    assert leaves_pointer(series) == ids.values.data_ptr()
    column, _ = series.to_pylibcudf()
    assert read(column.child(0).data().ptr, 4, np.int32).tolist() == [0, 3, 3, 4]
    assert masked(series).tolist() == [False, True, False]
    del ids
    noise = [torch.full((4,), 9, dtype=torch.int32) for _ in range(8)]
    assert read(leaves_pointer(series), 4, np.int32).tolist() == [1, 2, 3, 4]
    assert len(noise) == 8


def test_the_lists_of_a_tokenizer_become_tensors(ops, monkeypatch):
    """cuDF's ids are a list column; its two children are read, and nothing else of it."""
    from nemo_embed_dask.frames import cudf_wordpiece

    class Tokenizer:
        def tokenize(self, column):
            return ops.token_column(column, np.ones(len(column), bool), index=None, name=None)

    monkeypatch.setattr(cudf_wordpiece, "_load", lambda _: (None, Tokenizer()))
    rows = Ragged.from_rows([[7, 8], [], [9]])
    values, offsets = cudf_wordpiece.tokenize(rows, None)
    assert (values.dtype, values.tolist()) == (torch.int32, [7, 8, 9])
    assert (offsets.dtype, offsets.tolist()) == (torch.int32, [0, 2, 2, 3])
    values, offsets = cudf_wordpiece.tokenize(Ragged.from_rows([[], []]), None)  # no word at all
    assert (values.tolist(), offsets.tolist()) == ([], [0, 0, 0])


def test_the_way_back_is_the_same_matrix(ops):
    matrix = torch.randn(5, 4)
    series = ops.vector_column(matrix, None, index=None, name="v")
    assert torch.equal(to_matrix(series), matrix)
    assert to_matrix(ops.vector_column(matrix[:0], None, index=None, name="v")).shape == (0, 0)


def test_the_way_back_honours_a_slice(ops):
    import cudf
    import pylibcudf as plc

    matrix = torch.randn(6, 3)
    whole, _ = ops.vector_column(matrix, None, index=None, name="v").to_pylibcudf()
    part = plc.Column(whole.type(), 2, None, None, 0, 3, whole.children())
    sliced = cudf.Series.from_pylibcudf(part, {"name": "v"})
    assert torch.equal(ops.read_vectors(sliced), matrix[3:5])


def test_the_way_back_reads_doubles_as_curator_stores_them(ops):
    import cudf
    import pylibcudf as plc

    ends, leaves = (
        torch.tensor([0, 2, 4], dtype=torch.int32),
        torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64),
    )
    lists = plc.Column(
        plc.DataType(plc.TypeId.LIST), 2, None, None, 0, 0, [ops._column(ends), ops._column(leaves)]
    )
    found = ops.read_vectors(cudf.Series.from_pylibcudf(lists, {"name": "v"}))
    assert found.dtype == torch.float32
    assert found.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda ops: ops.vector_column(torch.ones(2, 2), np.array([True, False]), index=None, name="v"),
            "1 nulls",
        ),
        (
            lambda ops: ops.token_column(Ragged.from_rows([[1]]), np.array([True]), index=None, name="v"),
            "lists of floats",
        ),
    ],
)
def test_the_way_back_says_what_is_wrong(ops, make, message):
    with pytest.raises(ColumnError, match=message):
        to_matrix(make(ops))


def test_lists_of_unequal_length_are_no_matrix(ops):
    import cudf
    import pylibcudf as plc

    ends, leaves = torch.tensor([0, 2, 3], dtype=torch.int32), torch.ones(3)
    lists = plc.Column(
        plc.DataType(plc.TypeId.LIST), 2, None, None, 0, 0, [ops._column(ends), ops._column(leaves)]
    )
    with pytest.raises(ColumnError, match="differ in length"):
        ops.read_vectors(cudf.Series.from_pylibcudf(lists, {"name": "v"}))


def test_an_index_that_does_not_fit_is_refused(ops):
    import cudf

    with pytest.raises(ColumnError, match="4 rows do not fit an index of 7"):
        ops.vector_column(torch.ones(4, 2), None, index=cudf.RangeIndex(7), name="v")


def test_too_many_leaves_are_refused_before_any_memory_is_touched(ops):
    matrix = torch.empty(5_592_406, 384, device="meta")
    with pytest.raises(ColumnError, match="at most 5592405 rows"):
        ops.vector_column(matrix, None, index=None, name="v")


def test_from_matrix_picks_the_library(ops):
    import cudf

    matrix = np.ones((3, 2), np.float32)
    assert isinstance(from_matrix(matrix, index=cudf.RangeIndex(3)), cudf.Series)
    assert isinstance(from_matrix(matrix, library="cudf", name="v"), cudf.Series)
    assert isinstance(from_matrix(torch.ones(3, 2)), pd.Series)


def test_list_dtypes_are_no_text_and_strings_are(ops):
    import cudf

    assert ops.is_text(pd.StringDtype(na_value=np.nan))
    assert not ops.is_text(cudf.ListDtype("float32"))
    assert not ops.is_text(np.dtype("int64"))


def test_the_rapids_calls_we_make_are_still_what_they_were():
    import cudf
    import pylibcudf as plc

    def names(call):
        return list(inspect.signature(call).parameters)

    assert names(cudf.Series.from_pylibcudf) == ["col", "metadata"]
    assert names(cudf.Series.to_pylibcudf) == names(cudf.Series.to_arrow) == ["self"]
    column = plc.Column.__doc__.splitlines()[0]  # compiled: it has no other signature
    places = [
        column.index(name) for name in ("data_type,", " size,", "data:", "mask:", "null_count,", " offset,")
    ]
    assert places == sorted(places)
    assert plc.gpumemoryview.__doc__.splitlines()[0] == "gpumemoryview(obj: Any)"
