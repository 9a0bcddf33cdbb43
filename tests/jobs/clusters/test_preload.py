"""One model on all workers, by real processes: who has none, or another, leaves at once and says so."""

from __future__ import annotations

import re
import shutil
import time

import pytest
from distributed import Client

from nemo_embed_dask import ClusterError, ConfigError, EmbeddingCreatorStage, ModelError, embed_parquet
from nemo_embed_dask.jobs.clusters import preload
from nemo_embed_dask.jobs.units.progress import Progress
from nemo_embed_dask.vectors import quantization as storage

from ...helpers import faults

PACKAGE = faults.ROOT / "nemo_embed_dask"
# What makes a worker's hardware look as if it had no bfloat16, or had it.
OTHER_HARDWARE = """
import nemo_embed_dask.device as device
device._has_bf16 = lambda _, real=device._has_bf16: not real(_)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("preload") / "in")


@pytest.fixture
def places(tiny, tmp_path):
    """Working directories of workers, in which the model's name stands for nothing, one model, or another."""
    for name, kind in (("good", "bert"), ("without", None), ("other", "roberta")):
        (tmp_path / name).mkdir()
        if kind:
            shutil.copytree(tiny(kind), tmp_path / name / "themodel")
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "sitecustomize.py").write_text(OTHER_HARDWARE)
    copy = shutil.copytree(PACKAGE, tmp_path / "version" / "nemo_embed_dask", ignore=lambda *_: ["__pycache__"])
    (copy / "version.py").write_text('__version__ = "0.0.9"')
    return tmp_path


def start(cluster, places, kind):
    if kind not in ("hardware", "version"):
        return cluster.start_worker(cwd=places / kind)
    return cluster.start_worker(cwd=places / "good", **faults.importing_from(places / kind))


@pytest.fixture
def cluster(places):
    made = faults.Cluster(places)
    made.start_scheduler()
    yield made
    made.stop()


STAGE = EmbeddingCreatorStage(model_identifier="themodel")


class Watch(Progress):
    """At the first part another worker is started, and the job waits until it is there, to get a unit."""

    def __init__(self, begin):
        super().__init__()
        self.begin_other, self.said, self.other, self.client = begin, [], None, None

    def info(self, line):
        self.said.append(line)

    def finished(self, outcome):
        if self.other is None:
            self.other = self.begin_other()
            if self.client:
                self.client.wait_for_workers(2, timeout=90)
        super().finished(outcome)


LATE = {
    "without": r"has left: ModelError: .*themodel", "other": "has left: ModelError: .*(weights|tokenizer_and_config) is",
    "hardware": "has left: ModelError: .*computes_in is .*third digit: pass --no-autocast",
    "version": "has left: ClusterError: this worker has .* 0.0.9, and the client has .*install the same version",
}  # fmt: skip


@pytest.mark.parametrize("kind", LATE)
def test_a_late_worker_without_the_model_leaves_and_costs_nothing(kind, source, places, cluster, tiny):
    start(cluster, places, "good")
    watch = Watch(lambda: start(cluster, places, kind))
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=90)
        watch.client = client
        report = embed_parquet(
            STAGE, str(source), str(places / "out"), client=client, rows_per_part=20, progress=watch
        )
        left = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        prefixes = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
        assert prefixes == ["embed"], "the name on the dashboard"
        assert not [name for name in left if "nemo" in name], "the next job may have another model"
    assert report.complete and report.parts_this_run == 24 and len(report.workers) == 1, (report, watch.said)
    (line,) = watch.said
    assert re.search(LATE[kind], line), line
    assert watch.other.wait(30) is not None, "it is still there"
    assert len(faults.vectors(places / "out")) == 480


def test_a_late_worker_with_the_same_model_joins_in(source, places, cluster):
    start(cluster, places, "good")
    watch = Watch(lambda: start(cluster, places, "good"))
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=90)
        watch.client = client
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client, progress=watch).complete
    assert watch.said == []


def test_a_job_that_was_killed_drives_no_later_worker_away(source, places, cluster, tiny):
    """Its plugin stays on the scheduler; what it asks of workers, a file in its target, is gone."""
    first = cluster.start_worker(cwd=places / "good", **faults.slow(places / "slow"))
    more = ("--scheduler-file", str(cluster.file))
    job = faults.start(*faults.job_command(source, places / "killed", tiny("bert"), *more))
    faults.wait_for_parts(places / "killed", 1, job)
    for process in (job, first):  # the worker keeps writing after its job is gone
        process.kill()
        process.communicate()
    shutil.rmtree(places / "killed")
    start(cluster, places, "good")
    watch = Watch(lambda: None)
    with Client(scheduler_file=str(cluster.file)) as client:
        plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        assert [name for name in plugins if "nemo" in name], "the killed job's"
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client, progress=watch).complete
    assert not [line for line in watch.said if "left" in line], watch.said


@pytest.mark.parametrize("kind", ["other", "hardware", "without", "version"])
def test_a_mixed_cluster_is_refused_before_work_starts(kind, source, places, cluster):
    start(cluster, places, "good")
    start(cluster, places, kind)
    said = {
        "hardware": "computes_in is .*--no-autocast",
        "other": "differs from .* is ",
        "without": "themodel",
        "version": "has .* 0.0.9, and the client has .*install the same version",
    }[kind]
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(2, timeout=60)
        with pytest.raises(ClusterError if kind == "version" else ModelError, match=f"worker tcp.*{said}"):
            embed_parquet(STAGE, str(source), str(places / "out"), client=client)
        assert not (places / "out").exists()
        if kind == "hardware":
            plain = EmbeddingCreatorStage(model_identifier="themodel", autocast=False)
            assert embed_parquet(plain, str(source), str(places / "out"), client=client).complete


def test_a_cluster_without_workers_is_waited_for_and_said(source, places, cluster, monkeypatch):
    """On a busy queue the first worker may take hours."""
    monkeypatch.setattr(preload, "_REPEAT_S", 0.5)
    monkeypatch.setattr(preload, "_FIRST_S", 0.5)
    late = Watch(lambda: None)
    late.info = lambda line: late.said.append(line) or (len(late.said) == 1 and start(cluster, places, "good"))
    with Client(scheduler_file=str(cluster.file)) as client:
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client, progress=late).complete
    assert set(late.said) == {"the cluster has no workers yet; waiting for the first one"}


def test_settings_that_cannot_work_end_the_job_and_leave_the_workers_alone(source, places, cluster, tmp_path):
    storage.save_ranges(tmp_path / "r.json", (((0.0,), (1.0,)),), rows=2, model="another")
    start(cluster, places, "good")
    stage = EmbeddingCreatorStage(
        model_identifier="themodel", embedding_dtype="int8", calibration=str(tmp_path / "r.json")
    )
    with Client(scheduler_file=str(cluster.file)) as client:
        with pytest.raises(ConfigError, match="ranges of its 32 dimensions"):
            embed_parquet(stage, str(source), str(places / "out"), client=client)
        time.sleep(2)
        assert len(client.scheduler_info()["workers"]) == 1
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client).complete
