"""A job checks its workers while it waits: missing, paused, killed, or slow. With real processes."""

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

from ...helpers import faults
from ...helpers.recorder import Recorder

# Dask pauses a worker that uses more than this fraction of its memory, which every worker does.
PAUSED = {"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "0.0001"}
ROWS = {"rows_per_part": 20}


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
def test_a_job_whose_workers_are_all_paused_fails(source, stage, cluster, tmp_path):
    cluster.start_worker(**PAUSED)
    progress = Recorder()
    with Client(scheduler_file=str(cluster.file)) as client:
        message = (
            r"1 of 1 workers are paused by Dask, .* of .*iB of memory: give each worker more \(--memory-limit\)"
        )
        with pytest.raises(ClusterError, match=message + ".*run the same command again"):
            embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS)
    assert len(progress.matching(message)) == 1, progress.messages


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_a_paused_worker_is_reported_and_the_others_do_the_job(source, stage, cluster, tmp_path):
    cluster.start_worker(**PAUSED)
    cluster.start_worker()
    progress = Recorder(lambda: time.sleep(2))
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)  # it does not count those that are paused
        while len(client.scheduler_info()["workers"]) < 2:
            time.sleep(0.1)
        report = embed_parquet(
            stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS
        )
    assert report.complete and progress.matching("1 of 2 workers are paused"), progress.messages


@pytest.mark.usefixtures("quick")
def test_a_job_that_loses_its_workers_reports_it_at_once_and_continues_with_a_new_one(
    source, stage, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch, "_REMIND_S", 4)
    worker, killed = cluster.start_worker(), []

    def kill():
        worker.kill()
        worker.wait()
        killed.append(time.monotonic())

    progress = Recorder(kill, pattern="no progress .* no workers", at_message=cluster.start_worker)
    with Client(scheduler_file=str(cluster.file)) as client:
        report = embed_parquet(
            stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS
        )
    assert report.complete
    first, second = progress.matching("no workers")[:2]
    assert first == "the cluster has no workers; waiting for one"
    assert progress.times[progress.messages.index(first)] - killed[0] < 10
    assert re.match(r"no progress for 0:0\d: the cluster has no workers", second), progress.messages


def slow(seconds):
    time.sleep(seconds)


@pytest.mark.usefixtures("quick")
def test_slow_units_are_named_with_their_worker(source, stage, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_REMIND_S", 1)
    cluster.start_worker()
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        (address,) = client.nthreads()
        progress = Recorder(lambda: blocking.append(client.submit(slow, 4, key="other", priority=10)))
        blocking = []
        report = embed_parquet(
            stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS
        )
    assert report.complete
    assert progress.matching(
        rf"no progress for .*2 parts are being embedded: embed-\S+\.parquet on {address} since 0:0\d"
    ), progress.messages


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


def test_a_worker_killed_while_it_loads_the_model_is_reported_with_its_memory_limit(source, stage, tmp_path):
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
def no_restart(monkeypatch):
    """Return a function after which a local cluster restarts no worker, as if one had died at its start."""
    monkeypatch.setattr(watch, "_NO_WORKER_S", 2)

    def give_up():
        async def nothing(self):
            return None

        monkeypatch.setattr(Nanny, "instantiate", nothing)

    return give_up


@pytest.mark.parametrize("when", ["at the start", "midway"])
@pytest.mark.usefixtures("quick")
def test_a_local_cluster_that_starts_no_other_worker_ends_the_job(when, source, stage, tmp_path, no_restart):
    """Dask does not restart a worker that dies while it starts."""
    progress = Recorder()
    with local.local_cluster(1, 1, "0") as made, Client(made) as client:
        (worker,) = client.run(os.getpid).values()

        def end():
            no_restart()
            os.kill(worker, signal.SIGKILL)

        if when == "midway":
            progress = Recorder(end)
        else:
            end()
            while client.run(os.getpid, on_error="ignore"):
                time.sleep(0.1)
        with pytest.raises(
            ClusterError, match=r"lost its workers; .*Dask has started no other worker.* run the same"
        ):
            embed_parquet(stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS)


def test_the_death_of_all_workers_is_reported_while_the_job_waits_for_another(
    source, stage, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(preload, "_FIRST_S", 1)
    worker = cluster.start_worker()

    def die(*arguments):
        if worker.poll() is not None:
            return find(*arguments)
        worker.kill()
        worker.wait()
        return {}

    progress = Recorder(pattern="waiting for another", at_message=cluster.start_worker)
    find = preload._find
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        monkeypatch.setattr(preload, "_find", die)
        report = embed_parquet(
            stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS
        )
    assert report.complete and progress.matching(
        "^all workers of the cluster have died; waiting for another one$"
    )


@pytest.mark.slow
def test_a_worker_killed_while_it_looks_for_the_model_is_replaced(
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

    progress = Recorder(pattern="died before", at_message=cluster.start_worker)
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        monkeypatch.setattr(preload, "model_digests", find)
        threading.Thread(target=kill, daemon=True).start()
        report = embed_parquet(
            stage, str(source), str(tmp_path / "out"), client=client, progress=progress, **ROWS
        )
    assert report.complete and len(progress.matching("died before it had looked for the model")) == 1, (
        progress.messages
    )


def test_an_adaptive_cluster_of_no_workers_starts_one_and_keeps_it(source, stage, tmp_path, monkeypatch):
    """Finding the model takes longer than the cluster keeps an idle worker."""
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


def test_a_closed_or_asynchronous_client_is_refused(source, stage, tmp_path):
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
        with pytest.raises(ClusterError, match="the client is closed; create a new one"):  # closed since then
            preload.prepare_workers(client, EmbeddingCreatorStage(), Recorder())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("as_is", [True, False])
def test_an_object_that_is_not_a_client_is_refused(as_is, source, stage, tmp_path):
    """Pass a cluster instead of a client, directly or from a function."""
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 1}
    message = (
        r"client=LocalCluster.*\(LocalCluster\) is not a client; pass client=distributed\.Client\(cluster\)"
    )
    with LocalCluster(**options) as made, pytest.raises(ConfigError, match=message):
        client = made if as_is else lambda: LocalCluster(**options)
        embed_parquet(stage, str(source), str(tmp_path / "out"), client=client)
    with pytest.raises(ConfigError, match=r"client=5 \(int\) is not a client; pass"):
        embed_parquet(stage, str(source), str(tmp_path / "other"), client=5)
    assert not (tmp_path / "other").exists()
