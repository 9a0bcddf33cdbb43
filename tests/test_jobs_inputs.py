"""Sources to units: every row group in exactly one unit, names stable and unique."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask import JobError
from nemo_embed_dask.jobs import inputs, survey
from nemo_embed_dask.jobs.storage import Identity, Store

from . import faults


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 100))
def test_spans_cover_every_row_group_once_and_hold_no_more_than_asked(counts, most):
    spans = inputs._spans(counts, most)
    assert [i for a, b in spans for i in range(a, b)] == list(range(len(counts)))
    for a, b in spans:
        assert sum(counts[a:b]) <= most or b - a == 1


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.b.parquet", "ä ö.parquet", ".x.parquet", "_x.parquet", "x" * 300]
)
def test_part_names_are_safe_for_every_reader(name):
    part = inputs._part_name(inputs.InputFile(f"s3://b/{name}", "parquet", Identity(1, "")))
    assert part.endswith(".parquet") and not part.startswith((".", "_")) and "/" not in part and len(part) < 120


def test_files_globs_and_folders_name_the_same_files_once(tmp_path):
    folder = faults.write_inputs(tmp_path / "in", files=2)
    (folder / "_hidden").mkdir()
    (folder / "_hidden" / "x.parquet").write_bytes(b"")
    (folder / "README").write_text("no input")
    target = Store(str(tmp_path / "out"))
    by_folder = inputs.find_files([str(folder)], target, {})
    assert [file.address for file in by_folder] == [str(folder / f"in-0{k}.parquet") for k in range(2)]
    assert (
        inputs.find_files([f"{folder}/*.parquet", str(folder), str(folder / "in-00.parquet")], target, {})
        == by_folder
    )
    units = survey.plan_units(survey.survey(by_folder, "text", {}), 20)
    assert [unit.first_row for unit in units] == [0, 20, 40] * 2
    assert len({unit.name for unit in units}) == 6
    with pytest.raises(JobError, match="of no known type"):
        inputs.find_files([str(folder / "README")], target, {})
