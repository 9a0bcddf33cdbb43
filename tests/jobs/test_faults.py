"""Real faults. After each, all rows are written once, with the same vectors, and the error says what to do."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs.report import ERRORS

from ..helpers import faults
from ..helpers.slow import slow

ROWS = {"rows_per_part": 20}
PARTS = 24


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("faults") / "in")


@pytest.fixture(scope="module")
def expected(source, model, tmp_path_factory):
    return faults.undisturbed(source, tmp_path_factory.mktemp("calm") / "out", model)


def parts(target: Path) -> list[Path]:
    return sorted(target.glob("*.parquet"))


def start_slowly(source: Path, target: Path, model: Path) -> subprocess.Popen:
    """Start a job on one worker that takes ten seconds or more."""
    command = faults.job_command(source, target, model, "--workers", "1", "--threads", "1")
    return faults.start(*command, **faults.slow(target.with_name("slow")))


# ---- processes that die -----------------------------------------------------------------------------


def kill_worker(cluster, job):
    victim = cluster.workers.pop(0)
    victim.kill()
    victim.wait()
    cluster.start_worker()


def kill_scheduler(cluster, job):
    cluster.stop()  # its workers would end by themselves only later


def kill_client(cluster, job):
    job.kill()


KILLS = {"worker": kill_worker, "scheduler": kill_scheduler, "client": kill_client}


def one_round(seed: int, cluster, source: Path, model: Path, expected, target: Path) -> str:
    """Kill something at a random moment, run the same command again, compare."""
    pick = random.Random(seed)
    victim, moment = pick.choice(sorted(KILLS)), pick.randrange(0, PARTS)
    print(f"seed {seed}: kill -9 of the {victim} after {moment} parts", flush=True)
    if cluster.scheduler is None:
        cluster.start()
    job = faults.start(*faults.job_command(source, target, model, "--scheduler-file", str(cluster.file)))
    faults.wait_for_parts(target, moment, job)
    time.sleep(pick.uniform(0, 0.05))
    KILLS[victim](cluster, job)
    said = job.communicate(timeout=240)[0]
    for part in parts(target):
        pq.read_table(part)  # visible parts are complete
    if victim == "scheduler" and job.returncode:
        assert job.returncode in {2, 3} and "Traceback" not in said and "scheduler" in said, said
    if victim == "worker":
        assert job.returncode == 0, said
    if not (target / "_SUCCESS").is_file():
        assert embed_parquet(faults.stage(model), str(source), str(target), **ROWS).complete
    assert_whole(target, expected)
    return victim


def assert_whole(target: Path, expected) -> None:
    assert (target / "_SUCCESS").is_file()
    assert len(parts(target)) == PARTS
    faults.assert_same(target, expected)


@pytest.mark.timeout(3600)  # thirty rounds take some minutes
def test_kills_at_random_moments(request, source, model, expected, tmp_path):
    rounds = request.config.getoption("--fault-rounds") or (3 if request.config.getoption("--slow") else 1)
    first = request.config.getoption("--fault-seed")
    seeds = range(first, first + rounds)
    cluster = faults.Cluster(tmp_path)
    try:
        victims = [one_round(n, cluster, source, model, expected, tmp_path / f"out-{n}") for n in seeds]
    finally:
        cluster.stop()
    print({victim: victims.count(victim) for victim in KILLS})


@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM)])
def test_signals_stop_the_job_with_a_message_and_lose_nothing(number, source, model, expected, tmp_path):
    target = tmp_path / "out"
    job = start_slowly(source, target, model)
    faults.wait_for_parts(target, 2, job)
    job.send_signal(number)
    said = job.communicate(timeout=60)[0]
    assert job.returncode == 128 + number, said
    assert "run the same command again" in said and "Traceback" not in said, said
    done = {path: path.stat().st_mtime_ns for path in parts(target)}
    assert embed_parquet(faults.stage(model), str(source), str(target), **ROWS).complete
    assert_whole(target, expected)
    again = [path for path, when in done.items() if path.stat().st_mtime_ns != when]
    assert not again, "whole parts were made again"


@pytest.mark.slow
def test_a_second_run_on_the_same_target_stops(source, model, expected, tmp_path):
    target = tmp_path / "out"
    job = start_slowly(source, target, model)
    faults.wait_for_parts(target, 1, job)
    with pytest.raises(JobError, match=r"another run .*is writing to"):
        embed_parquet(faults.stage(model), str(source), str(target), **ROWS)
    assert job.communicate(timeout=120) and job.returncode == 0
    assert_whole(target, expected)


@pytest.mark.slow
def test_a_worker_out_of_memory(source, model, expected, tmp_path):
    """A file that is too large for its worker fails alone; the others are embedded."""
    folder = tmp_path / "in"
    shutil.copytree(source, folder)
    lines = ",".join(["[" * 200 + "]" * 200] * 250_000)
    (folder / "z-huge.jsonl").write_text(f'{{"text": "x", "id": 99999, "url": [{lines}]}}\n')
    target = tmp_path / "out"
    more = ("--workers", "1", "--threads", "1", "--memory-limit", "1300MB")
    once = {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"
    }  # the first death is as conclusive as the fourth
    job = faults.start(*faults.job_command(folder, target, model, *more), **once)
    said = job.communicate(timeout=240)[0]
    assert job.returncode == 1, said
    assert "huge.jsonl" in said and "memory" in said and "Traceback" not in said, said
    faults.assert_same(target, expected)
    assert not (target / "_SUCCESS").exists()


# ---- targets that fail ------------------------------------------------------------------------------


def test_disk_full(source, model, expected, tmp_path):
    """On a tmpfs of 300 kB where mounting is permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here; see test_file_size_limit")
    try:
        with pytest.raises(JobError, match=r"disk is full: free some space, then run the same command again"):
            embed_parquet(faults.stage(model), str(source), str(disk / "out"), **ROWS)
        for part in parts(disk / "out"):
            pq.read_table(part)
        subprocess.run(["mount", "-o", "remount,size=50M", str(disk)], check=True)
        assert embed_parquet(faults.stage(model), str(source), str(disk / "out"), **ROWS).complete
        assert_whole(disk / "out", expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_size_limit(source, model, expected, tmp_path):
    """Writes that fail in the middle of a part, without any mount: RLIMIT_FSIZE."""
    target = str(tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(JobError, match="is larger than the limit"):
            embed_parquet(faults.stage(model), str(source), target, **ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not parts(tmp_path / "out"), "half a part became visible"
    assert embed_parquet(faults.stage(model), str(source), target, **ROWS).complete
    assert_whole(tmp_path / "out", expected)


def test_read_only_target(source, model, expected, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        embed_parquet(faults.stage(model), str(source), str(disk / "out"), **ROWS)
        parts(disk / "out")[0].unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(JobError, match="read-only: mount it writable, or choose another target"):
            embed_parquet(faults.stage(model), str(source), str(disk / "out"), **ROWS)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert embed_parquet(faults.stage(model), str(source), str(disk / "out"), **ROWS).parts_this_run == 1
        assert_whole(disk / "out", expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class Flaky(MemoryFileSystem):
    """An object store whose writes raise, or lose their last bytes, at random."""

    protocol = "flaky"
    cachable = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    pick = random.Random(0)
    rate = 0.0

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("flaky://").strip("/")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if self.pick.random() < self.rate:
            if self.pick.random() < 0.5:
                super().pipe_file(path, value[: len(value) // 2])
            raise OSError("the connection was reset")
        super().pipe_file(path, value, mode, **kwargs)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_target_whose_writes_fail_at_random(seed, source, model, expected):
    print(f"seed {seed}")
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store, Flaky.pseudo_dirs = {}, [""]
    Flaky.pick, Flaky.rate = random.Random(seed), 0.3
    target = f"flaky://bucket-{seed}/out"
    for _ in range(40):
        try:
            report = embed_parquet(faults.stage(model), str(source), target, retries=1, **ROWS)
        except (OSError, JobError) as error:
            assert "reset" in str(error) or "damaged" in str(error)
            if "damaged" in str(error):  # the manifest was truncated: do what the message says
                Flaky.store.pop(re.search(r"(/\S+manifest.json)", str(error))[1])
            continue
        if report.complete:
            break
    Flaky.rate = 0.0
    assert embed_parquet(faults.stage(model), str(source), target, **ROWS).complete
    paths = [path for path in Flaky.store if path.endswith(".parquet")]
    assert len(paths) == PARTS
    faults.assert_same(f"/bucket-{seed}/out", expected, filesystem=Flaky())


# ---- bad inputs ----------------------------------------------------------------------------

BAD_FILES = {
    "corrupted": lambda good: good[:200] + bytes(400) + good[600:],
    "truncated": lambda good: good[: len(good) // 2],
    "empty": lambda good: b"",
    "not parquet": lambda good: b"PAR1" * 10,
}


@pytest.mark.parametrize("kind", [*BAD_FILES, "another schema", "text of another type"])
def test_a_bad_input_fails_alone_and_can_be_repaired(kind, source, model, expected, tmp_path):
    folder, target = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, folder)
    bad = folder / "in-03.parquet"
    good = bad.read_bytes()
    if kind == "another schema":
        pq.write_table(pa.table({"other": [1]}), bad)
    elif kind == "text of another type":
        pq.write_table(pa.table({"id": [1], "text": [1.5], "url": ["u"]}), bad)
    else:
        bad.write_bytes(BAD_FILES[kind](good))
    report = embed_parquet(faults.stage(model), str(folder), str(target), **ROWS)
    assert list(report.failed) == [str(bad)] and not report.complete
    assert not (target / "_SUCCESS").exists()
    listed = pq.read_table(target / ERRORS).to_pylist()
    assert [row["file"] for row in listed] == [str(bad)] and str(bad) in listed[0]["reason"]
    others = {i: row for i, row in expected.items() if not 180 <= i < 240}
    found = faults.vectors(target)
    assert others.keys() <= found.keys()
    bad.write_bytes(good)
    mended = embed_parquet(faults.stage(model), str(folder), str(target), update=True, **ROWS)
    assert mended.complete and mended.parts_this_run <= 3
    assert not (target / ERRORS).exists()
    assert_whole(target, expected)


def test_a_file_without_rows_gives_a_part_without_rows(source, model, expected, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(source, folder)
    pq.write_table(pq.read_table(folder / "in-00.parquet").slice(0, 0), folder / "none.parquet")
    report = embed_parquet(faults.stage(model), str(folder), str(tmp_path / "out"), **ROWS)
    assert report.complete and report.parts == PARTS + 1
    faults.assert_same(tmp_path / "out", expected)


@pytest.mark.parametrize("harm", ["deleted", "truncated", "a byte changed", "emptied", "log lost", "log torn"])
def test_parts_damaged_between_runs_are_written_again(harm, source, model, expected, tmp_path):
    target = tmp_path / "out"
    embed_parquet(faults.stage(model), str(source), str(target), **ROWS)
    victims = random.Random(harm).sample(parts(target), 3)
    for part in victims:
        data = bytearray(part.read_bytes())
        if harm == "deleted":
            part.unlink()
        elif harm == "truncated":
            part.write_bytes(data[: len(data) * 2 // 3])
        elif harm == "a byte changed":
            data[len(data) // 3] ^= 0xFF
            part.write_bytes(data)
        elif harm == "emptied":
            part.write_bytes(b"")
    for log in (target / "_nemo_embed/log").glob("*"):
        if harm == "log lost":
            log.unlink()
        elif harm == "log torn":
            log.write_bytes(log.read_bytes()[:1000])
    report = embed_parquet(faults.stage(model), str(source), str(target), **ROWS)
    assert report.parts_this_run == (0 if harm.startswith("log") else 3)
    assert_whole(target, expected)


# ---- settings and inputs that change ----------------------------------------------------------------


def test_changed_settings_are_refused_and_force_replaces(source, model, tmp_path):
    target = tmp_path / "out"
    embed_parquet(faults.stage(model), str(source), str(target), **ROWS)
    other = faults.stage(model, max_seq_length=5)
    with pytest.raises(JobError, match=r"settings.max_seq_length: None before, 5 now.*--force.*another target"):
        embed_parquet(other, str(source), str(target), **ROWS)
    assert (target / "_SUCCESS").exists(), "a refused run changes nothing"
    assert embed_parquet(other, str(source), str(target), force=True, **ROWS).complete
    fresh = tmp_path / "fresh"
    embed_parquet(other, str(source), str(fresh), **ROWS)
    assert_whole(target, faults.vectors(fresh))


def test_changed_weights_are_refused(source, tiny, tmp_path):
    moved = shutil.copytree(tiny("bert"), tmp_path / "bert")
    embed_parquet(faults.stage(moved), str(source), str(tmp_path / "out"), **ROWS)
    shutil.copytree(tiny("roberta"), tmp_path / "else" / "bert")
    with pytest.raises(JobError, match=r"model.weights"):
        embed_parquet(faults.stage(tmp_path / "else" / "bert"), str(source), str(tmp_path / "out"), **ROWS)


def test_settings_that_do_not_change_vectors_may_change_between_runs(source, model, tmp_path):
    embed_parquet(faults.stage(model), str(source), str(tmp_path / "out"), **ROWS)
    again = faults.stage(model, on_error="null", model_inference_batch_size=7)
    assert embed_parquet(again, str(source), str(tmp_path / "out"), **ROWS).parts_this_run == 0


def test_inputs_added_changed_and_removed(source, model, expected, tmp_path):
    folder, target = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, folder)
    kept = (folder / "in-00.parquet").rename(tmp_path / "kept.parquet")
    embed_parquet(faults.stage(model), str(folder), str(target), **ROWS)
    shutil.copy(kept, folder / "in-00.parquet")
    report = embed_parquet(faults.stage(model), str(folder), str(target), **ROWS)
    assert report.parts_this_run == 3 and "1 inputs added" in report.notes[0]
    assert_whole(target, expected)
    os.utime(folder / "in-01.parquet", (1, 1))
    (folder / "in-02.parquet").unlink()
    with pytest.raises(JobError, match=r"1 inputs changed.*in-01.*1 inputs removed.*in-02.*--update"):
        embed_parquet(faults.stage(model), str(folder), str(target), **ROWS)
    report = embed_parquet(faults.stage(model), str(folder), str(target), update=True, **ROWS)
    assert report.parts_this_run == 3
    faults.assert_same(target, {i: row for i, row in expected.items() if not 120 <= i < 180})


# ---- bad rows ---------------------------------------------------------------------------


def test_unusual_strings_are_embedded_and_invalid_ones_fail_their_row(model, tmp_path):
    """Invalid UTF-8 in Parquet, a lone surrogate and a line that is not JSON in jsonl, and all unusual strings."""
    good = [*faults.NAUGHTY, None]
    folder = tmp_path / "in"
    folder.mkdir()
    poisoned = pa.array([b"fine", b"\xff\xfe bad", b"fine too"]).view(pa.binary())
    text = pa.StringArray.from_buffers(3, *poisoned.buffers()[1:], poisoned.buffers()[0])
    pq.write_table(
        pa.table({"id": [900, 901, 902], "text": text, "url": ["a", "b", "c"]}), folder / "b.parquet"
    )
    table = pa.table({"id": range(len(good)), "text": good, "url": ["u"] * len(good)})
    pq.write_table(table, folder / "a.parquet")
    lines = [b'{"id": 910, "text": "fine", "url": "u"}', b'{"id": 911, "text": "\\ud800", "url": "u"}',
             b'{"id": 912, "text": "\xff", "url": "u"}']  # fmt: skip
    (folder / "c.jsonl").write_bytes(b"\n".join([*lines, b"{broken", b""]))
    with_null = faults.stage(model, on_error="null")
    report = embed_parquet(with_null, str(folder), str(tmp_path / "out"))
    assert report.complete and report.null_rows == 4
    errors = pq.read_table(tmp_path / "out" / ERRORS).to_pylist()
    where = {(Path(row["file"]).name, row["row"]) for row in errors}
    assert where == {("b.parquet", 1), ("c.jsonl", 1), ("c.jsonl", 2), ("c.jsonl", 3)}
    columns = ["id", "embeddings"]
    rows = pq.read_table(tmp_path / "out", columns=columns).to_pylist()
    found = {row["id"]: row["embeddings"] for row in rows}
    assert {i for i, vector in found.items() if vector is None} == {len(good) - 1, 901, 911, 912, None}
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "a.parquet", alone)
    embed_parquet(faults.stage(model), str(alone), str(tmp_path / "clean"))
    for row in pq.read_table(tmp_path / "clean", columns=columns).to_pylist():
        assert (row["embeddings"] is None) == (found[row["id"]] is None)
        assert row["embeddings"] is None or row["embeddings"] == pytest.approx(found[row["id"]], abs=2e-6)


def test_an_invalid_row_is_named_with_file_and_row_if_it_must_raise(model, tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\\udcff"}\n')
    report = embed_parquet(faults.stage(model), str(tmp_path / "x.jsonl"), str(tmp_path / "out"))
    (reason,) = report.failed.values()
    assert re.search(r"x\.jsonl, row 1: not valid text.*on_error='null'", reason), reason
