"""Workers that share GPUs: how many, with which part of a GPU, and dask-cuda's own cluster for them."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import dask
import pytest
from distributed import Client

from nemo_embed_dask import EmbeddingCreatorStage, device
from nemo_embed_dask.cli import cluster_flags
from nemo_embed_dask.clusters import gpus, local, processes
from nemo_embed_dask.jobs.clusters import connect

MIB = 1 << 20


def state():
    return {name: os.environ.get(name) for name in (device.WORKERS_PER_GPU, "RAYON_NUM_THREADS")}


def fake_machine(monkeypatch, *, count, cores):
    """Let a cluster see this many GPUs and cores; its workers are real."""
    monkeypatch.setattr(local, "gpu_count", lambda: count)
    for module in (local, processes):
        monkeypatch.setattr(module, "cpu_cores", lambda: cores)


@pytest.fixture(scope="module")
def sized(tiny, tmp_path_factory):
    """Return a function that makes a stage whose model has weight files of a given size."""

    def make(size: int, shards: int = 1) -> EmbeddingCreatorStage:
        folder = tmp_path_factory.mktemp("sized")
        shutil.copytree(tiny("bert"), folder, dirs_exist_ok=True)
        names = ["model.safetensors"]
        if shards > 1:
            (folder / names[0]).rename(folder / "0.safetensors")
            names = [f"{i}.safetensors" for i in range(shards)]
            index = ", ".join(f'"w{i}": "{name}"' for i, name in enumerate(names))
            (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{index}}}}}')
        for name in names:
            with (folder / name).open("ab") as file:
                file.truncate(size // shards)
        return EmbeddingCreatorStage(model_identifier=str(folder))

    return make


@pytest.mark.parametrize(
    ("cores", "mib", "expected"),
    [
        (16, 87, 4),  # MiniLM
        (64, 87, 4),  # more cores than four workers need
        (12, 87, 3),
        (7, 87, 1),
        (1, 87, 1),
        (16, 256, 4),
        (16, 418, 2),  # a BERT of 12 layers
        (16, 600, 1),
        (16, 14_000, 1),
    ],
)
def test_small_models_share_a_gpu_as_far_as_there_are_cores(cores, mib, expected, sized):
    assert gpus.workers_per_gpu(sized(mib * MIB), cores) == expected


def test_all_shards_of_a_model_count(sized):
    assert gpus.workers_per_gpu(sized(400 * MIB, shards=4), 16) == 2


def test_without_a_stage_a_gpu_has_one_worker():
    assert gpus.workers_per_gpu(None, 64) == 1


@pytest.mark.parametrize(("workers", "count", "expected"), [(1, 1, 1), (4, 1, 4), (2, 4, 1), (3, 2, 2)])
def test_the_gpu_with_most_workers_decides(workers, count, expected):
    assert gpus.sharing(workers, count) == expected


def test_workers_of_a_gpu_together_have_the_memory_of_one():
    one, four = gpus.gpu_settings(1), gpus.gpu_settings(4)
    for name in ("rmm_pool_size", "device_memory_limit"):
        assert four[name] * 4 == one[name] > 0


@pytest.mark.filterwarnings("ignore:1 GPUs, but dask-cuda is not installed")
def test_real_workers_know_their_part_of_a_gpu(monkeypatch, sized):
    monkeypatch.setattr(local, "has_dask_cuda", lambda: False)
    fake_machine(monkeypatch, count=1, cores=9)
    with local.local_cluster(sized(MIB), dashboard_address=":0") as made, Client(made) as client:
        found = list(client.run(state).values())
    assert found == [{device.WORKERS_PER_GPU: "2", "RAYON_NUM_THREADS": "4"}] * 2
    assert device.WORKERS_PER_GPU not in os.environ


@pytest.mark.slow
def test_workers_without_gpus_share_none(monkeypatch):
    fake_machine(monkeypatch, count=2, cores=8)
    assert not any(device.WORKERS_PER_GPU in name for name in processes.environment(4, 0))
    with (
        local.local_cluster(use_gpus=False, n_workers=1, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        assert list(client.run(state).values()) == [{device.WORKERS_PER_GPU: None, "RAYON_NUM_THREADS": "8"}]


def test_gpus_without_dask_cuda_are_said_not_to_be_shared_out(monkeypatch):
    monkeypatch.setattr(local, "has_dask_cuda", lambda: False)
    monkeypatch.setattr(local, "LocalCluster", lambda **settings: settings)
    with pytest.warns(
        UserWarning, match="2 GPUs, but dask-cuda is not installed: every worker will use the first GPU"
    ):
        assert local._cluster(2, 2, {})["n_workers"] == 2


@pytest.mark.rapids
def test_the_settings_for_gpus_are_parameters_that_dask_cuda_has():
    from dask_cuda import LocalCUDACluster

    known = inspect.signature(LocalCUDACluster.__init__).parameters
    assert {"n_workers", *gpus.gpu_settings(1)} <= known.keys()
    assert known["threads_per_worker"].default == 1


@pytest.mark.rapids
def test_several_workers_share_a_gpu_in_turn(monkeypatch):
    """dask-cuda's own cluster, its process-wide parts aside: they ask the driver."""
    from dask_cuda import LocalCUDACluster, local_cuda_cluster

    monkeypatch.setattr(local_cuda_cluster, "worker_plugins", lambda **settings: [settings["device_index"]])

    def made(kind, visible, workers):
        one = object.__new__(kind)
        names = "rmm_pool_size rmm_maximum_pool_size rmm_managed_memory rmm_async rmm_release_threshold "
        names += "rmm_log_directory rmm_track_allocations rmm_allocator_external_lib_list pre_import "
        vars(one).update(dict.fromkeys((names + "enable_cudf_spill cudf_spill_stats").split()))
        vars(one).update(cuda_visible_devices=visible, worker_spec={}, new_spec={"options": {}})
        for _ in range(workers):
            one.worker_spec |= one.new_worker_spec()
        return [spec["options"] for spec in one.worker_spec.values()]

    with pytest.raises(ValueError, match="beyond visible devices"):
        made(LocalCUDACluster, [0], 2)
    shared = gpus.with_shared_gpus(LocalCUDACluster)
    assert [one["plugins"] for one in made(shared, [0], 4)] == [[0], [0], [0], [0]]
    assert [one["env"]["CUDA_VISIBLE_DEVICES"] for one in made(shared, [2, 5], 3)] == ["2,5", "5,2", "2,5"]
    assert made(shared, [0, 1], 2) == made(LocalCUDACluster, [0, 1], 2)


