"""Jobs from store to store, on real servers: what they write, read by other libraries, is what local jobs write."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import JobError, embed, embed_parquet
from nemo_embed_dask.jobs import execute
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.units.records import LOG

from ...helpers import faults
from ...helpers.flaky_proxy import FAULTS, FlakyProxy
from ...helpers.slow import slow
from ...helpers.stores import SECRET

# Client libraries leave connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AZURE = pytest.param("azure", marks=pytest.mark.azurite)
# Azure's client waits 15 s before it repeats a request.
SLOW_AZURE = pytest.param("azure", marks=[pytest.mark.azurite, pytest.mark.slow])
PARTS = 12
BOOKKEEPING = ["_SUCCESS", "_nemo_embed/manifest.json", "_nemo_embed/report.json"]


@pytest.fixture
def address(store, bucket, source):
    """The inputs in a new bucket."""
    return store.upload(source, bucket, "in")


def run(store, address, target, model, *, options=None, settings=None, **more):
    options = options or store.options()
    return embed_parquet(faults.stage(model, **settings or {}), address, target, rows_per_part=20,
                         storage_options=options, target_options=options, **more)  # fmt: skip


def assert_whole(store, bucket, expected, parts=PARTS):
    """All rows once, and nothing in the target but parts, logs and the three other files; no secret in these."""
    faults.assert_same_rows(faults.rows_by_id(store.table(bucket, "out")), expected)
    names = [name.removeprefix("out/") for name in store.names(bucket, "out")]
    others = [name for name in names if not name.startswith(LOG)]
    assert sorted(name for name in others if not name.endswith(".parquet")) == BOOKKEEPING
    assert len(others) == parts + len(BOOKKEEPING)
    assert store.uploads(bucket) == []
    assert not [name for name in names if SECRET.encode() in store.get(bucket, f"out/{name}")]


def test_a_job_from_store_to_store(store, address, bucket, model, expected):
    target = store.address(f"{bucket}/out")
    assert run(store, address, target, model).parts_this_run == PARTS
    assert_whole(store, bucket, expected)
    before = store.names(bucket, "out")
    again = run(store, f"{address}/in-*.parquet", target, model)
    assert again.complete and again.parts_this_run == 0 and store.names(bucket, "out") == before


def test_a_file_that_is_written_after_its_folder_was_listed(store, bucket):
    """Clients keep listings in memory, and adlfs believes them even after it has written a file."""
    store.make_bucket(bucket)
    target = Target(store.address(f"{bucket}/out"), store.options())
    target.write("folder/a", b"1")
    assert [*target.list_files("folder")] == ["a"]
    target.write("folder/b", b"22")
    assert target.identity_of("folder/b").size == 2
    assert [*target.list_files("folder")] == ["a", "b"]


# A job in a process of its own: starts when it may read a line.
SCRIPT = """
import ast, sys
from nemo_embed_dask import embed_parquet
from tests.helpers import faults

