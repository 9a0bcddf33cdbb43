from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask import ColumnError, ConfigError, from_matrix, to_matrix
from nemo_embed_dask.frames import MAX_LIST_VALUES, arrow, check_list_size, frame_ops

shapes = st.tuples(st.integers(0, 20), st.integers(1, 8))


@given(shapes, st.integers(0, 99))
def test_matrix_round_trip_shares_memory(shape, seed):
    matrix = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    series = from_matrix(matrix, name="v")
    assert series.dtype == pd.ArrowDtype(pa.list_(pa.float32()))
    back = to_matrix(series)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back.reshape(shape) if shape[0] else matrix, matrix)
    assert not matrix.size or np.shares_memory(back, matrix)


def test_matrix_of_a_slice_and_of_arrow():
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(to_matrix(from_matrix(matrix)[1:3]), matrix[1:3])
    lists = pa.array(matrix.tolist(), pa.list_(pa.float32()))
    fixed = pa.array(matrix.tolist(), pa.list_(pa.float32(), 3))
    for array in (lists, fixed, fixed[1:], pa.chunked_array([lists[:1], lists[1:]])):
        np.testing.assert_array_equal(to_matrix(array), matrix[-len(array) :])


def test_matrix_of_python_objects():
    series = pd.Series([np.array([1.0, 2.0], np.float32), [3.0, 4.0]], dtype=object)
    np.testing.assert_array_equal(to_matrix(series), [[1, 2], [3, 4]])


def test_matrix_of_other_libraries():
    values = pl.Series([[1.0, 2.0], None, [3.0, 4.0]], dtype=pl.List(pl.Float32)).drop_nulls()
    for column in (values, values.cast(pl.Array(pl.Float32, 2))):
        np.testing.assert_array_equal(to_matrix(column), [[1, 2], [3, 4]])
    signs = to_matrix(pl.Series([[1, -1]], dtype=pl.Array(pl.Int8, 2)))
    assert (signs.dtype, signs.tolist()) == (np.int8, [[1, -1]])
    lazy = dd.from_pandas(pd.DataFrame({"v": from_matrix(np.ones((2, 2)))}), npartitions=1)
    with pytest.raises(ColumnError, match="a Dask column has no values yet"):
        to_matrix(lazy.v)
    with pytest.raises(ColumnError, match=r"builtins\.list is not a supported"):
        to_matrix([[1.0]])


def test_nulls_and_unequal_lengths_are_refused():
    with pytest.raises(ColumnError, match="first at position 1"):
        to_matrix(pa.array([[1.0], None], pa.list_(pa.float32())))
    with pytest.raises(ColumnError, match="differ in length"):
        to_matrix(pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())))
    for dtype in (pa.float32(), pa.int8()):
        with pytest.raises(ColumnError, match="1 values within the vectors are null"):
            to_matrix(pa.array([[1, None], [1, 2]], pa.list_(dtype)))
    for wrong in ([1.0], ["a"], [["a"]], [[[1.0]]]):
        with pytest.raises(ColumnError, match="has no vectors; pass lists of numbers"):
            to_matrix(pa.array(wrong))
    with pytest.raises(ColumnError, match="does not fit"):
        from_matrix(np.zeros((2, 3)), index=[1])


def test_the_limit_of_list_columns_is_named_early():
    check_list_size(5_592_405, 384)
    with pytest.raises(ColumnError, match="at most 5592405 rows"):
        check_list_size(5_592_406, 384)
    assert MAX_LIST_VALUES == 2**31 - 1


def test_an_unknown_library_is_named():
    with pytest.raises(ColumnError, match="builtins.dict"):
        frame_ops({"text": ["a"]})


def test_lists_of_numbers_and_of_vectors():
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    offsets, valid = np.array([0, 2, 2, 2, 4]), np.array([True, True, False, True])
    array = arrow.list_column(vectors, offsets, valid)
    assert array.type == pa.list_(pa.list_(pa.float32()))
    assert array.to_pylist() == [vectors[:2].tolist(), [], None, vectors[2:].tolist()]
    assert np.shares_memory(array.values.values.to_numpy(), vectors)
    index = pd.Index(list("abcd"))
    pandas_ops = frame_ops(pd.Series([""]))
    series = pandas_ops.list_column(np.arange(4, dtype=np.int32), offsets, valid, index=index, name="ids")
    assert pa.array(series).to_pylist() == [[0, 1], [], None, [2, 3]]
    assert (series.name, series.index.tolist()) == ("ids", list("abcd"))
    with pytest.raises(ColumnError, match="no index and no name"):
        arrow.list_column(vectors, offsets, valid, name="v")
    assert pd.api.types.pandas_dtype(
        str(pandas_ops.list_column(vectors, offsets, valid, index=index, name="v").dtype)
    )


def test_what_is_no_matrix_or_no_column_is_refused():
    with pytest.raises(ColumnError, match=r"a matrix is needed, not a list; pass numpy\.asarray\(matrix\)"):
        from_matrix([[1.0, 2.0]])
    with pytest.raises(ConfigError, match="'polars' is unknown; choose one of pandas, cudf, pyarrow"):
        from_matrix(np.zeros((1, 2)), library="polars")
    with pytest.raises(ColumnError, match=r"one column is needed, not a DataFrame; pass for example df\.emb"):
        to_matrix(pd.DataFrame({"embeddings": [[1.0]]}))
