"""Workers that share GPUs: how many, their settings, and dask-cuda's cluster for them.

One process cannot keep a GPU busy with a small model: its Python, which runs under the GIL, takes as long per
token as the GPU (benchmarks/LOG.md). So several workers share a GPU.
"""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

from ..models.card import find_card
from ..models.weight_files import weight_bytes
from ..stages import Stage

# Four keep a GPU busy with MiniLM (benchmarks/LOG.md), and each one takes some of its memory for CUDA itself.
_MAX_WORKERS = 4
# A worker with fewer cores would wait for its tokenizer.
_MIN_CORES = 4
# Most bytes of weights on a GPU, all workers together. A larger model keeps the GPU busy with fewer workers.
_MAX_WEIGHTS = 1 << 30


def workers_per_gpu(stage: Stage | None, cores: int) -> int:
    """Return how many workers share a GPU for which the machine has ``cores`` cores; one without a stage."""
    if stage is None:
        return 1
    size = weight_bytes(find_card(stage.settings.model).weights_path)
    return max(1, min(_MAX_WORKERS, cores // _MIN_CORES, _MAX_WEIGHTS // max(1, size)))


def visible_gpus(count: int, settings: dict[str, Any]) -> int:
    """Return how many of this process's ``count`` GPUs the workers may use, by dask-cuda's own setting."""
    visible = settings.get("CUDA_VISIBLE_DEVICES")
    if not count or visible is None:
        return count
    names = str(visible).split(",") if isinstance(visible, str | int) else visible
    return len([name for name in names if str(name).strip()])


def sharing(workers: int, gpus: int) -> int:
    """Return how many of the workers share a GPU: the most on any of the GPUs."""
    return -(-workers // gpus)


def has_dask_cuda() -> bool:
    """Return whether dask-cuda is installed; without it, every worker uses the first GPU."""
    return importlib.util.find_spec("dask_cuda") is not None


def gpu_settings(per_gpu: int) -> dict[str, Any]:
    """Return the settings of `dask_cuda.LocalCUDACluster` that differ from its defaults.

    ``per_gpu``: how many workers share a GPU; each gets an equal part of its memory.
    """
    return {
        # Batches run one at a time anyway; a second thread would keep a second partition in GPU memory.
        "threads_per_worker": 1,
        # cuDF holds texts and vectors only, and torch cannot use what its pool reserves. torch keeps its own
        # allocator, for its statistics and its out-of-memory error.
        "rmm_pool_size": 0.1 / per_gpu,
        # Dask counts only the results that it stores: at its default of 0.8 it would spill only after torch has
        # no memory left for a batch.
        "device_memory_limit": 0.4 / per_gpu,
        # Workers send each other no data, so faster protocols bring nothing.
        "protocol": "tcp",
    }


def with_shared_gpus(cluster: Any) -> Any:
    """Return a subclass of dask-cuda's cluster that allows several workers per GPU."""

    class SharedGPUs(cluster):  # type: ignore[misc]
        worker_spec: dict[Any, Any]

        def new_worker_spec(self) -> dict[int, Any]:
            """Return the next worker's spec; dask-cuda must see only specs of other GPUs."""
            number = next(i for i in itertools.count() if i not in self.worker_spec)
            gpu = self.cuda_visible_devices[number % len(self.cuda_visible_devices)]
            workers = self.worker_spec
            self.worker_spec = {other: None for other in self.cuda_visible_devices if other != gpu}
            try:
                (spec,) = super().new_worker_spec().values()
            finally:
                self.worker_spec = workers
            return {number: spec}

    return SharedGPUs
