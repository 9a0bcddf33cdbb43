"""Temporary errors are shown and tried again; a job ends if its storage stays unreachable."""

from __future__ import annotations

import itertools
import time
from typing import ClassVar

import fsspec
import pytest
from distributed import Client, LocalCluster
from fsspec.implementations.memory import MemoryFileSystem

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs.files.file_identity import FileIdentity
from nemo_embed_dask.jobs.files.inputs import InputFile, Unit
from nemo_embed_dask.jobs.units.progress import Progress
from nemo_embed_dask.jobs.units.retries import Retries
from nemo_embed_dask.jobs.units.work import Outcome

from ...helpers import faults


class Failing(MemoryFileSystem):
    """An object store that accepts ``takes`` parts, then fails for ``fails`` writes, then works again."""

    protocol = "failing"
    cachable = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    takes, fails = 0, 0

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("failing://").strip("/")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if path.endswith(".parquet"):
            Failing.takes -= 1
            if Failing.takes < 0 <= (left := Failing.fails - 1):
                Failing.fails = left
                raise ConnectionResetError("the store went away")
        super().pipe_file(path, value, mode, **kwargs)


class Recording(Progress):
    def __init__(self):
        super().__init__()
        self.warnings = []

    def warn(self, line):
        self.warnings.append(line)


@pytest.fixture
def target():
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing.store, Failing.pseudo_dirs = {}, [""]
    return "failing://bucket/out"


@pytest.fixture
def source(tmp_path):
    return str(faults.write_inputs(tmp_path / "in"))


def parts():
    return [path for path in Failing.store if path.endswith(".parquet")]


@pytest.fixture(params=["in process", "cluster"])
def client(request):
    if request.param == "in process":
        yield None
        return
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 2}
    with LocalCluster(**options) as made, Client(made) as client:
        yield client


def test_a_store_that_stays_unreachable_ends_the_job(client, target, source, tiny):
    Failing.takes, Failing.fails = 2, 10**9
    display, start = Recording(), time.monotonic()
    with pytest.raises(
        JobError,
        match=r"the last \d+ attempts have all failed, probably because the storage of the inputs or of the target cannot be reached.*went away.*same command",
    ):
        embed_parquet(
            faults.stage(tiny("bert")), source, target, rows_per_part=20, client=client, progress=display
        )
    assert time.monotonic() - start < 60
    assert len(parts()) == 2
    again = [
        line for line in display.warnings if "went away" in line and line.endswith("; will be tried again")
    ]
    assert 3 <= len(again) <= 10 and all("in-0" in line for line in again), display.warnings
    Failing.fails = 0
    stage = faults.stage(tiny("bert"))
    report = embed_parquet(stage, source, target, rows_per_part=20, client=client)
    assert report.complete and report.parts_this_run == 22


def test_a_store_that_fails_for_a_moment_loses_no_part(client, target, source, tiny):
    Failing.takes, Failing.fails = 2, 2
    display = Recording()
    report = embed_parquet(
        faults.stage(tiny("bert")), source, target, rows_per_part=20, client=client, progress=display
    )
    assert report.complete and report.parts_this_run == 24 and len(display.warnings) == 2, display.warnings


UNITS = [Unit(InputFile(name, "parquet", FileIdentity(1, "")), name) for name in "abcdef"]


def failed(unit):
    return Outcome(unit, "retry", reason=f"{unit.name}: reset")


def test_delays_double_and_end_with_the_retries():
    tries = Retries(3, Progress())
    assert [tries.delay(failed(UNITS[0]), tried) for tried in range(4)] == [0.25, 0.5, 1.0, None]
    assert tries.delay(Outcome(UNITS[0], "failed"), 0) is None


@pytest.mark.parametrize(("retries", "in_flight", "attempts"), [(2, 1, 9), (0, 1, 3), (1, 10, 20)])
def test_only_many_failures_in_a_row_end_a_job(retries, in_flight, attempts):
    tries = Retries(retries, Progress())
    for unit in itertools.islice(itertools.cycle(UNITS), attempts - 1):
        tries.delay(failed(unit), 0, in_flight)
    tries.delay(Outcome(UNITS[0], "done"), 0, in_flight)
    for unit in itertools.islice(itertools.cycle(UNITS), attempts - 1):
        tries.delay(failed(unit), 0, in_flight)
    tries.delay(Outcome(UNITS[0], "failed", reason="no Parquet"), 0, in_flight)
    with pytest.raises(JobError, match=f"the last {attempts} attempts") as caught:
        tries.delay(failed(UNITS[0]), 0, in_flight)
    assert caught.value.temporary
