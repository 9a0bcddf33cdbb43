"""Units as futures: a unit without a client ends; a worker that is leaving gives its unit to another one."""

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
    """Send ticks, as a unit does, until the client is gone."""
    tick = jobs_cluster._TickSender(get_worker())
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


def test_a_unit_whose_client_is_gone_ends(client):
    with Client(client.scheduler.address) as other:
        future = other.submit(work, key="embed-1")
        assert began.wait(30) and not ended.is_set()
        del future
    assert ended.wait(30)


def fail_to_load():
    raise RuntimeError("no such model")


def load_nothing():
    """Loads no model."""


def test_a_worker_without_the_plugin_of_a_job_fails_its_unit(client):
    with pytest.raises(ClusterError, match="worker .* does not have this job"):
        client.submit(jobs_cluster._on_worker, UNIT, "preload", key="embed-0").result(timeout=30)


def test_a_worker_that_is_leaving_gives_its_unit_to_another(client, monkeypatch):
    """It stays for some seconds, so that its event is sent; a worker that joins later embeds the unit."""
    monkeypatch.setattr(cluster, "_CLOSE_DELAY_S", 5)
    monkeypatch.setattr(jobs_cluster, "attempt", lambda unit, job, tick: Outcome(unit, "failed", reason="done"))
    client.register_plugin(plugin.JobPreload(plugin.SerializedJob(None, fail_to_load), "preload"))
    future = client.submit(jobs_cluster._on_worker, UNIT, "preload", key="embed-2")
    time.sleep(1)
    assert not future.done(), "a worker without the model did a unit"
    other = plugin.JobPreload(plugin.SerializedJob(None, load_nothing), "preload")
    client.cluster.scheduler.worker_plugins["preload"] = dumps(other)
    client.cluster.scale(2)
    assert future.result(timeout=30).reason == "done"
