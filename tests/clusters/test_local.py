"""A real cluster of real worker processes on this machine; of the GPU one, that its settings exist."""

import asyncio
import os
import signal
import time

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, Nanny

from nemo_embed_dask import (
    ClusterError,
    ConfigError,
    EmbeddingCreatorStage,
    ModelError,
    embed,
    embed_cluster,
    runtimes,
)
from nemo_embed_dask.clusters import local as cluster
from nemo_embed_dask.clusters import processes


def state():
    return {"rayon": os.environ.get("RAYON_NUM_THREADS"), "models": len(runtimes._loaded), "pid": os.getpid()}


def test_a_cluster_leaves_nothing_in_the_environment(monkeypatch):
    """The workers of a second cluster would have the first one's share of the cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = {k: v for k, v in os.environ.items() if not k.startswith("__DASK")}
    with cluster.local_cluster(use_gpus=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"):
        assert "RAYON_NUM_THREADS" in os.environ, "Dask no longer does that: this can go"
    assert {k: v for k, v in os.environ.items() if not k.startswith("__DASK")} == before


def test_every_worker_has_the_model_before_its_first_task(tiny):
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), hf_token="hf_secret")
    with embed_cluster(
        stage, use_gpus=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        found = client.run(state)
        assert len({one["pid"] for one in found.values()} - {os.getpid()}) == 2
        assert [one["models"] for one in found.values()] == [1, 1]
        assert {one["rayon"] for one in found.values()} == {str(max(1, processes.cpu_cores() // 2))}
        assert set(client.nthreads().values()) == {1}
        frame = dd.from_pandas(pd.DataFrame({"text": ["one", None, "three"]}), npartitions=2)
        out = frame.pipe(embed, model_identifier=stage.model_identifier).compute()
        assert out.embeddings.isna().tolist() == [False, True, False]
        assert "hf_secret" not in str(
            client.run(
                lambda dask_worker: str(
                    [
                        vars(plugin.load.__self__)
                        for name, plugin in dask_worker.plugins.items()
                        if name.startswith("nemo")
                    ]
                )
            )
        )


def test_a_model_that_cannot_be_had_fails_before_there_is_a_cluster(tmp_path):
    stage = EmbeddingCreatorStage(model_identifier=str(tmp_path))
    with pytest.raises(ModelError, match=r"config\.json"), embed_cluster(stage, use_gpus=False):
        pytest.fail("there is a cluster")


def test_a_model_that_a_worker_cannot_load_is_that_worker_s_own_error(tiny, tmp_path):
    model = tmp_path / "broken"
    model.mkdir()
    (model / "config.json").write_text((tiny("bert") / "config.json").read_text())
    stage = EmbeddingCreatorStage(model_identifier=str(model))
    with (
        pytest.raises(Exception, match=r"broken|tokenizer|model"),
        embed_cluster(stage, use_gpus=False, n_workers=1, dashboard_address=":0"),
    ):
        pytest.fail("the model cannot have been loaded")


def test_a_worker_killed_while_it_loads_the_model_is_told_with_its_memory(tiny):
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")))
    with (
        pytest.raises(ClusterError, match=r"memory limit: 190.73 MiB.*raise memory_limit"),
        embed_cluster(stage, use_gpus=False, n_workers=1, dashboard_address=":0", memory_limit="200MB"),
    ):
        pytest.fail("the model cannot have been loaded")


@pytest.mark.parametrize("limit", ["", "1B", "99MB", 2, 50_000_000])
def test_a_memory_limit_too_small_for_any_worker_is_refused(limit, tiny):
    """Dask took "" and 1B for one byte in the nanny, and for the machine's whole memory in the worker."""
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")))
    with (
        pytest.raises(
            ConfigError, match=r"^memory_limit=.* is (not a memory size|too little memory).*such as 4GB"
        ),
        embed_cluster(stage, use_gpus=False, n_workers=1, dashboard_address=":0", memory_limit=limit),
    ):
        pytest.fail("there is a cluster")


@pytest.mark.parametrize("limit", [None, 0, "0", "auto", 0.5, 1, "1e9", 10**8])
def test_memory_limits_that_workers_can_have(limit):
    assert not processes.memory_problem(limit)


def test_a_cluster_that_dask_cannot_close_ends_in_time_and_leaves_no_process(monkeypatch):
    """As where a worker died while it started: its nanny waits for ever for that start."""
    monkeypatch.setattr(processes, "_CLOSE_S", 1)
    monkeypatch.setattr(processes, "_CLOSE_AFTER_KILL_S", 0.5)

    async def never(self, **_):
        await asyncio.sleep(3600)

    with (
        cluster.local_cluster(use_gpus=False, n_workers=1, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        (worker,) = client.run(os.getpid).values()
        monkeypatch.setattr(Nanny, "close", never)
        start = time.monotonic()
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_the_users_settings_win(monkeypatch):
    asked = {}
    monkeypatch.setattr(cluster, "LocalCluster", lambda **settings: asked.update(settings))
    cluster._cluster(3, 0, {"n_workers": 5, "memory_limit": "1GB"})
    assert (asked["n_workers"], asked["memory_limit"]) == (5, "1GB")
    assert asked["threads_per_worker"] == max(1, cluster.cpu_cores() // 3)


def test_cores_are_shared_and_settings_end_with_the_cluster():
    environment = processes.environment(10**6)
    assert environment["distributed.nanny.pre-spawn-environ.RAYON_NUM_THREADS"] == 1
    assert environment["distributed.nanny.pre-spawn-environ.OMP_WAIT_POLICY"] == "PASSIVE"
    assert "RAYON_NUM_THREADS" not in dask.config.get("distributed.nanny.pre-spawn-environ")


def blocked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_never_see_ctrl_c_even_after_a_restart():
    with (
        cluster.local_cluster(use_gpus=False, n_workers=1, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        assert not blocked(), "this process handles it"
        (first,) = client.run(os.getpid).values()
        assert client.run(blocked) == dict.fromkeys(client.nthreads(), True)
        os.kill(first, signal.SIGKILL)
        client.wait_for_workers(1, timeout=60)
        until = time.monotonic() + 60
        while (
            first in (client.run(os.getpid, on_error="ignore") or {0: first}).values()
            and time.monotonic() < until
        ):
            time.sleep(0.1)
        assert set(client.run(blocked).values()) == {True}, "the worker that was started in its place"
