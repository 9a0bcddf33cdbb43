"""Clusters of the command line: what is wrong with an address, a file or a size is one typed error."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from distributed import Client, LocalCluster

from nemo_embed_dask import ClusterError, ConfigError, EmbeddingCreatorStage
from nemo_embed_dask.jobs.clusters import connect as local


@pytest.mark.parametrize(
    "address",
    [
        "foo",
        "127.0.0.1",
        "foo:bar",
        "  ",
        "tcp://",
        "nope://host:1",
        "http://host:1",
        "tls://127.0.0.1:1",
        "tcp://127.0.0.1:1",
    ],
)
def test_an_address_that_leads_nowhere(address, monkeypatch):
    monkeypatch.setattr(local, "_TIMEOUT_S", 0.5)
    with pytest.raises(
        ClusterError, match=r"^no Dask scheduler answers at .*\(.+\); start one: dask scheduler$"
    ):
        local.connect(address, None)


OTHERS = {
    b"": "has not replied within 1 s",
    b"SSH-2.0-OpenSSH_9.2p1\r\n": "does not speak Dask's protocol",
    b"220 mail ESMTP\r\n": "does not speak Dask's protocol",
    b"HTTP/1.1 400 Bad Request\r\n\r\n": "does not speak Dask's protocol",
    None: "(closed|: CommClosedError)",  # the error may have no text
}


@pytest.mark.parametrize("greeting", OTHERS)
def test_another_service_at_the_address(greeting, monkeypatch):
    """One that waits for its client to speak first, as HTTP does, would be waited for by Dask for ever."""
    monkeypatch.setattr(local, "_TIMEOUT_S", 1)
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):  # the server is closed
                while True:
                    kept.append(server.accept()[0])
                    kept.pop().close() if greeting is None else kept[-1].sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ClusterError, match=f"^no Dask scheduler answers at {address} .*{OTHERS[greeting]}"):
            local.connect(address, None)
        assert time.monotonic() - start < 5
        # Otherwise the thread goes on waiting, and may accept connections of the next test's server.
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


def test_the_address_of_a_worker():
    with (
        LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=":0") as made,
        pytest.raises(ClusterError, match="the service there is a Dask Worker"),
    ):
        local.connect(made.workers[0].address, None)


FILES = {
    b"{}": "has no scheduler address",
    b"[]": "has no scheduler address",
    b'{"address": 5}': "has no scheduler address",
    b"tcp://host:8786": "is not JSON",
    b"": "is not JSON",
    b"\xff\xfe\x00": "is not JSON",
    b'{"address": "tcp://127.0.0.1:1"}': "tcp://127.0.0.1:1",
}


@pytest.mark.parametrize("content", FILES)
def test_a_scheduler_file_that_leads_nowhere(content, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_TIMEOUT_S", 0.5)
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ClusterError) as caught:
        local.connect(None, str(tmp_path / "file.json"))
    assert FILES[content] in str(caught.value) and "\n" not in str(caught.value), caught.value


def test_a_scheduler_file_that_is_a_folder(tmp_path):
    with pytest.raises(ClusterError, match="Is a directory"):
        local.connect(None, str(tmp_path))


@pytest.mark.parametrize("limit", ["4 gigs", "abc", "-4GB", "nan", "inf", ""])
def test_a_memory_limit_that_is_no_size(limit):
    with (
        pytest.raises(ConfigError, match="is not a memory size"),
        local.local_cluster(1, 1, limit),
    ):
        pytest.fail("there is a cluster")


def memory(dask_worker):
    manager = dask_worker.memory_manager
    return manager.memory_limit, manager.memory_pause_fraction


def test_a_worker_of_the_command_is_never_paused_but_ended_when_its_memory_is_full(tmp_path):
    with local.local_cluster(1, 1, "2GB") as made:
        (tmp_path / "file.json").write_text(json.dumps({"address": made.scheduler_address}))
        with local.connect(None, str(tmp_path / "file.json")) as client, Client(made) as same:
            assert set(client.run(memory).values()) == {(2_000_000_000, False)}
            (nanny,) = made.workers.values()
            assert nanny.memory_manager.memory_terminate_fraction == 0.95
            assert same.scheduler_info()["id"] == client.scheduler_info()["id"]


@pytest.mark.filterwarnings("ignore:1 GPUs, but dask-cuda is not installed")
def test_workers_of_the_command_share_a_gpu_if_its_model_is_small(monkeypatch, tiny):
    monkeypatch.setattr(local.local, "has_dask_cuda", lambda: False)
    for module in (local, local.local):
        monkeypatch.setattr(module, "gpu_count", lambda: 1)
    monkeypatch.setattr(local.local, "cpu_cores", lambda: 8)
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")))
    with local.local_cluster(stage=stage) as made:
        assert len(made.workers) == 2
