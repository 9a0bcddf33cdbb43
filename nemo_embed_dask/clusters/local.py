"""Dask clusters on this machine for embedding, with GPUs or without, and the model on every worker.

Each setting has its reason beside it, and can be overridden.
"""

from __future__ import annotations

import asyncio
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
from .clients import check_client
from .gpus import gpu_settings, has_dask_cuda, sharing, visible_gpus, with_shared_gpus, workers_per_gpu
from .main_guard import check_main_script
from .processes import closed_in_time, environment, loop_without_sigint, memory_problem, restored_environment

# Dask's topic for the events of this package and of its jobs.
TOPIC = "nemo-embed"
_CPU_CORES_PER_WORKER = 8
# Seconds that a worker without its model waits before it closes, so that its event reaches the client.
_CLOSE_DELAY_S = 1.0


@contextmanager
def embed_cluster(
    stage: Stage | None = None,
    *,
    use_gpus: bool | None = None,
    n_workers: int | None = None,
    **settings: Any,
) -> Iterator[Client]:
    """Start a cluster on this machine, with the model loaded on every worker, and yield a client of it.

    In a script, call it below ``if __name__ == "__main__":``: each worker process imports the script.

    Parameters
    ----------
    stage : Stage, optional
        Its model is downloaded once on this machine and loaded once per worker, before the first task; errors
        of the model are raised here. Default: ``EmbeddingCreatorStage()``.
    use_gpus : bool, optional
        Default: True if there is a GPU.
    n_workers : int, optional
        More workers than GPUs share the GPUs. Default without GPUs: one per 8 cores. Default with GPUs: one per
        GPU; if ``stage`` is passed, up to four, as many as have 4 cores each and together at most 1 GiB of
        weights.
    **settings
        Those of ``dask_cuda.LocalCUDACluster`` or ``distributed.LocalCluster``; they replace ours.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ModelError
        The model cannot be found.
    ClusterError
        The main script has no such guard, or was not read from a file.
    ConfigError
        ``memory_limit`` is not a size, or too small for a worker; or the cluster would be asynchronous.

    Examples
    --------
    >>> if __name__ == "__main__":  # doctest: +SKIP
    ...     with embed_cluster() as client:
    ...         dd.read_parquet("texts").pipe(embed).to_parquet("vectors")
    """
    _check_start(settings)  # before a download that may take long
    named, stage = stage, stage or EmbeddingCreatorStage()
    stage.setup_on_node()  # in this process, which has the access token; workers find the files in the cache
    with (
        local_cluster(named, use_gpus=use_gpus, n_workers=n_workers, **settings) as cluster,
        Client(cluster) as client,
    ):
        preload(stage, client)
        yield client


@contextmanager
def local_cluster(
    stage: Stage | None = None,
    *,
    use_gpus: bool | None = None,
    n_workers: int | None = None,
    **settings: Any,
) -> Iterator[Any]:
    """Start the cluster without loading the model of ``stage``; parameters as in `embed_cluster`.

    Without a stage there is one worker per GPU.
    """
    _check_start(settings)
    gpus = visible_gpus(gpu_count(), settings) if use_gpus is not False else 0
    usable = gpus if has_dask_cuda() else min(gpus, 1)
    workers = n_workers or _worker_count(stage, usable)
    with (
        dask.config.set(environment(workers, usable)),
        restored_environment(),
        loop_without_sigint(settings) as loop,
        closed_in_time(partial(_cluster, workers, gpus, loop | settings)) as cluster,
    ):
        yield cluster


def _worker_count(stage: Stage | None, gpus: int) -> int:
    """Return the default number of workers."""
    cores = cpu_cores()
    return gpus * workers_per_gpu(stage, cores // gpus) if gpus else max(1, cores // _CPU_CORES_PER_WORKER)


def _check_start(settings: dict[str, Any]) -> None:
    """Raise if the cluster cannot start: wrong settings, or a main script without a guard."""
    limit = settings.get("memory_limit", "auto")
    if problem := memory_problem(limit):
        raise ConfigError(f"memory_limit={limit!r} {problem}")
    if settings.get("asynchronous"):
        raise ConfigError(
            "asynchronous=True: this cluster is used in a plain with statement, which also works inside a "
            "running event loop, as in a notebook; leave asynchronous out"
        )
    method = dask.config.get("distributed.worker.multiprocessing-method")
    if method != "fork" and settings.get("processes", True):
        check_main_script()


def _cluster(workers: int, gpus: int, settings: dict[str, Any]) -> Any:
    """Return a cluster with GPUs if dask-cuda is installed, else one without."""
    if gpus and has_dask_cuda():
        from dask_cuda import LocalCUDACluster

        cluster = LocalCUDACluster if workers <= gpus else with_shared_gpus(LocalCUDACluster)
        return cluster(**{"n_workers": workers} | gpu_settings(sharing(workers, gpus)) | settings)
    if gpus:
        warnings.warn(
            f"{gpus} GPUs, but dask-cuda is not installed: every worker will use the first GPU. "
            "Run pip install nemo-embed-dask[cuda13]",
            stacklevel=6,
        )
    threads = max(1, cpu_cores() // workers)
    return LocalCluster(**{"n_workers": workers, "threads_per_worker": threads} | settings)


@stage_first("preload(stage, client)")
def preload(stage: Stage, client: Client) -> None:
    """Download a stage's model once per node; load it once per worker, also on workers that join later.

    Workers on other machines read ``HF_TOKEN`` from their own environment; no token is sent.

    Raises
    ------
    ModelError
        A worker cannot find the model.
    ClusterError
        The client is closed, or a worker died while it loaded the model.
    ConfigError
        The client is asynchronous, or not a client.
    """
    check_client(client)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    per_node = {info["host"]: address for address, info in workers.items()}
    try:
        client.run(_download, stage, workers=list(per_node.values()))
        client.register_plugin(Preload(stage.setup, f"nemo-embed-dask-{dask.base.tokenize(stage)}"))
    except CommClosedError as error:
        limits = {format_bytes(info["memory_limit"]) for info in workers.values() if info["memory_limit"]}
        raise ClusterError(
            f"a worker died while it loaded the model (memory limit: {', '.join(limits) or 'none'}); "
            "if memory ran out, raise memory_limit, start fewer workers, or use a smaller model"
        ) from error


async def _download(stage: Stage) -> None:
    """Download the model in a thread of a worker."""
    await asyncio.to_thread(stage.setup_on_node)


class Preload(WorkerPlugin):
    """Calls ``load`` when a worker starts, in a thread, so that the worker's event loop keeps running.

    A worker that cannot load its model leaves the cluster; ``error`` is the reason, sent as an event too.
    """

    def __init__(self, load: Callable[[], object], name: str) -> None:
        self.load, self.name, self.error = load, name, ""

    async def setup(self, worker: Any) -> None:
        """Load the model; Dask calls this before the worker's first task."""
        try:
            await asyncio.to_thread(self.load)
        except Exception as error:
            self.leave(worker, error)
            raise

    def leave(self, worker: Any, error: Exception) -> None:
        """Close the worker and send the reason to the client; may be called from any thread."""
        self.error = f"{type(error).__name__}: {error}"
        worker.log_event(TOPIC, ("left", worker.address, self.error))
        close = partial(worker.close, reason="nemo-embed-model")
        worker.loop.add_callback(worker.loop.call_later, _CLOSE_DELAY_S, close)
