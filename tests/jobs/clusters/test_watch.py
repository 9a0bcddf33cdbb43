"""A job looks at its workers while it waits: none there, paused, killed, or slow; by real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from distributed import Client, LocalCluster, Nanny

from nemo_embed_dask import ClusterError, ConfigError, EmbeddingCreatorStage, embed_parquet
from nemo_embed_dask.jobs.clusters import connect as local
from nemo_embed_dask.jobs.clusters import futures as jobs_cluster
from nemo_embed_dask.jobs.clusters import preload, watch
from nemo_embed_dask.jobs.units.progress import Progress

from ...helpers import faults

# Dask's own pausing, at a part of memory that any worker uses.
PAUSED = {"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "0.0001"}
ROWS = {"rows_per_part": 20}


class Heard(Progress):
    """What is said, and a function that is called at the first part."""

    def __init__(self, at_first_part=lambda: None):
        super().__init__()
        self.said, self._at_first_part = [], at_first_part

    def warn(self, line):
        self.said.append((time.monotonic(), line))

    def finished(self, outcome):
        super().finished(outcome)
        act, self._at_first_part = self._at_first_part, lambda: None
        act()

    def lines(self, pattern):
        return [line for _, line in self.said if re.search(pattern, line)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("watch") / "in")


@pytest.fixture
def stage(tiny):
    return faults.stage(tiny("bert"))


@pytest.fixture
def cluster(tmp_path):
    made = faults.Cluster(tmp_path)
    made.start_scheduler()
    yield made
    made.stop()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(watch, "_CHECK_S", 0.3)
    monkeypatch.setattr(jobs_cluster, "_RESULT_S", 1)
    monkeypatch.setattr(watch, "_PAUSED_S", 3)


@pytest.mark.usefixtures("quick")
def test_a_job_whose_workers_are_all_paused_says_so_and_ends(source, stage, cluster, tmp_path):
    cluster.start_worker(**PAUSED)
    heard = Heard()
    with Client(scheduler_file=str(cluster.file)) as client:
        said = (
            r"1 of 1 workers are paused by Dask, .* of .*iB of memory: give each worker more \(--memory-limit\)"
        )
        with pytest.raises(ClusterError, match=said + ".*run the same command again"):
            embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)
    assert len(heard.lines(said)) == 1, heard.said


@pytest.mark.usefixtures("quick")
def test_a_paused_worker_beside_another_is_said_and_the_job_is_done(source, stage, cluster, tmp_path):
    cluster.start_worker(**PAUSED)
    cluster.start_worker()
    heard = Heard(lambda: time.sleep(2))
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)  # it does not count those that are paused
        while len(client.scheduler_info()["workers"]) < 2:
            time.sleep(0.1)
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)
    assert report.complete and heard.lines("1 of 2 workers are paused"), heard.said


@pytest.mark.usefixtures("quick")
def test_a_job_without_workers_midway_says_so_at_once_and_goes_on_with_a_new_one(
    source, stage, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch, "_REMIND_S", 4)
    worker, killed = cluster.start_worker(), []

    def kill():
        worker.kill()
        worker.wait()
        killed.append(time.monotonic())

    class Replaced(Heard):
        def warn(self, line):
            super().warn(line)
            if len(self.lines("no workers")) == 2:
                cluster.start_worker()

    heard = Replaced(kill)
    with Client(scheduler_file=str(cluster.file)) as client:
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)
    assert report.complete
    first, second = [(when, line) for when, line in heard.said if "no workers" in line][:2]
    assert first[1] == "the cluster has no workers; waiting for one" and first[0] - killed[0] < 10
    assert re.match(r"no progress for 0:0\d: the cluster has no workers", second[1]), heard.said


def slow(seconds):
    time.sleep(seconds)


@pytest.mark.usefixtures("quick")
def test_what_takes_long_is_named_with_its_worker(source, stage, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_REMIND_S", 1)
    cluster.start_worker()
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        (address,) = client.nthreads()
        heard = Heard(lambda: blocking.append(client.submit(slow, 4, key="other", priority=10)))
        blocking = []
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)
    assert report.complete
    assert heard.lines(
        rf"no progress for .*2 parts are being embedded: embed-\S+\.parquet on {address} since 0:0\d"
    ), heard.said


def test_success_is_written_before_a_cluster_closes_which_may_take_long(source, stage, tmp_path):
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 1}
    closed = []

    @contextmanager
    def begin():
        with LocalCluster(**options) as made, Client(made) as client:
            yield client
            closed.append((tmp_path / "out" / "_SUCCESS").is_file())

    assert embed_parquet(stage, str(source), str(tmp_path / "out"), client=begin).complete
    assert closed == [True]


def test_a_worker_killed_while_it_loads_the_model_is_told_with_its_memory(source, stage, tmp_path):
    start = time.monotonic()
    with (
        local.local_cluster(1, 1, "200MB") as made,
        Client(made) as client,
        pytest.raises(
            ClusterError, match=r"died before it had .* memory limit is 190.73 MiB; .*--memory-limit"
        ),
    ):
        embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)
    assert time.monotonic() - start < 90


@pytest.fixture
def never_again(monkeypatch):
    """Workers of a local cluster that end are not started again, as where one died while it started."""
    monkeypatch.setattr(watch, "_NO_WORKER_S", 2)

    def give_up():
        async def nothing(self):
            return None

        monkeypatch.setattr(Nanny, "instantiate", nothing)

    return give_up


@pytest.mark.parametrize("when", ["at the start", "midway"])
@pytest.mark.usefixtures("quick")
def test_a_local_cluster_that_starts_no_other_worker_ends_the_job(when, source, stage, tmp_path, never_again):
    """Dask gives up a worker that dies while it starts; another one will never come."""
    heard = Heard()
    with local.local_cluster(1, 1, "0") as made, Client(made) as client:
        (worker,) = client.run(os.getpid).values()

        def end():
            never_again()
            os.kill(worker, signal.SIGKILL)

        if when == "midway":
            heard = Heard(end)
        else:
            end()
            while client.run(os.getpid, on_error="ignore"):
                time.sleep(0.1)
        with pytest.raises(ClusterError, match=r"lost its workers; .*Dask has started no other.* run the same"):
            embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)


def test_that_all_workers_have_died_is_said_while_another_is_waited_for(
    source, stage, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(preload, "_FIRST_S", 1)
    worker = cluster.start_worker()

    class Replaced(Heard):
        def warn(self, line):
            super().warn(line)
            if "waiting for another" in line:
                cluster.start_worker()

    def die(*arguments):
        if worker.poll() is not None:
            return find(*arguments)
        worker.kill()
        worker.wait()
        return {}

    heard, find = Replaced(), preload._find
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        monkeypatch.setattr(preload, "_find", die)
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)
    assert report.complete and heard.lines("^all workers of the cluster have died; waiting for another one$")


def test_a_worker_killed_while_it_loads_the_model_costs_nothing_if_another_comes(
    source, stage, cluster, tmp_path, monkeypatch
):
    worker, real, began = cluster.start_worker(), preload.model_digests, tmp_path / "began"

    def find(settings):
        began.touch()
        time.sleep(2)
        return real(settings)

    def kill():
        while not began.exists():
            time.sleep(0.05)
        worker.kill()

    class Replaced(Heard):
        def warn(self, line):
            super().warn(line)
            cluster.start_worker()

    heard = Replaced()
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        monkeypatch.setattr(preload, "model_digests", find)
        threading.Thread(target=kill, daemon=True).start()
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=heard, **ROWS)
    assert report.complete and len(heard.lines("died before it had looked for the model")) == 1, heard.said


def test_an_adaptive_cluster_of_no_workers_starts_one_and_keeps_it(source, stage, tmp_path, monkeypatch):
    """Finding the model takes longer than the cluster keeps a worker that has nothing to do."""
    real = preload.model_digests
    monkeypatch.setattr(preload, "model_digests", lambda settings: time.sleep(3) or real(settings))
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 0, "threads_per_worker": 1}
    with LocalCluster(**options) as made, Client(made) as client:
        adaptive = made.adapt(minimum=0, maximum=1, interval="100ms", wait_count=5)
        report = embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)
        assert report.complete
        log = [what for _, what in adaptive.log]
        prefixes = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    first_close = next((i for i, what in enumerate(log) if what["status"] == "down"), len(log))
    assert first_close and prefixes == ["embed"], log
    assert len([what for what in log if what["status"] == "up"]) == 1, f"it was closed midway: {log}"


def test_a_client_that_a_job_cannot_use_is_refused_at_once(source, stage, tmp_path):
    async def asynchronous():
        async with (
            LocalCluster(processes=False, dashboard_address=":0", asynchronous=True, n_workers=1) as made,
            Client(made, asynchronous=True) as client,
        ):
            with pytest.raises(ConfigError, match="the client is asynchronous.*without asynchronous=True"):
                embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)
        with pytest.raises(ClusterError, match="the client is closed; create a new one"):
            embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)

    asyncio.run(asynchronous())
    with LocalCluster(processes=False, dashboard_address=":0", n_workers=1) as made:
        client = Client(made)
        client.close()
        with pytest.raises(ClusterError, match="the client is closed; create a new one"):
            embed_parquet(EmbeddingCreatorStage(), str(source), str(tmp_path / "out"), client=client)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("as_is", [True, False])
def test_what_is_no_client_is_refused(as_is, source, stage, tmp_path):
    """A cluster, given as it is or by what starts one."""
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 1}
    said = r"client=LocalCluster.*\(LocalCluster\) is not a client; pass client=distributed\.Client\(cluster\)"
    with LocalCluster(**options) as made, pytest.raises(ConfigError, match=said):
        client = made if as_is else lambda: LocalCluster(**options)
        embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)
    with pytest.raises(ConfigError, match=r"client=5 \(int\) is not a client; pass"):
        embed_parquet(stage, str(source), str(tmp_path / "other"), client=5)
    assert not (tmp_path / "other").exists()