def on_gpu():
    return os.environ["CUDA_VISIBLE_DEVICES"], state()[device.WORKERS_PER_GPU]


@pytest.mark.rapids
def test_dask_cuda_starts_real_workers_that_share_gpus(monkeypatch):
    """With dask-cuda's switch for tests without a driver; its workers log that they have no CUDA context."""
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    fake_machine(monkeypatch, count=2, cores=8)
    without_driver = {"CUDA_VISIBLE_DEVICES": "0,1", "rmm_pool_size": None, "device_memory_limit": 0}
    with (
        local.local_cluster(n_workers=3, dashboard_address=":0", **without_driver) as made,
        Client(made) as client,
    ):
        assert sorted(client.run(on_gpu).values()) == [("0,1", "2"), ("0,1", "2"), ("1,0", "2")]
        assert set(client.nthreads().values()) == {1}


class Recorded(dict):
    """The settings of a cluster that is not started."""

    def close(self, timeout=None):
        pass


def recorded(monkeypatch, stage, *, count=2, cores=32, **settings):
    """Return the settings of dask-cuda's cluster and the environment of its workers."""
    dask_cuda = SimpleNamespace(LocalCUDACluster=lambda **given: Recorded(given))
    monkeypatch.setitem(sys.modules, "dask_cuda", dask_cuda)
    monkeypatch.setattr(local, "has_dask_cuda", lambda: True)
    monkeypatch.setattr(local, "with_shared_gpus", lambda kind: kind)
    monkeypatch.setattr(local, "closed_in_time", lambda start: nullcontext(start()))
    fake_machine(monkeypatch, count=count, cores=cores)
    with local.local_cluster(stage, **settings) as cluster:
        variables = dask.config.get("distributed.nanny.pre-spawn-environ")
        return cluster["n_workers"], variables[device.WORKERS_PER_GPU], variables["RAYON_NUM_THREADS"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (8, 4, 4)),
        ("0", (4, 4, 8)),
        ([1], (4, 4, 8)),
        (1, (4, 4, 8)),
        ("0,1", (8, 4, 4)),
        (["0", "1"], (8, 4, 4)),
    ],
)
def test_gpus_that_the_caller_names_are_counted(visible, expected, monkeypatch, sized):
    """The number of workers, those that share a GPU, and the cores of each."""
    given = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert recorded(monkeypatch, sized(1), **given) == expected


