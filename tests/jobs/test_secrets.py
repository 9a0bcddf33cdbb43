"""Options of file systems reach all workers, but are never shown, stored or logged."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from distributed import Client, LocalCluster
from fsspec.implementations.local import LocalFileSystem

from nemo_embed_dask import ClusterError, embed_parquet
from nemo_embed_dask.jobs.clusters import futures as jobs_cluster
from nemo_embed_dask.jobs.units.progress import Progress

from ..helpers import faults

SOURCE, TARGET = "SECRET-OF-SOURCE", "SECRET-OF-TARGET"
OPTIONS = {"storage_options": {"key": SOURCE}, "target_options": {"key": TARGET}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("secrets") / "in")


def start(workers=1, processes=True):
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=processes, dashboard_address="127.0.0.1:0"
    )


def keys_of_file_systems():
    """Return the option "key" of this process's local file systems."""
    return {fs.storage_options.get("key") for fs in LocalFileSystem._cache.values()}


def state_and_logs(client, folder):
    """Return the state and the logs of the scheduler and the workers."""
    state = folder / "state"
    client.dump_cluster_state(str(state), format="yaml")
    logs = [client.get_worker_logs(), client.get_scheduler_logs(), client.get_worker_logs(nanny=True)]
    return repr(logs), state.with_suffix(".yaml").read_text(), repr(client.scheduler_info(n_workers=-1))


class Inspecting(Progress):
    """Records the cluster's state after each part, and starts another worker after the first."""

    def __init__(self, client, folder):
        super().__init__()
        self.client, self.folder, self.seen, self.tasks = client, folder, [], 0

    def finished(self, outcome):
        tasks = list(self.client.cluster.scheduler.tasks.values())
        self.tasks += len(tasks)
        self.seen += [(task.key, repr(task.run_spec), pickle.dumps(task.run_spec)) for task in tasks]
        if self.folder:
            self.seen += state_and_logs(self.client, self.folder)
            self.folder = None
            self.client.cluster.scale(2)
            self.client.wait_for_workers(2, timeout=90)
        super().finished(outcome)


def test_options_are_in_no_task_no_state_and_no_log(source, tiny, tmp_path):
    """Check the first worker, and one that joins late."""
    with start() as made, Client(made) as client:
        display = Inspecting(client, tmp_path)
        more = {"client": client, "rows_per_part": 20, "progress": display, **OPTIONS}
        report = embed_parquet(faults.stage(tiny("bert")), str(source), str(tmp_path / "out"), **more)
        assert report.complete and len(report.workers) == 2 and display.tasks > 5, report
        found = client.run(keys_of_file_systems)
        assert len(found) == 2 and all({SOURCE, TARGET} <= keys for keys in found.values()), found
        assert "SECRET" not in repr(display.seen)
        assert "SECRET" not in repr(state_and_logs(client, tmp_path))
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if b"SECRET" in path.read_bytes()]


def test_options_are_not_logged_if_a_worker_cannot_load_the_job(source, tiny, tmp_path):
    with start() as made, Client(made) as client:
        with pytest.raises(ClusterError, match="does not see the target") as caught:
            embed_parquet(faults.stage(tiny("bert")), str(source), "memory://out", client=client, **OPTIONS)
        logs, *others = state_and_logs(client, tmp_path)
        assert "Run Failed" in logs, "Dask logs a function that failed with its arguments"
        assert "SECRET" not in logs + repr(others) + str(caught.value)


def test_simultaneous_jobs_do_not_share_options(source, tiny, tmp_path, monkeypatch):
    """Use workers in the client's own process."""
    done = []

    def attempt(unit, job, tick, real=jobs_cluster.attempt):
        done.append((job.target.address, job.options["key"], job.target.options["key"]))
        return real(unit, job, tick)

    def run(name):
        options = {"storage_options": {"key": f"in {name}"}, "target_options": {"key": f"out {name}"}}
        with Client(made.scheduler_address, set_as_default=False) as client:
            stage = faults.stage(tiny("bert"))
            return embed_parquet(stage, str(source), str(tmp_path / name), client=client, **options).complete

    monkeypatch.setattr(jobs_cluster, "attempt", attempt)
    with start(workers=2, processes=False) as made, ThreadPoolExecutor(2) as pool:
        assert all(pool.map(run, ("a", "b")))
        plugins = [made.scheduler.worker_plugins, *(worker.plugins for worker in made.workers.values())]
        assert not [name for some in plugins for name in some if "nemo" in name], "options are forgotten"
    assert set(done) == {(str(tmp_path / name), f"in {name}", f"out {name}") for name in ("a", "b")}
