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
        again, kept = ops.read_tokens(source)
        assert [again.row(i).tolist() for i in range(3)] == [[1, 2], [], [3]]
        assert kept.tolist() == valid.tolist()
        tail, kept = ops.read_tokens(source[1:])
        assert [tail.row(i).tolist() for i in range(2)] == [[], [3]]
        assert kept.tolist() == [False, True]
    with pytest.raises(ColumnError, match="'t' cannot be read as list"):
        ops.read_tokens(pd.Series(["x"], name="t", dtype=object))


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
