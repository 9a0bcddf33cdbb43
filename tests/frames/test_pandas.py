from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nemo_embed_dask.errors import ColumnError
from nemo_embed_dask.frames import pandas as ops
from nemo_embed_dask.ragged import Ragged

VALUES = ["a", None, "", "é"]
STRINGS = {
    "str": pd.Series(VALUES, dtype="str"),
    "string": pd.Series(VALUES, dtype="string"),
    "python": pd.Series(VALUES, dtype=pd.StringDtype("python")),
    "arrow": pd.Series(VALUES, dtype=pd.ArrowDtype(pa.string())),
    "large": pd.Series(VALUES, dtype=pd.ArrowDtype(pa.large_string())),
    "object": pd.Series(VALUES, dtype=object),
    "object with nan": pd.Series(["a", np.nan, "", "é"], dtype=object),
    "object with NA": pd.Series(["a", pd.NA, "", "é"], dtype=object),
}


@pytest.mark.parametrize("kind", STRINGS)
def test_texts_keep_nulls_and_order(kind):
    assert ops.is_text(STRINGS[kind].dtype)
    assert ops.read_texts(STRINGS[kind]) == VALUES
    assert ops.read_texts(STRINGS[kind][2:]) == VALUES[2:]


@pytest.mark.parametrize("series", [pd.Series([1]), pd.Series([1.5]), pd.Series(["a"], dtype="category"),
                                    pd.Series(pd.to_datetime(["2026-01-01"])), pd.Series([True])])  # fmt: skip
def test_other_types_are_not_text(series):
    assert not ops.is_text(series.dtype)


def test_vectors_keep_index_name_and_nulls():
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    series = ops.vector_column(
        matrix, np.array([True, False, True]), index=pd.Index([7, 7, 9], name="i"), name="v"
    )
    assert series.name == "v"
    assert series.index.tolist() == [7, 7, 9]
    assert series.isna().tolist() == [False, True, False]
    assert pa.array(series.array).to_pylist() == [[0.0, 1.0], None, [4.0, 5.0]]


def test_tokens_round_trip_with_nulls_slices_and_objects():
    ids, valid = Ragged.from_rows([[1, 2], [], [3]]), np.array([True, False, True])
    series = ops.token_column(ids, valid, index=None, name="t")
    assert series.dtype == pd.ArrowDtype(pa.list_(pa.int32()))
    for source in (series, pd.Series([[1, 2], None, [3]], dtype=object)):
        again, kept, failures = ops.read_tokens(source)
        assert failures == {}
        assert [again.row(i).tolist() for i in range(3)] == [[1, 2], [], [3]]
        assert kept.tolist() == valid.tolist()
        tail, kept, _ = ops.read_tokens(source[1:])
        assert [tail.row(i).tolist() for i in range(2)] == [[], [3]]
        assert kept.tolist() == [False, True]
    with pytest.raises(ColumnError, match="'t' cannot be read as list"):
        ops.read_tokens(pd.Series([1], name="t"))


WRONG = {
    "float array": np.array([2, 5.5]),
    "array with NaN": np.array([2, np.nan]),
    "null": [2, None],
    "only nulls": [None],
    "string": ["a"],
    "number in a string": ["5"],
    "nested": [[2, 3]],
    "matrix": np.array([[2, 3]]),
    "scalar array": np.array(5),
    "too large": [2, 2**31],
    "much too large": [2, 2**70],
    "uint64": np.array([2, 2**63], np.uint64),
    "negative": [2, -1],
    "int": 5,
    "text": "ab",
    "bytes": b"ab",
    "dict": {"a": 1},
    "timestamp": pd.Timestamp("2026-01-01"),
    "series": pd.Series([1, 2]),
}
RIGHT = {
    "int64": np.array([7, 8]),
    "whole floats": [7.0, 8.0],
    "tuple": (7, 8),
    "uint8": np.array([7, 8], np.uint8),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("around", RIGHT)
def test_values_that_are_not_token_ids_fail_their_row(kind, around):
    series = pd.Series([RIGHT[around], None, None, RIGHT[around]], dtype=object)
    series.array[1] = WRONG[kind]
    ids, valid, failures = ops.read_tokens(series)
    assert [ids.row(i).tolist() for i in range(4)] == [[7, 8], [], [], [7, 8]]
    assert ids.values.dtype == np.int32
    assert valid.tolist() == [True, False, False, True]
    assert [*failures] == [1] and "whole number" in failures[1]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [(pa.int64(), 2**32 + 7), (pa.int64(), -1), (pa.int64(), None), (pa.float64(), 7.5), (pa.float32(), np.nan),
     (pa.float16(), 7.5), (pa.int8(), -7), (pa.uint64(), 2**63), (pa.int32(), None)],
)  # fmt: skip
def test_arrow_lists_with_values_that_are_not_token_ids(make, dtype, wrong):
    rows = [[0], [7, wrong], None, [], [7, 8], [wrong]]
    # Older versions of pyarrow do not convert numbers to float16.
    written = pa.float32() if dtype == pa.float16() else dtype
    array = pa.array(rows, make(written)).cast(make(dtype))
    series = pd.Series(pd.arrays.ArrowExtensionArray(array), name="t")
    for start in (0, 1):
        ids, valid, failures = ops.read_tokens(series[start:])
        found = [ids.row(i).tolist() for i in range(len(ids))]
        assert found == [[0], [], [], [], [7, 8], []][start:]
        assert valid.tolist() == [True, False, False, True, True, False][start:]
        assert [*failures] == [1 - start, 5 - start]
    shown = "nan" if wrong is None else str(float(wrong) if dtype in (pa.float64(), pa.float16()) else wrong)
    assert f"its token ids include {shown}, which is not a whole number" in failures[0]


@pytest.mark.parametrize(
    "dtype", [pa.list_(pa.string()), pa.list_(pa.list_(pa.int32())), pa.int64(), pa.string()]
)
def test_arrow_columns_of_other_types_have_no_token_ids(dtype):
    with pytest.raises(ColumnError, match="has no token ids; pass lists of whole numbers"):
        ops.read_tokens(pd.Series(pd.arrays.ArrowExtensionArray(pa.nulls(2, dtype))))


NAMES = ["list<item: float>[pyarrow]", "list<element: float>[pyarrow]", "list<item: int32>[pyarrow]"]


@pytest.mark.parametrize("name", NAMES)
def test_pandas_reads_our_list_dtypes_by_name(name):
    leaf = pa.int32() if "int32" in name else pa.float32()
    assert pd.api.types.pandas_dtype(name) == pd.ArrowDtype(pa.list_(leaf))


def test_pandas_alone_still_cannot():
    """The reason for our one effect on import; the day this fails, `_ArrowListName` can go."""
    code = f"import pandas as pd; pd.api.types.pandas_dtype({NAMES[0]!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "not understood" in done.stderr


def test_other_dtype_names_are_left_alone():
    for name in ("int64", "list<item: string>[pyarrow]", "nonsense"):
        with pytest.raises(TypeError, match="Cannot construct"):
            ops._ArrowListName.construct_from_string(name)
    assert pd.api.types.pandas_dtype("int64") == np.int64
