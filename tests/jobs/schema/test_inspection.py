"""Inspection reads as much of JSON lines as requested, and infers types only of the requested columns."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nemo_embed_dask import ColumnError, JobError, embed_parquet
from nemo_embed_dask.jobs.schema.json_sampling import MIN_FILE_BYTES, sample_budgets

from ...helpers import faults
from .test_copied_columns import lines, rows


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@given(st.lists(st.integers(0, 1 << 20), max_size=50), st.integers(1, 1 << 22))
@example([94080, 0, 94080, 0, 73986], 1 << 18)  # one in two is still 2 bytes more than the total
@example([300_000, 1, 300_000, 1], 300_000)  # one in two is all of the large ones
def test_a_sample_is_all_there_is_or_as_much_as_was_asked_for(sizes, total):
    budgets = sample_budgets(sizes, total)
    looked_at = [min(size, budget) for size, budget in zip(sizes, budgets, strict=True)]
    if sum(sizes) <= total:
        assert looked_at == sizes and all(budgets)
    else:
        assert sum(looked_at) <= total + len(sizes)
    some = [(size, budget) for size, budget in zip(sizes, budgets, strict=True) if budget]
    assert len(some) <= 1 or all(budget >= min(size, MIN_FILE_BYTES) for size, budget in some)


def test_many_small_files_are_all_looked_at(model, tmp_path):
    for k in range(300):
        lines(tmp_path / f"in/{k:03}.jsonl", {"text": f"{k}", "n": 0.5 if k == 17 else 1})
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out")
    assert report.complete, report.failed
    found = rows(tmp_path / "out", "n")
    assert len(found) == 300 and found["17"] == {"n": 0.5} and found["18"] == {"n": 1.0}


@pytest.mark.parametrize("columns", ["id", [], ["only_a"]])
def test_a_column_that_is_not_wanted_spoils_nothing(columns, model, tmp_path):
    lines(tmp_path / "in/a.jsonl", {"text": "a", "id": 1.5, "only_a": 1, "z": [1, "x"]})
    lines(tmp_path / "in/b.jsonl", {"text": "b", "id": 2, "z": 2})
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out", columns=columns)
    assert report.complete, report.failed
    expected = {"a": {"id": 1.5, "only_a": 1}, "b": {"id": 2.0, "only_a": None}}
    if columns:
        names = [columns] if isinstance(columns, str) else columns
        table = {row["id"] if "id" in row else row["only_a"] for row in _rows(tmp_path / "out")}
        assert table == {expected[text][names[0]] for text in "ab"}
    with pytest.raises(ColumnError, match=r"no column 'nothing'.*'only_a'.*'z'"):
        embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "o", columns="nothing")


def _rows(target):
    import pyarrow.parquet as pq

    return pq.read_table(target).drop_columns("embeddings").to_pylist()


@pytest.mark.parametrize("depth", [49, 60, 200, 900])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_value_too_deep_for_parquet_fails_its_file_alone(depth, opening, closing, model, tmp_path):
    deep = f'{{"text": "a", "v": {opening * depth}1{closing * depth}}}'
    lines(tmp_path / "in/a.jsonl", deep)
    lines(tmp_path / "in/b.jsonl", {"text": "b"})
    for _ in range(2):
        report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out")
        [told] = report.failed.values()
        assert "'v' has more than 48 nested lists or objects (see row 0)" in told
        assert rows(tmp_path / "out") == {"b": {"text": "b"}}


def test_as_deep_as_parquet_allows(model, tmp_path):
    for name, opening, closing in (("list", "[", "]"), ("object", '{"a":', "}")):
        lines(tmp_path / f"in/{name}.jsonl", f'{{"text": "{name}", "{name}": {opening * 48}1{closing * 48}}}')
    assert embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out").complete
    found = rows(tmp_path / "out")
    assert json.dumps(found["list"]["list"]) == "[" * 48 + "1" + "]" * 48
    assert json.dumps(found["object"]["object"]) == '{"a": ' * 48 + "1" + "}" * 48


def test_why_a_file_tells_no_columns(model, tmp_path):
    lines(tmp_path / "empty.jsonl")
    lines(tmp_path / "lists.jsonl", "[1]")
    with pytest.raises(JobError, match=r"empty\.jsonl: it has no rows"):
        embed_parquet(faults.stage(model), tmp_path / "empty.jsonl", tmp_path / "out")
    with pytest.raises(JobError, match=r"lists\.jsonl: no line of it is a JSON object"):
        embed_parquet(faults.stage(model), tmp_path / "lists.jsonl", tmp_path / "out")
    lines(tmp_path / "objects.jsonl", {}, {})
    with pytest.raises(ColumnError, match=r"objects\.jsonl: there is no column 'text'; the columns are \[\]"):
        embed_parquet(faults.stage(model), tmp_path / "objects.jsonl", tmp_path / "out")
