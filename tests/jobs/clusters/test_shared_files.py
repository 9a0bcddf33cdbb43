"""Workers that do not see the client's folders: real processes with another disk mounted there."""

from __future__ import annotations

import subprocess
import sys

import fsspec
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster

from nemo_embed_dask import ClusterError, EmbeddingCreatorStage, embed_parquet
from nemo_embed_dask.jobs.clusters.shared_files import files_on_client
from nemo_embed_dask.jobs.files.target import UNFINISHED, Target
from nemo_embed_dask.jobs.units.work import Job

from ...helpers import faults
from ...helpers.recorder import Recorder
from ...helpers.slow import slow

ROWS = {"rows_per_part": 20}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("seen") / "in")


class Elsewhere(faults.Cluster):
    """A cluster that can start workers for which a folder is empty, as on another machine."""

    def start_elsewhere(self, folder):
        folder.mkdir(exist_ok=True)
        script = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
        plain = subprocess.Popen

        def popen(command, **more):
            return plain(["unshare", "--mount", "sh", "-c", script, str(folder), *command], **more)

        subprocess.Popen = popen
        try:
            return self.start_worker()
        finally:
            subprocess.Popen = plain


@pytest.fixture
def cluster(tmp_path):
    if sys.platform != "linux":
        pytest.skip("needs Linux: a mount namespace")
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True
    )
    if probe.returncode:
        pytest.skip("a mount namespace is not permitted here")
    (tmp_path / "scheduler").mkdir()
    made = Elsewhere(tmp_path / "scheduler")
    made.start_scheduler()
    yield made
    made.stop()


@pytest.mark.parametrize("place", ["target", "input"])
def test_workers_that_do_not_see_a_folder_are_refused(place, source, tiny, cluster, tmp_path):
    target = tmp_path / "out"
    folder = target if place == "target" else source
    cluster.start_elsewhere(folder)
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=60)
        (address,) = client.nthreads()
        message = rf"worker {address}: on host \S+ the worker does not see the {place} {folder}.*folder that all machines share"
        with pytest.raises(ClusterError, match=message):
            embed_parquet(faults.stage(tiny("bert")), str(source), str(target), client=client, **ROWS)
        assert client.nthreads(), "the worker must keep running: others may use it"
    assert not [*target.glob("*.parquet")] and not [*(target / "_nemo_embed" / "unfinished").glob("*")]


def test_a_late_worker_that_does_not_see_the_target_leaves_and_the_job_completes(
    source, tiny, cluster, tmp_path
):
    target = tmp_path / "out"
    cluster.start_worker()
    with Client(scheduler_file=str(cluster.file)) as client:

        def start_other():
            cluster.start_elsewhere(target)
            client.wait_for_workers(2, timeout=90)

        progress = Recorder(start_other)
        report = embed_parquet(
            faults.stage(tiny("bert")), str(source), str(target), client=client, progress=progress, **ROWS
        )
    assert report.complete and len(report.workers) == 1 and report.parts_this_run == 24
    (line,) = progress.messages
    assert "left the cluster: ClusterError: on host" in line and f"does not see the target {target}" in line
    assert len(faults.vectors(target)) == 480
    assert not [*(target / "_nemo_embed" / "unfinished").glob("*")], "the test file must be removed"


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.mark.parametrize(("place", "processes"), [("input", True), ("target", False), *slow(("target", True))])
def test_a_file_system_of_one_process_is_refused_if_workers_are_other_processes(
    place, processes, source, tiny, tmp_path, memory
):
    memory.put(str(source), "/in", recursive=True)
    addresses = {"target": str(tmp_path / "out"), "input": str(source)}
    addresses[place] = f"memory://{'out' if place == 'target' else 'in'}"
    stage = faults.stage(tiny("bert"))
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": processes, "dashboard_address": ":0"}
    with LocalCluster(**options) as made, Client(made) as client:
        if processes:
            with pytest.raises(ClusterError, match=f"does not see the {place} memory://.*an object store such"):
                embed_parquet(stage, addresses["input"], addresses["target"], client=client)
        else:
            assert embed_parquet(stage, addresses["input"], addresses["target"], client=client).complete
    assert not memory.glob("/out/_nemo_embed/unfinished/*"), "the test file must be removed"
    assert bool(memory.glob("/out/*.parquet")) == (place == "target" and not processes)


def test_a_test_file_that_cannot_be_removed_hides_no_other_error(tmp_path):
    """Its folder may have become read-only, which may be the error that stopped the job."""
    stage = EmbeddingCreatorStage()
    job = Job(Target(str(tmp_path)), "text", stage.task, pa.schema([]), "mark", {})
    with pytest.raises(ValueError, match="the real one"), files_on_client(job, []):
        (probe,) = (tmp_path / UNFINISHED).glob("seen-by-workers-*")
        probe.unlink()
        (probe / "not empty").mkdir(parents=True)
        raise ValueError("the real one")
    assert probe.is_dir()
