"""A cluster on this machine that suits embedding, with GPUs or without. Knows Dask's clusters, no dataframe.

Every setting is a row in the tables below with its reason, and any of them can be overridden.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dask
from dask.utils import format_bytes
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.comm import CommClosedError

from ..device import cpu_cores, gpu_count
from ..errors import ClusterError, ConfigError
from ..stages import EmbeddingCreatorStage, Stage
from ..stages.base import stage_first
from .main_guard import check_main_script
from .processes import closed_in_time, environment, loop_without_sigint, memory_problem, restored_environment

# Events of this package; those of its jobs too.
TOPIC = "nemo-embed"
_CPU_CORES_PER_WORKER = 8
# A worker without its model stays so long after it has said so, that the word gets out.
_FAREWELL_S = 1.0

# Of dask_cuda.LocalCUDACluster's settings, those that we do not leave at its defaults.
_GPU_SETTINGS: dict[str, Any] = {
    # Batches run one at a time anyway; a second thread would hold a second partition in the card's memory.
    "threads_per_worker": 1,
    # cuDF holds texts and vectors only. What its pool reserves, torch cannot have; torch keeps its own
    # allocator, and with it its statistics and its own out-of-memory error.
    "rmm_pool_size": 0.1,
    # Dask counts only the results that it stores: at its default of 0.8 it would wait with spilling until
    # torch has no room left for a batch.
    "device_memory_limit": 0.4,
    # Embedding moves nothing between workers, so that faster protocols have nothing to do.
    "protocol": "tcp",
}


@contextmanager
def embed_cluster(
    stage: Stage | None = None,
    *,
    use_gpus: bool | None = None,
    n_workers: int | None = None,
    **settings: Any,
) -> Iterator[Client]:
    """Start a cluster on this machine, with the model loaded on every worker, and yield a client of it.

    A script has to call it below ``if __name__ == "__main__":``, as anything that starts processes: each
    worker process imports the script.

    Parameters
    ----------
    stage : Stage, optional
        Its model is fetched once on this machine and loaded once per worker, before the first task: a
        model that cannot be had fails here. Default: ``EmbeddingCreatorStage()``.
    use_gpus : bool, optional
        Default: whether there is a GPU.
    n_workers : int, optional
        Default: one per GPU; without GPUs one per 8 cores. More than GPUs share these.
    **settings
        Of ``dask_cuda.LocalCUDACluster`` or of ``distributed.LocalCluster``; they win over ours.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ModelError
        The model cannot be found.
    ClusterError
        The main script has no such guard, or is no file.
    ConfigError
        ``memory_limit`` is no size, or too small for any worker.

    Examples
    --------
    >>> if __name__ == "__main__":  # doctest: +SKIP
    ...     with embed_cluster() as client:
    ...         dd.read_parquet("texts").pipe(embed).to_parquet("vectors")
    """
    _check_start(settings)
    stage = EmbeddingCreatorStage() if stage is None else stage
    stage.setup_on_node()  # here, where the access token is: workers find the files in the same cache
    with local_cluster(use_gpus=use_gpus, n_workers=n_workers, **settings) as made, Client(made) as client:
        preload(stage, client)
        yield client


@contextmanager
def local_cluster(
    *, use_gpus: bool | None = None, n_workers: int | None = None, **settings: Any
) -> Iterator[Any]:
    """Start the cluster alone; parameters as of `embed_cluster`."""
    _check_start(settings)
    gpus = gpu_count() if use_gpus is not False else 0
    workers = n_workers or gpus or max(1, cpu_cores() // _CPU_CORES_PER_WORKER)
    with (
        dask.config.set(environment(workers)),
        restored_environment(),
        loop_without_sigint(settings) as loop,
        closed_in_time(_cluster(workers, gpus, loop | settings)) as made,
    ):
        yield made


def _check_start(settings: dict[str, Any]) -> None:
    limit = settings.get("memory_limit", "auto")
    if problem := memory_problem(limit):
        raise ConfigError(f"memory_limit={limit!r} {problem}")
    method = dask.config.get("distributed.worker.multiprocessing-method")
    if method != "fork" and settings.get("processes", True):
        check_main_script()


def _cluster(workers: int, gpus: int, settings: dict[str, Any]) -> Any:
    if gpus and importlib.util.find_spec("dask_cuda"):
        from dask_cuda import LocalCUDACluster

        kind = LocalCUDACluster if workers <= gpus else sharing(LocalCUDACluster)
        return kind(**{"n_workers": workers} | _GPU_SETTINGS | settings)
    if gpus:
        warnings.warn(
            f"{gpus} GPUs, but no dask-cuda to share them out: every worker will use the first one. "
            "pip install nemo-embed-dask[cuda13]",
            stacklevel=4,
        )
    threads = max(1, cpu_cores() // workers)
    return LocalCluster(**{"n_workers": workers, "threads_per_worker": threads} | settings)


def sharing(cluster: Any) -> Any:
    """dask-cuda's cluster with several workers a GPU, in turn; its own refuses more workers than GPUs."""

    class Sharing(cluster):  # type: ignore[misc]
        worker_spec: dict[Any, Any]

        def new_worker_spec(self) -> dict[int, Any]:
            number = next(i for i in itertools.count() if i not in self.worker_spec)
            gpu = self.cuda_visible_devices[number % len(self.cuda_visible_devices)]
            workers = self.worker_spec
            self.worker_spec = {other: None for other in self.cuda_visible_devices if other != gpu}
            try:
                (spec,) = super().new_worker_spec().values()
            finally:
                self.worker_spec = workers
            return {number: spec}

    return Sharing


@stage_first("preload(stage, client)")
def preload(stage: Stage, client: Client) -> None:
    """Fetch a stage's model once per node and load it once per worker, on any cluster; later workers too.

    Workers of other machines read ``HF_TOKEN`` from their own environment: ours never leaves this process.

    Raises
    ------
    ModelError
        A worker cannot find the model.
    ClusterError
        A worker died while it loaded the model.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    per_node = {info["host"]: address for address, info in workers.items()}
    try:
        client.run(_fetch, stage, workers=list(per_node.values()))
        client.register_plugin(Preload(stage.setup, f"nemo-embed-dask-{dask.base.tokenize(stage)}"))
    except CommClosedError as error:
        limits = {format_bytes(info["memory_limit"]) for info in workers.values() if info["memory_limit"]}
        raise ClusterError(
            f"a worker died while it loaded the model (memory limit: {', '.join(limits) or 'none'}); "
            "if memory ran out, raise memory_limit, start fewer workers, or use a smaller model"
        ) from error


async def _fetch(stage: Stage) -> None:
    await asyncio.to_thread(stage.setup_on_node)


class Preload(WorkerPlugin):
    """Calls ``load`` when a worker starts, beside its event loop, which must go on beating.

    A worker that cannot load its model leaves the cluster; ``trouble`` is why, and is an event of `TOPIC`.
    """

    def __init__(self, load: Callable[[], object], name: str) -> None:
        self.load, self.name, self.trouble = load, name, ""

    async def setup(self, worker: Any) -> None:
        """Distributed's hook: runs before the worker's first task."""
        try:
            await asyncio.to_thread(self.load)
        except Exception as error:
            self.leave(worker, error)
            raise

    def leave(self, worker: Any, error: Exception) -> None:
        """Let the worker leave the cluster, and say why; from any thread."""
        self.trouble = f"{type(error).__name__}: {error}"
        worker.log_event(TOPIC, ("left", worker.address, self.trouble))
        close = partial(worker.close, reason="nemo-embed-model")
        worker.loop.add_callback(worker.loop.call_later, _FAREWELL_S, close)
