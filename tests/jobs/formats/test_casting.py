"""Arrays keep their values when cast to wider types, also nested nulls, which Arrow's own cast damages."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nemo_embed_dask import embed_parquet
from nemo_embed_dask.jobs.formats.casting import cast_array
from nemo_embed_dask.jobs.formats.parquet_types import storable_type
from nemo_embed_dask.jobs.formats.widening import IncompatibleTypesError, widen

from ...helpers import faults
from ..schema.test_copied_columns import lines, parquet, rows

NULLS = pa.list_(pa.null())
_leaves = st.sampled_from([pa.null(), pa.int8(), pa.int16(), pa.string()])


def _nested(inner):
    structs = st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(lambda f: pa.struct([*f.items()]))
    lists = st.one_of(inner.map(pa.list_), inner.map(pa.large_list), inner.map(lambda item: pa.list_(item, 2)))
    return structs | lists | inner.map(lambda item: pa.map_(pa.string(), item))


dtypes = st.recursive(_leaves, _nested, max_leaves=5)


def values(dtype: Any) -> st.SearchStrategy:
    """Python values of a type, with nulls at any depth."""
    return st.none() | _present(dtype)


def _present(dtype: Any) -> st.SearchStrategy:
    if pa.types.is_null(dtype):
        return st.none()
    if pa.types.is_integer(dtype):
        return st.integers(-9, 9)
    if pa.types.is_string(dtype):
        return st.sampled_from("xyz")
    if pa.types.is_struct(dtype):
        return st.fixed_dictionaries({field.name: values(field.type) for field in dtype})
    if pa.types.is_map(dtype):
        return st.dictionaries(st.sampled_from("pqr"), values(dtype.item_type)).map(lambda d: [*d.items()])
    size = dtype.list_size if pa.types.is_fixed_size_list(dtype) else None
    return st.lists(values(dtype.value_type), min_size=size or 0, max_size=size or 3)


def filled(value: Any, dtype: Any) -> Any:
    """Return a value as it is in a wider type: fields that it lacks are null."""
    if value is None:
        return None
    if pa.types.is_struct(dtype):
        return {field.name: filled(value.get(field.name), field.type) for field in dtype}
    if pa.types.is_map(dtype):
        return [(key, filled(item, dtype.item_type)) for key, item in value]
    return [filled(item, dtype.value_type) for item in value] if pa.types.is_nested(dtype) else value


@settings(max_examples=300)
@given(st.data(), dtypes, dtypes)
def test_values_stay_the_same_in_every_wider_type(data, narrow, other):
    try:
        wide = storable_type(widen(other, narrow))
    except IncompatibleTypesError:
        assume(False)
    array = pa.array(data.draw(st.lists(values(narrow), max_size=5)), narrow)
    array = array.slice(data.draw(st.integers(0, len(array))))
    found = cast_array(array, wide)
    found.validate(full=True)
    assert found.type == wide and len(found) == len(array)
    assert found.to_pylist() == [filled(value, wide) for value in array.to_pylist()]


def test_cast_of_pyarrow_still_damages_lists_of_nulls():
    """When this fails, pyarrow is fixed, and `cast_array` can use its cast for all types."""
    damaged = pa.array([[None, None]], NULLS).cast(NULLS)
    with pytest.raises(pa.ArrowInvalid):
        damaged.validate(full=True)


def test_a_list_of_nulls_in_an_object_spoils_no_file_of_json(tiny, tmp_path):
    lines(tmp_path / "in/a.jsonl", {"text": "a", "meta": {"tags": [None, None]}})
    lines(tmp_path / "in/b.jsonl", {"text": "b", "meta": {"tags": [], "year": 1}})
    assert embed_parquet(faults.stage(tiny("bert")), tmp_path / "in", tmp_path / "out").complete
    assert rows(tmp_path / "out", "meta") == {
        "a": {"meta": {"tags": [None, None], "year": None}},
        "b": {"meta": {"tags": [], "year": 1}},
    }


def test_a_list_of_nulls_in_a_struct_spoils_no_file_of_parquet(tiny, tmp_path):
    narrow = pa.array([{"tags": [None, None]}], pa.struct([("tags", NULLS)]))
    wide = pa.array([{"tags": [], "year": 1}], pa.struct([("tags", NULLS), ("year", pa.int64())]))
    parquet(tmp_path / "in/a.parquet", text=["a"], meta=narrow)
    parquet(tmp_path / "in/b.parquet", text=["b"], meta=wide)
    assert embed_parquet(faults.stage(tiny("bert")), tmp_path / "in", tmp_path / "out").complete
    assert rows(tmp_path / "out", "meta")["a"] == {"meta": {"tags": [None, None], "year": None}}
