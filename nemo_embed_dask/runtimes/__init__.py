"""The seam between tokens and token states: what a runtime is, and one loaded model per process.

A new runtime is ``runtimes/<name>.py`` with a ``load(card, autocast, adapter)`` and its name below.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigError
from ..models.card import ModelCard
from ..ragged import Ragged, Side

if TYPE_CHECKING:
    import torch

RUNTIMES = ("torch", "openvino")


class Runtime(Protocol):
    """A loaded model.

    ``dimension``: width of its states. ``pads``: whether a batch costs its longest row times its rows.
    ``budget``: tokens a batch that are known to fit, halved by the engine after an out-of-memory.
    """

    dimension: int
    pads: bool
    budget: int
    device: torch.device

    def states(self, ids: Ragged, *, padding_side: Side) -> tuple[torch.Tensor, torch.Tensor]:
        """Token states of some rows: ``[total, dimension]`` and int64 offsets ``[n + 1]``, on the device."""
        ...


# One lock for importing and for loading: concurrent first imports of transformers fail, and
# lru_cache would load the model once per thread.
loading = threading.Lock()
_loaded: dict[tuple[str, str, bool, str | None], Runtime] = {}


@lru_cache(maxsize=1)
def _model_thread(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, f"model-{pid}")


def alone(work: Callable[[], None]) -> None:
    """Run ``work`` in this process's one model thread, after what others have asked for.

    One forward at a time: it uses all the cores or the whole device, and task annotations that would say so
    to Dask do not survive its optimizer. One thread, not a lock: OpenMP keeps a pool for each thread that
    calls it, and two pools on the same cores ran at two thirds of the speed (benchmarks/LOG.md).
    """
    _model_thread(os.getpid()).submit(work).result()


def load(
    card: ModelCard, *, runtime: str = "torch", autocast: bool = True, adapter: str | None = None
) -> Runtime:
    """The model, loaded once per process and shared by its threads."""
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime={runtime!r} is unknown; choose one of {', '.join(RUNTIMES)}")
    key = (runtime, str(card.path), autocast, adapter)
    with loading:
        if key not in _loaded:
            module = importlib.import_module(f"{__name__}.{runtime}")
            _loaded[key] = module.load(card, autocast=autocast, adapter=adapter)
        return _loaded[key]


def unload() -> None:
    """Forget every loaded model of this process, and so give its memory back."""
    with loading:
        _loaded.clear()
