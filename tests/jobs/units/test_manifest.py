"""The manifest of a target: damaged ones, and what may change between two runs."""

from __future__ import annotations

import json
from itertools import product

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs import execute
from nemo_embed_dask.jobs.units.manifest import MANIFEST

from ...helpers import faults
from ...helpers.jobs import run_again


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "1e999", "{}", "\0"])
def test_a_manifest_of_another_shape_is_damaged(content, source, model, target):
    (target / MANIFEST).write_text(content)
    with pytest.raises(JobError, match="is damaged; remove that one file and run again"):
        run_again(source, target, model)
    (target / MANIFEST).unlink()
    assert run_again(source, target, model).parts_this_run == 0


WRONG = [*product(("generation", "fingerprint", "inputs", "parts"), (None, "x", [1]))]


@pytest.mark.parametrize(
    ("name", "value"), [*WRONG, ("parts", {"rows": [["a"]]}), ("parts", {"rows": [[1, 2]]})]
)
def test_a_manifest_with_a_value_of_another_type_is_damaged(name, value, source, model, target):
    content = json.loads((target / MANIFEST).read_text())
    (target / MANIFEST).write_text(json.dumps({**content, name: value}))
    with pytest.raises(JobError, match="is damaged; remove that one file and run again"):
        run_again(source, target, model)


def lines(path, *texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def texts_in(target):
    return sorted(pq.read_table(target)["text"].to_pylist())


@pytest.mark.parametrize("how", ["fixed", "removed"])
def test_an_update_drops_the_rows_of_a_file_that_fails_now_until_it_is_fixed(how, model, tmp_path):
    folder, target, bad = tmp_path / "in", tmp_path / "out", tmp_path / "in/b.jsonl"
    lines(folder / "a.jsonl", "a")
    lines(bad, "old")
    assert run_again(folder, target, model).complete and texts_in(target) == ["a", "old"]
    lines(bad, "new", "\ud800")
    with pytest.raises(JobError, match="1 inputs changed"):
        run_again(folder, target, model)
    assert embed_parquet(faults.stage(model), folder, target, update=True).failed.keys() == {str(bad)}
    assert texts_in(target) == ["a"]
    lines(bad, "fixed and longer") if how == "fixed" else bad.unlink()
    assert run_again(folder, target, model).complete
    assert texts_in(target) == (["a", "fixed and longer"] if how == "fixed" else ["a"])


@pytest.mark.parametrize("how", ["fixed", "removed"])
def test_a_file_of_which_some_units_failed_may_be_fixed_or_removed(how, model, tmp_path):
    folder, target, bad = tmp_path / "in", tmp_path / "out", tmp_path / "in/b.parquet"

    def run(last):
        texts = pa.array([b"b", last], pa.binary()).view(pa.string())
        pq.write_table(pa.table({"text": texts}), bad, row_group_size=1)
        return embed_parquet(faults.stage(model), folder, target, rows_per_part=1)

    lines(folder / "a.jsonl", "a")
    assert run(b"\xff").failed.keys() == {str(bad)} and texts_in(target) == ["a", "b"]
    if how == "fixed":
        assert run(b"fixed").complete and texts_in(target) == ["a", "b", "fixed"]
        with pytest.raises(JobError, match="1 inputs changed"):
            run(b"changed again")
        return
    bad.unlink()
    assert embed_parquet(faults.stage(model), folder, target, rows_per_part=1).complete
    assert texts_in(target) == ["a"]


def test_settings_may_change_if_the_job_stopped_before_its_first_part(source, model, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "embed_in_process", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_again(source, tmp_path / "out", model)
    monkeypatch.undo()
    assert (tmp_path / "out" / MANIFEST).exists()
    assert run_again(source, tmp_path / "out", model, max_seq_length=9).complete


def test_a_run_whose_manifest_was_replaced_does_not_write_success(source, model, tmp_path, monkeypatch):
    """Replace the manifest during a run, as can happen on object stores, which have no lock."""
    before = execute.JobRun._report

    def replace_manifest(self, notes):
        manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
        manifest["fingerprint"]["settings"]["max_seq_length"] = 3
        (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest))
        return before(self, notes)

    monkeypatch.setattr(execute.JobRun, "_report", replace_manifest)
    with pytest.raises(JobError, match="another run with other settings or inputs has begun"):
        run_again(source, tmp_path / "out", model)
    assert not (tmp_path / "out/_SUCCESS").exists()
