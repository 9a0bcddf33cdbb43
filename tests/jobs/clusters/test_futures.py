"""Units as futures: what nobody waits for any more ends; a worker about to leave hands its unit on."""

from __future__ import annotations

import threading
import time

import pytest
from distributed import Client, LocalCluster, get_worker
from distributed.protocol.pickle import dumps

from nemo_embed_dask import ClusterError, JobError
from nemo_embed_dask.clusters import local as cluster
from nemo_embed_dask.jobs.clusters import futures as jobs_cluster
from nemo_embed_dask.jobs.clusters import plugin
from nemo_embed_dask.jobs.files.file_identity import FileIdentity
from nemo_embed_dask.jobs.files.inputs import InputFile, Unit
from nemo_embed_dask.jobs.units.work import Outcome

UNIT = Unit(InputFile("a", "parquet", FileIdentity(1, "")), "a")
began, ended = threading.Event(), threading.Event()


def work():
    """As a unit does: ticks until it is told that nobody waits."""
    tick = jobs_cluster._Ticks(get_worker())
    began.set()
    try:
        while True:
            tick("a", 1, 1)
            time.sleep(0.01)
    except JobError:
        ended.set()
        raise


@pytest.fixture
def client():
    options = {"dashboard_address": "127.0.0.1:0", "processes": False, "n_workers": 1, "threads_per_worker": 1}
    with LocalCluster(**options) as made, Client(made) as client:
        yield client


def test_a_unit_whose_client_is_gone_ends_and_commits_nothing(client):
    with Client(client.scheduler.address) as other:
        future = other.submit(work, key="embed-1")
        assert began.wait(30) and not ended.is_set()
        del future
    assert ended.wait(30)


def leave_at_once():
    raise RuntimeError("no such model")


def nothing():
    """Loads no model."""


def test_a_worker_that_was_not_told_of_a_job_says_so(client):
    with pytest.raises(ClusterError, match="worker .* does not have this job"):
        client.submit(jobs_cluster._on_worker, UNIT, "preload", key="embed-0").result(timeout=30)


def test_a_worker_that_is_about_to_leave_hands_its_unit_on(client, monkeypatch):
    """It stays for a second, so that its word gets out; the other one, which came later, does the work."""
    monkeypatch.setattr(cluster, "_CLOSE_DELAY_S", 5)
    monkeypatch.setattr(jobs_cluster, "attempt", lambda unit, job, tick: Outcome(unit, "failed", reason="done"))
    client.register_plugin(plugin.JobPreload(plugin.SerializedJob(None, leave_at_once), "preload"))
    future = client.submit(jobs_cluster._on_worker, UNIT, "preload", key="embed-2")
    time.sleep(1)
    assert not future.done(), "a worker without the model did a unit"
    other = plugin.JobPreload(plugin.SerializedJob(None, nothing), "preload")
    client.cluster.scheduler.worker_plugins["preload"] = dumps(other)
    client.cluster.scale(2)
    assert future.result(timeout=30).reason == "done"