source, target, model, options = sys.argv[1:]
options = ast.literal_eval(options)
print("ready", flush=True)
sys.stdin.readline()
stage = faults.stage(model)
report = embed_parquet(stage, source, target, rows_per_part=20, storage_options=options, target_options=options)
print(report.complete)
"""


def start(address, target, model, options, **more):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, address, target, str(model), repr(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=faults.environment(**more),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def kill_after(store, bucket, count, process):
    """Kill a job that has written some files; return how many parts it has written."""
    until = time.monotonic() + 240
    while len(store.names(bucket, "out")) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    names = store.names(bucket, "out")
    assert "out/_SUCCESS" not in names
    return len([name for name in names if name.endswith(".parquet")])


@pytest.mark.parametrize("store", [AZURE, *slow("google")], indirect=True)
def test_a_killed_job_is_continued(store, address, bucket, model, expected, tmp_path):
    target = store.address(f"{bucket}/out")
    process = start(address, target, model, store.options(), **faults.slow(tmp_path / "slow"))
    done = kill_after(store, bucket, 4, process)
    assert 0 < done < PARTS
    report = run(store, address, target, model)
    assert report.complete and report.parts_this_run == PARTS - done
    assert_whole(store, bucket, expected)


@pytest.mark.slow
def test_a_killed_command_is_continued_by_the_same_command(s3, bucket, source, model, expected, tmp_path):
    address, target = s3.upload(source, bucket, "in"), s3.address(f"{bucket}/out")
    command = faults.job_command(address, target, model, "--workers", "1", "--threads", "1")
    done = kill_after(
        s3, bucket, 4, faults.start(*command, **s3.environment(), **faults.slow(tmp_path / "slow"))
    )
    assert 0 < done < PARTS
    listed = faults.start("-m", "nemo_embed_dask", "errors", target, **s3.environment()).communicate(
        timeout=200
    )
    assert listed[0].startswith(f"{done} of {PARTS} parts are whole: the job runs, or was interrupted"), listed
    again = faults.start(*command, **s3.environment())
    text = again.communicate(timeout=400)[0]
    assert again.returncode == 0 and SECRET not in text, text
    assert f"12 of 12 whole, {PARTS - done} by this run" in text, text
    assert_whole(s3, bucket, expected)


@pytest.mark.parametrize("store", ["s3", SLOW_AZURE, *slow("google")], indirect=True)
def test_two_runs_of_one_command_at_once(store, address, bucket, model, expected):
    """There is no lock; both may write a part, and a reader sees one of two equal ones."""
    target = store.address(f"{bucket}/out")
    other = start(address, target, model, store.options())
    assert run(store, address, target, model).complete
    assert other.communicate(timeout=240)[0] == "True\n"
    assert_whole(store, bucket, expected)


def test_a_run_stops_when_another_one_has_replaced_its_plan(s3, bucket, source, model, monkeypatch):
    """The first run's part arrives when the second has ended; the target is then not complete until a third one."""
    monkeypatch.setattr(execute, "_CHECK_SECONDS", 0.0)
    address, target = s3.upload(source, bucket, "in"), s3.address(f"{bucket}/out")
    other = {"settings": {"max_seq_length": 5}, "force": True}
    with FlakyProxy(s3.port, hold=f"PUT /{bucket}/out/in-02") as proxy, ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, s3, address, target, model, options=s3.options(proxy.url))
        assert proxy.held.wait(240)
        assert run(s3, address, target, model, **other).complete
        before = s3.names(bucket, "out")
        proxy.hold = ""
        proxy.released.set()
        with pytest.raises(JobError, match="another run with other settings or inputs has begun"):
            first.result(240)
    assert [name for name in before if name not in s3.names(bucket, "out")] == ["out/_SUCCESS"]
    last = run(s3, address, target, model, **other)
    assert last.complete and last.parts_this_run == 1
    assert run(s3, address, target, model, **other).parts_this_run == 0


@pytest.mark.parametrize("seed", [0, *slow(1)])
@pytest.mark.parametrize("store", ["s3", SLOW_AZURE, *slow("google")], indirect=True)
def test_a_network_that_fails_at_random(store, address, bucket, model, expected, seed):
    """One request of eight: reset, answered only in part or not at all, refused with 500 or 503, or slow."""
    with FlakyProxy(store.port, 0.12, seed) as proxy:
        target, options = store.address(f"{bucket}/out"), store.options(proxy.url)
        # A plan has no retries of its own: its errors end the command, which says to run it again.
        for _ in range(4):
            try:
                report = run(store, address, target, model, options=options, retries=4)
            except JobError as error:
                assert error.temporary and SECRET not in str(error), error
            else:
                break
        assert report.complete and sum(proxy.counts[fault] for fault in FAULTS) > 5, (report, proxy.counts)
    run(store, address, target, model)
    assert_whole(store, bucket, expected)


# ---- large parts, many parts ------------------------------------------------------------------------

