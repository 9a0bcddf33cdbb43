"""Parts of a target that are damaged, moved, exchanged, stale, or written by two runs at once."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.units import records
from nemo_embed_dask.jobs.units.parts import remove_stale_parts

from ...helpers import faults
from ...helpers.jobs import run_again


@pytest.mark.parametrize("leads", ["to the part", "nowhere", "to another part", "to a folder"])
def test_a_part_may_be_a_link_to_the_moved_file(leads, source, model, target, tmp_path):
    one, other = sorted(target.glob("*.parquet"))
    places = {"to another part": other, "to a folder": tmp_path, "nowhere": tmp_path / "gone.parquet"}
    shutil.move(one, tmp_path / "moved.parquet")
    one.symlink_to(places.get(leads, tmp_path / "moved.parquet"))
    if leads == "to a folder":
        with pytest.raises(JobError, match="Is a directory|is a folder"):
            run_again(source, target, model)
        return
    report = run_again(source, target, model)
    assert report.complete and report.parts_this_run == (leads != "to the part")
    assert other.stat().st_size and pq.read_table(one).num_rows == report.rows // 2


def test_two_runs_write_the_same_bytes(source, model, written_job, tmp_path):
    faults.undisturbed(source, tmp_path / "b", model)
    for part in written_job[0].glob("*.parquet"):
        assert part.read_bytes() == (tmp_path / "b" / part.name).read_bytes()


def test_the_parts_of_a_copied_target_are_read_once_and_kept(source, model, written_job, tmp_path, monkeypatch):
    copied = shutil.copytree(written_job[0], tmp_path / "copy", copy_function=shutil.copy)
    assert run_again(source, copied, model).parts_this_run == 0
    monkeypatch.setattr(
        "nemo_embed_dask.jobs.units.parts.verify_part", lambda *_: pytest.fail("a part was read again")
    )
    assert run_again(source, copied, model).parts_this_run == 0


@pytest.mark.parametrize("same_time", [True, False])
def test_parts_that_were_exchanged_are_written_again(same_time, source, model, written_job, target):
    """Exchange two whole parts of the same size from the same job."""
    one, other = sorted(target.glob("*.parquet"))
    when = one.stat()
    one.write_bytes(other.read_bytes().ljust(when.st_size)[: when.st_size] if same_time else other.read_bytes())
    os.utime(one, ns=(when.st_atime_ns, when.st_mtime_ns + (0 if same_time else 1_000_000)))
    report = run_again(source, target, model)
    if same_time:  # size and time are what tells versions apart; docs/guide/jobs.md says so
        return
    assert report.parts_this_run == 1
    faults.assert_same(target, written_job[1])


def test_a_clock_that_is_behind_does_not_hide_new_records(source, model, written_job, target, monkeypatch):
    """Write a part again on a machine whose clock is behind: its log file sorts before the old one."""
    (part, _) = sorted(target.glob("*.parquet"))
    part.unlink()
    monkeypatch.setattr(records.time, "time_ns", lambda: 1)
    assert run_again(source, target, model).parts_this_run == 1
    for _ in range(2):
        assert run_again(source, target, model).parts_this_run == 0
    faults.assert_same(target, written_job[1])


def test_a_job_that_stopped_after_removing_success_continues(source, model, written_job, target, monkeypatch):
    sorted(target.glob("*.parquet"))[0].unlink()
    write = Target.write
    monkeypatch.setattr(Target, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_again(source, target, model)
    assert not (target / "_SUCCESS").exists()
    monkeypatch.setattr(Target, "write", write)
    assert run_again(source, target, model).parts_this_run == 1
    faults.assert_same(target, written_job[1])


@pytest.mark.parametrize("name", ["_nemo_embed/log", "_nemo_embed/report.json", "_SUCCESS"])
def test_no_part_is_lost_if_the_disk_is_full_at_the_log_the_report_or_success(
    name, source, model, written_job, tmp_path, monkeypatch
):
    write = Target.write

    def full(self, file, data):
        if file.startswith(name):
            raise JobError("cannot write (No space left on device); the disk is full: free some space")
        write(self, file, data)

    monkeypatch.setattr(Target, "write", full)
    with pytest.raises(JobError, match="disk is full"):
        run_again(source, tmp_path / "out", model)
    monkeypatch.undo()
    assert not (tmp_path / "out/_SUCCESS").exists()
    report = run_again(source, tmp_path / "out", model)
    assert report.complete and report.parts_this_run == 0 and report.total.rows == 120
    faults.assert_same(tmp_path / "out", written_job[1])


def test_a_user_s_file_in_the_target_is_kept_and_noted(source, model, target):
    pq.write_table(pa.table({"mine": [1]}), target / "mine.parquet")
    (target / "_SUCCESS").unlink()
    report = run_again(source, target, model)
    assert (target / "mine.parquet").exists() and any("mine.parquet" in note for note in report.notes)


def test_only_parts_with_another_key_are_removed(source, model, target):
    """Keep parts with the right key: of two runs at once, one may have written what failed in the other."""
    store, names = Target(str(target)), sorted(path.name for path in target.glob("*.parquet"))
    keys = {name: records.read_footer(store, name).key for name in names}
    assert remove_stale_parts(store, keys, names) == [] and store.list_files().keys() >= set(names)
    assert remove_stale_parts(store, {names[0]: keys[names[0]], names[1]: "another"}, names) == []
    assert not (target / names[1]).exists() and (target / names[0]).exists()


def test_two_runs_at_once_without_a_lock_write_the_same_parts(source, model, written_job):
    memory, reports = fsspec.filesystem("memory"), []
    memory.store.clear()
    runs = [
        threading.Thread(target=lambda: reports.append(run_again(source, "memory://two/out", model)))
        for _ in "ab"
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert len(reports) == 2 and all(report.complete for report in reports)
    faults.assert_same("/two/out", written_job[1], filesystem=memory)
    for part in written_job[0].glob("*.parquet"):
        assert part.read_bytes() == memory.cat_file(f"/two/out/{part.name}")
    assert run_again(source, "memory://two/out", model).parts_this_run == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_job_runs_on_a_file_system_without_locks(number, source, model, tmp_path, monkeypatch):
    """Fail as Lustre does unless it is mounted with flock."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    assert run_again(source, tmp_path / "out", model).complete


def test_an_open_reader_can_finish_a_part_that_is_replaced(source, model, written_job, target):
    """Replace a part while it is read: the new one is a rename, so the old file stays readable."""
    part = sorted(target.glob("*.parquet"))[0]
    expected = pq.read_table(part)
    with pq.ParquetFile(part) as reader:
        assert embed_parquet(
            faults.stage(model, max_seq_length=5), str(source), str(target), force=True
        ).complete
        assert reader.read().equals(expected)
    assert not pq.read_table(part).equals(expected)
    assert not list(Path(target / "_nemo_embed/unfinished").iterdir())
