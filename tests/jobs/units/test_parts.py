"""Parts of a target that are damaged, moved, exchanged, stale, or written by two runs at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from itertools import product
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs import execute
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.units import records
from nemo_embed_dask.jobs.units.manifest import MANIFEST
from nemo_embed_dask.jobs.units.parts import remove_stale_parts

from ...helpers import faults

ROWS = {"rows_per_part": 20}


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("parts") / "in", files=2)


@pytest.fixture(scope="module")
def made(source, model, tmp_path_factory):
    target = tmp_path_factory.mktemp("parts") / "out"
    return target, faults.undisturbed(source, target, model)


@pytest.fixture
def target(made, tmp_path):
    """Return a copy of the complete target."""
    return shutil.copytree(made[0], tmp_path / "out", copy_function=shutil.copy2)


def again(source, target, model, **more):
    return embed_parquet(faults.stage(model, **more), str(source), str(target))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "1e999", "{}", "\0"])
def test_a_manifest_of_another_shape_is_damaged(content, source, model, target):
    (target / MANIFEST).write_text(content)
    with pytest.raises(JobError, match="is damaged; remove that one file and run again"):
        again(source, target, model)
    (target / MANIFEST).unlink()
    assert again(source, target, model).parts_this_run == 0


WRONG = [*product(("generation", "fingerprint", "inputs", "parts"), (None, "x", [1]))]


@pytest.mark.parametrize(
    ("name", "value"), [*WRONG, ("parts", {"rows": [["a"]]}), ("parts", {"rows": [[1, 2]]})]
)
def test_a_manifest_with_a_value_of_another_type_is_damaged(name, value, source, model, target):
    content = json.loads((target / MANIFEST).read_text())
    (target / MANIFEST).write_text(json.dumps({**content, name: value}))
    with pytest.raises(JobError, match="is damaged; remove that one file and run again"):
        again(source, target, model)


@pytest.mark.parametrize("leads", ["to the part", "nowhere", "to another part", "to a folder"])
def test_a_part_may_be_a_link_to_the_moved_file(leads, source, model, target, tmp_path):
    one, other = sorted(target.glob("*.parquet"))
    places = {"to another part": other, "to a folder": tmp_path, "nowhere": tmp_path / "gone.parquet"}
    shutil.move(one, tmp_path / "moved.parquet")
    one.symlink_to(places.get(leads, tmp_path / "moved.parquet"))
    if leads == "to a folder":
        with pytest.raises(JobError, match="Is a directory|is a folder"):
            again(source, target, model)
        return
    report = again(source, target, model)
    assert report.complete and report.parts_this_run == (leads != "to the part")
    assert other.stat().st_size and pq.read_table(one).num_rows == report.rows // 2


def test_two_runs_write_the_same_bytes(source, model, made, tmp_path):
    faults.undisturbed(source, tmp_path / "b", model)
    for part in made[0].glob("*.parquet"):
        assert part.read_bytes() == (tmp_path / "b" / part.name).read_bytes()


def test_the_parts_of_a_copied_target_are_read_once_and_kept(source, model, made, tmp_path, monkeypatch):
    copied = shutil.copytree(made[0], tmp_path / "copy", copy_function=shutil.copy)
    assert again(source, copied, model).parts_this_run == 0
    monkeypatch.setattr(
        "nemo_embed_dask.jobs.units.parts.verify_part", lambda *_: pytest.fail("a part was read again")
    )
    assert again(source, copied, model).parts_this_run == 0


@pytest.mark.parametrize("same_time", [True, False])
def test_parts_that_were_exchanged_are_written_again(same_time, source, model, made, target):
    """Exchange two whole parts of the same size from the same job."""
    one, other = sorted(target.glob("*.parquet"))
    when = one.stat()
    one.write_bytes(other.read_bytes().ljust(when.st_size)[: when.st_size] if same_time else other.read_bytes())
    os.utime(one, ns=(when.st_atime_ns, when.st_mtime_ns + (0 if same_time else 1_000_000)))
    report = again(source, target, model)
    if same_time:  # size and time are what tells versions apart; docs/jobs.md says so
        return
    assert report.parts_this_run == 1
    faults.assert_same(target, made[1])


def test_a_clock_that_is_behind_does_not_hide_new_records(source, model, made, target, monkeypatch):
    """Write a part again on a machine whose clock is behind: its log file sorts before the old one."""
    (part, _) = sorted(target.glob("*.parquet"))
    part.unlink()
    monkeypatch.setattr(records.time, "time_ns", lambda: 1)
    assert again(source, target, model).parts_this_run == 1
    for _ in range(2):
        assert again(source, target, model).parts_this_run == 0
    faults.assert_same(target, made[1])


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
    assert again(folder, target, model).complete and texts_in(target) == ["a", "old"]
    lines(bad, "new", "\ud800")
    with pytest.raises(JobError, match="1 inputs changed"):
        again(folder, target, model)
    assert embed_parquet(faults.stage(model), folder, target, update=True).failed.keys() == {str(bad)}
    assert texts_in(target) == ["a"]
    lines(bad, "fixed and longer") if how == "fixed" else bad.unlink()
    assert again(folder, target, model).complete
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
        again(source, tmp_path / "out", model)
    monkeypatch.undo()
    assert (tmp_path / "out" / MANIFEST).exists()
    assert again(source, tmp_path / "out", model, max_seq_length=9).complete


def test_a_job_that_stopped_after_removing_success_continues(source, model, made, target, monkeypatch):
    sorted(target.glob("*.parquet"))[0].unlink()
    write = Target.write
    monkeypatch.setattr(Target, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        again(source, target, model)
    assert not (target / "_SUCCESS").exists()
    monkeypatch.setattr(Target, "write", write)
    assert again(source, target, model).parts_this_run == 1
    faults.assert_same(target, made[1])


@pytest.mark.parametrize("name", ["_nemo_embed/log", "_nemo_embed/report.json", "_SUCCESS"])
def test_no_part_is_lost_if_the_disk_is_full_at_the_log_the_report_or_success(
    name, source, model, made, tmp_path, monkeypatch
):
    write = Target.write

    def full(self, file, data):
        if file.startswith(name):
            raise JobError("cannot write (No space left on device); the disk is full: free some space")
        write(self, file, data)

    monkeypatch.setattr(Target, "write", full)
    with pytest.raises(JobError, match="disk is full"):
        again(source, tmp_path / "out", model)
    monkeypatch.undo()
    assert not (tmp_path / "out/_SUCCESS").exists()
    report = again(source, tmp_path / "out", model)
    assert report.complete and report.parts_this_run == 0 and report.total.rows == 120
    faults.assert_same(tmp_path / "out", made[1])


def test_a_user_s_file_in_the_target_is_kept_and_noted(source, model, target):
    pq.write_table(pa.table({"mine": [1]}), target / "mine.parquet")
    (target / "_SUCCESS").unlink()
    report = again(source, target, model)
    assert (target / "mine.parquet").exists() and any("mine.parquet" in note for note in report.notes)


def test_only_parts_with_another_key_are_removed(source, model, target):
    """Keep parts with the right key: of two runs at once, one may have written what failed in the other."""
    store, names = Target(str(target)), sorted(path.name for path in target.glob("*.parquet"))
    keys = {name: records.read_footer(store, name).key for name in names}
    assert remove_stale_parts(store, keys, names) == [] and store.list_files().keys() >= set(names)
    assert remove_stale_parts(store, {names[0]: keys[names[0]], names[1]: "another"}, names) == []
    assert not (target / names[1]).exists() and (target / names[0]).exists()


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
        again(source, tmp_path / "out", model)
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_two_runs_at_once_without_a_lock_write_the_same_parts(source, model, made):
    memory, reports = fsspec.filesystem("memory"), []
    memory.store.clear()
    runs = [
        threading.Thread(target=lambda: reports.append(again(source, "memory://two/out", model))) for _ in "ab"
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert len(reports) == 2 and all(report.complete for report in reports)
    faults.assert_same("/two/out", made[1], filesystem=memory)
    for part in made[0].glob("*.parquet"):
        assert part.read_bytes() == memory.cat_file(f"/two/out/{part.name}")
    assert again(source, "memory://two/out", model).parts_this_run == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_job_runs_on_a_file_system_without_locks(number, source, model, tmp_path, monkeypatch):
    """Fail as Lustre does unless it is mounted with flock."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    assert again(source, tmp_path / "out", model).complete


def test_an_open_reader_can_finish_a_part_that_is_replaced(source, model, made, target):
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