def test_cores_are_divided_among_the_gpus(monkeypatch, sized):
    assert recorded(monkeypatch, sized(1), cores=16) == (4, 2, 4)


def test_a_cluster_that_was_not_told_its_stage_has_one_worker_per_gpu(monkeypatch, sized):
    """It may run a large model later, of which four copies would fill a GPU."""
    assert recorded(monkeypatch, None) == (2, 1, 16)
    seen = []

    @contextmanager
    def start(stage, **_):
        seen.append(stage)
        yield

    monkeypatch.setattr(local, "local_cluster", start)
    monkeypatch.setattr(local, "Client", lambda cluster: nullcontext())
    monkeypatch.setattr(local, "preload", lambda stage, client: None)
    monkeypatch.setattr(local.EmbeddingCreatorStage, "setup_on_node", lambda self: None)
    stage = sized(1)
    for given in (None, stage):
        with local.embed_cluster(given):
            pass
    assert seen == [None, stage]


def test_the_command_line_names_its_stage(monkeypatch):
    seen = []

    @contextmanager
    def start(**given):
        seen.append(given["stage"])
        yield

    monkeypatch.setattr(connect, "local_cluster", start)
    monkeypatch.setattr("distributed.Client", lambda cluster: nullcontext())
    stage = EmbeddingCreatorStage()
    with cluster_flags._local(stage, {}):
        pass
    assert seen == [stage]


@pytest.mark.rapids
def test_dask_cuda_starts_real_workers_on_the_gpu_that_is_visible(monkeypatch, sized):
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    fake_machine(monkeypatch, count=2, cores=8)
    settings = {"CUDA_VISIBLE_DEVICES": "1", "rmm_pool_size": None, "device_memory_limit": 0}
    with local.local_cluster(sized(MIB), dashboard_address=":0", **settings) as made, Client(made) as client:
        assert list(client.run(on_gpu).values()) == [("1", "2")] * 2


def test_without_dask_cuda_all_workers_share_the_first_gpu(monkeypatch, sized):
    monkeypatch.setattr(local, "has_dask_cuda", lambda: False)
    monkeypatch.setattr(local, "LocalCluster", lambda **settings: settings)
    monkeypatch.setattr(local, "closed_in_time", lambda start: nullcontext(start()))
    fake_machine(monkeypatch, count=2, cores=16)
    with (
        pytest.warns(UserWarning, match="every worker will use the first GPU"),
        local.local_cluster(sized(1)) as made,
    ):
        share = dask.config.get("distributed.nanny.pre-spawn-environ")[device.WORKERS_PER_GPU]
    assert (made["n_workers"], share) == (4, 4)
