"""`nemo-embed report` and `errors` on targets of real jobs: ended, running and interrupted, and on another storage."""

from __future__ import annotations

import json
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.jobs.report import describe
from nemo_embed_dask.jobs.units.progress import Progress

NOT_TEXT = b"\xff\xfe"


def call(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)], terminal_width=80)


@pytest.fixture
def source(tmp_path):
    """Four inputs: one good, one with two bad rows, one without Parquet, one whose second row group is bad."""
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["one", "two", None]}), folder / "a.parquet")
    pq.write_table(pa.table({"text": with_bad_rows(5, {1, 3})}), folder / "b.parquet")
    (folder / "c.parquet").write_bytes(b"no Parquet")
    return folder


def with_bad_rows(rows, bad):
    values = pa.array([NOT_TEXT if row in bad else b"text" for row in range(rows)], pa.binary())
    return pa.Array.from_buffers(pa.string(), rows, values.buffers())


def job(source, target, tiny, **more):
    progress = more.pop("progress", False)
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), **more)
    return embed_parquet(stage, str(source), str(target), rows_per_part=2, progress=progress)


def listed(target):
    result = call("errors", target, "--json")
    return result.exit_code, [json.loads(line) for line in result.output.splitlines()]


def test_errors_lists_files_and_pieces_of_files(source, tiny, tmp_path):
    pq.write_table(pa.table({"text": with_bad_rows(6, {5})}), source / "d.parquet", row_group_size=2)
    job(source, tmp_path / "out", tiny)
    result = call("errors", tmp_path / "out")
    assert result.exit_code == 1 and result.output.startswith("3 files failed:\n"), result.output
    piece = f"{source}/d.parquet, rows 4 to 5 (row group 2)\n    row 5: not valid text"
    assert piece in result.output and f"{source}/c.parquet\n    cannot be read (" in result.output
    assert "3 of 6 parts are whole.\n" in result.output
    explained = [line for line in result.output.splitlines() if line.startswith("    ")]
    assert max(map(len, explained)) <= 80
    _, failures = listed(tmp_path / "out")
    found = {(f["file"].rpartition("/")[2], f["first_row"], f["rows"], f["row"]) for f in failures}
    assert found == {("b.parquet", 0, 5, None), ("c.parquet", 0, None, None), ("d.parquet", 4, 2, None)}
    assert not [f for f in failures if f["file"] in f["reason"]], "the file is named once"


def test_errors_lists_rows_with_null_vectors_which_do_not_fail_a_job(source, tiny, tmp_path):
    (source / "c.parquet").unlink()
    assert job(source, tmp_path / "out", tiny).failed
    assert job(source, tmp_path / "out", tiny, on_error="null").complete  # the same units: they do not fail now
    result = call("errors", tmp_path / "out")
    assert result.exit_code == 0 and "2 rows could not be embedded" in result.output
    assert f"{source}/b.parquet, rows 1, 3\n    not valid text" in result.output
    code, failures = listed(tmp_path / "out")
    assert code == 0 and [failure["row"] for failure in failures] == [1, 3]


class Interrupted(Exception):
    """Ends a job after its second unit."""


class Interrupts(Progress):
    def finished(self, outcome):
        if outcome.verdict == "failed":
            self.seen = listed(self.target)
        if outcome.unit.file.address.endswith("c.parquet"):
            raise Interrupted


def test_errors_of_a_job_that_runs_or_was_interrupted_and_after_it_is_mended(source, tiny, tmp_path):
    target, progress = tmp_path / "out", Interrupts()
    pq.write_table(pa.table({"text": ["last"]}), source / "z.parquet")
    progress.target = target
    with pytest.raises(Interrupted):
        job(source, target, tiny, progress=progress)
    code, failures = progress.seen
    assert code == 1 and f"{source}/b.parquet" in {failure["file"] for failure in failures}
    assert "whole: the job runs, or was interrupted" in call("errors", target).output
    pq.write_table(pa.table({"text": ["mended"]}), source / "b.parquet")
    (source / "c.parquet").unlink()
    assert job(source, target, tiny).complete
    result = call("errors", target)
    assert (result.exit_code, result.output) == (
        0,
        "3 of 3 parts are whole; the job has ended without errors.\n",
    )


def test_errors_reads_a_target_on_another_storage(source, tiny):
    job(source, "memory://errors/out", tiny)
    try:
        code, failures = listed("memory://errors/out")
    finally:
        fsspec.filesystem("memory").rm("/errors", recursive=True)
    assert code == 1 and len(failures) == 2


@pytest.mark.parametrize("name", ["", "a.parquet", "nowhere"])
def test_a_folder_without_a_job_is_one_line(name, source):
    result = call("errors", source / name)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "is not the target of a job" in result.output


def test_the_report_says_how_many_files_failed_and_why(source, tiny, tmp_path):
    report = job(source, tmp_path / "out", tiny, on_error="null")
    assert "failed  1 file failed: " in describe(report) and "c.parquet cannot be read (" in describe(report)
    report = job(source, tmp_path / "two", tiny)
    assert "failed  2 files failed, listed by nemo-embed errors; the first: " in describe(report)


def test_a_report_without_matplotlib_says_how_to_get_the_picture(source, tiny, tmp_path, monkeypatch):
    (source / "c.parquet").unlink()
    job(source, tmp_path / "out", tiny, on_error="null")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = call("report", tmp_path / "out")
    assert result.exit_code == 0 and result.stderr == ""
    assert "pip install 'nemo-embed-dask[plot]'" in result.stdout.splitlines()[-1]
    named = call("report", tmp_path / "out", "--picture", "x.png")
    assert named.exit_code == 2 and "documents  8" in named.stdout and named.stderr.count("\n") == 1