# s3fs uploads files of 100 MB and more in pieces of 50 MB, gcsfs of 50 MB, adlfs of 64 MB.
LARGE = 105_000_000


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A folder with one input whose part is larger than all these limits."""
    folder = tmp_path_factory.mktemp("large") / "in"
    folder.mkdir()
    values = np.random.default_rng(0).bytes(LARGE)
    third = LARGE // 3
    blobs = [values[i * third : (i + 1) * third] for i in range(3)]
    table = pa.table({"id": range(3), "text": ["a", None, "b"], "url": ["u"] * 3, "blob": blobs})
    pq.write_table(table, folder / "in.parquet", compression="none", use_dictionary=False)
    return folder


def assert_large_part(store, bucket, large):
    found = store.table(bucket, "out").drop_columns("embeddings")
    assert found.equals(pq.read_table(large / "in.parquet"))
    assert len([name for name in store.names(bucket, "out") if name.endswith(".parquet")]) == 1


def test_a_part_that_is_uploaded_in_pieces(store, bucket, large, model):
    store.make_bucket(bucket)
    assert run(store, str(large), store.address(f"{bucket}/out"), model).complete
    assert_large_part(store, bucket, large)
    assert store.uploads(bucket) == []


def test_a_run_that_is_killed_between_two_pieces_leaves_no_piece(s3, bucket, large, model):
    """No listing shows pieces of an upload that was not completed, but they cost money."""
    s3.make_bucket(bucket)
    s3.client.create_multipart_upload(Bucket=bucket, Key="of/others")
    target = s3.address(f"{bucket}/out")
    with FlakyProxy(s3.port, hold="partNumber=2") as proxy:
        process = start(str(large), target, model, s3.options(proxy.url))
        assert proxy.held.wait(240)
        process.kill()
        process.communicate()
    assert len(s3.uploads(bucket)) == 2
    assert run(s3, str(large), target, model).complete
    assert_large_part(s3, bucket, large)
    assert s3.uploads(bucket) == ["of/others"]


def test_an_upload_that_another_run_has_ended_is_tried_again(s3, bucket, large, model):
    """The first run to end removes unfinished uploads; another one then finds the part."""
    s3.make_bucket(bucket)
    target = s3.address(f"{bucket}/out")
    with FlakyProxy(s3.port, hold="partNumber=2") as proxy, ThreadPoolExecutor(1) as pool:
        late = pool.submit(run, s3, str(large), target, model, options=s3.options(proxy.url))
        assert proxy.held.wait(240)
        assert run(s3, str(large), target, model).complete
        proxy.hold = ""
        proxy.released.set()
        assert late.result(240).complete
    assert_large_part(s3, bucket, large)
    assert s3.uploads(bucket) == []


@pytest.mark.slow
def test_more_than_a_thousand_parts(s3, bucket, model, tmp_path):
    (tmp_path / "in").mkdir()
    s3.make_bucket(bucket)
    table = pa.table({"id": range(1010), "text": [f"text {i}" for i in range(1010)]})
    pq.write_table(table, tmp_path / "in" / "in.parquet", row_group_size=1)
    source, target = str(tmp_path / "in"), s3.address(f"{bucket}/out")
    options = {"target_options": s3.options(), "rows_per_part": 1}
    report = embed_parquet(faults.stage(model), source, target, **options)
    assert report.complete and report.parts_this_run == 1010
    s3.client.delete_object(Bucket=bucket, Key=s3.names(bucket, "out")[1005])
    assert embed_parquet(faults.stage(model), source, target, **options).parts_this_run == 1
    assert s3.table(bucket, "out")["id"].to_pylist() == [*range(1010)]


def test_a_dask_frame_from_store_to_store(store, address, bucket, model, expected):
    frame = dd.read_parquet(address, storage_options=store.options())
    embedded = frame.pipe(embed, model_identifier=str(model), autocast=False)
    target = store.address(f"{bucket}/out")
    embedded.to_parquet(target, storage_options=store.options(), compute_kwargs={"scheduler": "threads"})
    faults.assert_same_rows(faults.rows_by_id(store.table(bucket, "out")), expected)
