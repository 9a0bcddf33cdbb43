"""One model on all workers, with real processes: a worker without it, or with another, leaves at once."""

from __future__ import annotations

import re
import shutil
import time
from functools import partial

import pytest
from distributed import Client

from nemo_embed_dask import ClusterError, ConfigError, EmbeddingCreatorStage, ModelError, embed_parquet
from nemo_embed_dask.jobs.clusters import preload
from nemo_embed_dask.number_types import Calibration

from ...helpers import faults
from ...helpers.recorder import Recorder
from ...helpers.slow import slow

PACKAGE = faults.ROOT / "nemo_embed_dask"
# Inverts what a worker's device says about its support of bfloat16.
OTHER_HARDWARE = """
import nemo_embed_dask.device as device
device._has_bf16 = lambda _, real=device._has_bf16: not real(_)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("preload") / "in")


@pytest.fixture
def places(tiny, tmp_path):
    """Working directories of workers, in which the model's name leads to no model, one model, or another."""
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


LATE = {
    "without": "left the cluster: ModelError: .*themodel",
    "other": "left the cluster: ModelError: .*(weights|tokenizer_and_config) is",
    "hardware": "left the cluster: ModelError: .*computes_in is .*third digit: pass --no-autocast",
    "version": (
        "left the cluster: ClusterError: this worker has .* 0.0.9, and the client has .*install the same version"
    ),
}


class LateWorker:
    """Starts another worker, and waits until it is there, to get a unit."""

    def __init__(self, client, cluster, places, kind):
        self._client, self._arguments, self.process = client, (cluster, places, kind), None

    def __call__(self):
        self.process = start(*self._arguments)
        self._client.wait_for_workers(2, timeout=90)


@pytest.mark.parametrize("kind", ["without", *slow("version", "other", "hardware")])
def test_a_late_worker_without_the_model_leaves_and_the_job_completes(kind, source, places, cluster, tiny):
    start(cluster, places, "good")
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=90)
        late = LateWorker(client, cluster, places, kind)
        progress = Recorder(late)
        report = embed_parquet(
            STAGE, str(source), str(places / "out"), client=client, rows_per_part=20, progress=progress
        )
        left = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        prefixes = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
        assert prefixes == ["embed"], "the name on the dashboard"
        assert not [name for name in left if "nemo" in name], "the next job may have another model"
    assert report.complete and report.parts_this_run == 24 and len(report.workers) == 1, (
        report,
        progress.messages,
    )
    (line,) = progress.messages
    assert re.search(LATE[kind], line), line
    assert late.process.wait(30) is not None, "the worker must have left"
    assert len(faults.vectors(places / "out")) == 480


def test_a_late_worker_with_the_same_model_takes_part(source, places, cluster):
    start(cluster, places, "good")
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(1, timeout=90)
        progress = Recorder(LateWorker(client, cluster, places, "good"))
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client, progress=progress).complete
    assert progress.messages == []


@pytest.mark.slow
def test_a_killed_job_makes_no_later_worker_leave(source, places, cluster, tiny):
    """Its plugin stays on the scheduler, but the file in its target that workers must see is gone."""
    first = cluster.start_worker(cwd=places / "good", **faults.slow(places / "slow"))
    more = ("--scheduler-file", str(cluster.file))
    job = faults.start(*faults.job_command(source, places / "killed", tiny("bert"), *more))
    faults.wait_for_parts(places / "killed", 1, job)
    for process in (job, first):  # the worker keeps writing after its job is gone
        process.kill()
        process.communicate()
    shutil.rmtree(places / "killed")
    start(cluster, places, "good")
    progress = Recorder()
    with Client(scheduler_file=str(cluster.file)) as client:
        plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        assert [name for name in plugins if "nemo" in name], "the killed job's"
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client, progress=progress).complete
    assert not [line for line in progress.messages if "left" in line], progress.messages


@pytest.mark.parametrize("kind", ["other", "hardware", "without", "version"])
def test_a_mixed_cluster_is_refused_before_work_starts(kind, source, places, cluster):
    start(cluster, places, "good")
    start(cluster, places, kind)
    message = {
        "hardware": "computes_in is .*--no-autocast",
        "other": "differs from .* is ",
        "without": "themodel",
        "version": "has .* 0.0.9, and the client has .*install the same version",
    }[kind]
    with Client(scheduler_file=str(cluster.file)) as client:
        client.wait_for_workers(2, timeout=60)
        with pytest.raises(ClusterError if kind == "version" else ModelError, match=f"worker tcp.*{message}"):
            embed_parquet(STAGE, str(source), str(places / "out"), client=client)
        assert not (places / "out").exists()
        if kind == "hardware":
            plain = EmbeddingCreatorStage(model_identifier="themodel", autocast=False)
            assert embed_parquet(plain, str(source), str(places / "out"), client=client).complete


def test_a_job_waits_for_the_first_worker_and_reports_it(source, places, cluster, monkeypatch):
    """On a busy queue the first worker may take hours."""
    monkeypatch.setattr(preload, "_REPEAT_S", 0.5)
    monkeypatch.setattr(preload, "_FIRST_S", 0.5)
    progress = Recorder(at_message=partial(start, cluster, places, "good"))
    with Client(scheduler_file=str(cluster.file)) as client:
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client, progress=progress).complete
    first = "the cluster has no workers yet; waiting for the first one"
    # A slow machine needs more than half a second for the model too.
    later = {f"waiting until 1 worker has {done}" for done in ("looked for the model", "loaded the model")}
    messages = {re.sub(r"^no progress for \d+:\d+: ", "", message) for message in progress.messages}
    assert {first} <= messages <= {first} | later


def test_settings_that_cannot_work_fail_the_job_and_keep_the_workers(source, places, cluster):
    """The client does not have the model, so that only the workers can compare a calibration with it."""
    start(cluster, places, "good")
    stage = EmbeddingCreatorStage(
        model_identifier="themodel", embedding_dtype="int8", calibration=Calibration((((0.0,), (1.0,)),), ())
    )
    with Client(scheduler_file=str(cluster.file)) as client:
        with pytest.raises(
            ConfigError, match="calibration was made for vectors that differ .* weights was None"
        ):
            embed_parquet(stage, str(source), str(places / "out"), client=client)
        time.sleep(2)
        assert len(client.scheduler_info()["workers"]) == 1
        assert embed_parquet(STAGE, str(source), str(places / "out"), client=client).complete
