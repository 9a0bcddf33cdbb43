"""Runtimes: the libraries that run a model, from token ids to token states.

Each process loads a model once. To add a runtime, write ``runtimes/<name>.py`` with a function
``load(card, *, autocast)``, and add the name to `RUNTIMES`.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..device import keep_freed_memory
from ..errors import ConfigError
from ..models.card import ModelCard
from ..models.remote_code import CustomCode
from ..models.stamps import Stamp, load_once, stamp_folder
from ..ragged import Ragged

if TYPE_CHECKING:
    import torch

# Those that a user can choose. A static model has a runtime of its own, ``static``.
RUNTIMES = ("torch", "openvino")


class Runtime(Protocol):
    """A loaded model, which computes token states.

    ``dimension``: size of one token state. ``vocabulary``: number of token ids. ``max_length``: most tokens of
    a row; None for any number. ``pads``: whether rows are padded, so that a batch costs its number of rows
    times its longest row. ``budget``: tokens per batch that fit in memory; the engine halves it after an
    out-of-memory error. ``number_type``: the type of weights and states, such as "float16". ``weight_bytes``:
    bytes of the model's weights.
    """

    dimension: int
    vocabulary: int
    max_length: int | None
    pads: bool
    budget: int
    device: torch.device
    number_type: str
    weight_bytes: int

    def states(self, ids: Ragged) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the token states of a batch, ``[total, dimension]``, and int64 offsets ``[n + 1]``.

        Both are on the runtime's device. Row ``i`` is ``states[offsets[i]:offsets[i + 1]]``, the states that it
        has alone. The caller checks that no id is beyond ``vocabulary`` and no row longer than ``max_length``.
        """
        ...

    def load_wider(self) -> Runtime | None:
        """Return the model in the next number type, of greater range, loaded once; None if there is none."""
        ...

    def batch_memory(self, tokens: int) -> int:
        """Return the bytes of GPU memory that a batch of ``tokens`` tokens takes; 0 on a CPU."""
        ...


# One lock for importing and for loading, because concurrent first imports of transformers fail. lru_cache would
# not do: threads that call it at the same time would each load the model.
loading_lock = threading.Lock()
# Held while weights are loaded, and while a batch runs. transformers sets torch's default number type, which is
# that of all threads, while it loads; a batch that ran meanwhile could compute in it.
weights_lock = threading.Lock()
_loaded: dict[tuple[str, Path, Path | None, CustomCode, bool, bool], tuple[Stamp, Runtime]] = {}


@lru_cache(maxsize=1)
def _model_thread(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, f"model-{pid}")


def run_on_model_thread(work: Callable[[], None]) -> None:
    """Run ``work`` on the process's single model thread. Calls queue and run one at a time.

    One forward pass uses all cores or the whole device, so a second one at the same time gains nothing. A
    thread and not a lock, because OpenMP keeps a thread pool per calling thread, and two pools on the same
    cores ran at two thirds of the speed (benchmarks/LOG.md).
    """
    _model_thread(os.getpid()).submit(_run_without_loading, work).result()


def _run_without_loading(work: Callable[[], None]) -> None:
    with weights_lock:
        work()


def load(card: ModelCard, *, runtime: str = "torch", autocast: bool = True, compiled: bool = False) -> Runtime:
    """Return the model's runtime, which is loaded once per process and shared by its threads.

    It is loaded again if a file of the model or of the adapter has changed. ``compiled``: on a GPU, compile a
    model of the torch runtime if that is faster.

    Raises
    ------
    ConfigError
        The runtime is unknown or not installed.
    ModelError
        The model cannot be loaded or run.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime={runtime!r} is unknown; choose one of {', '.join(RUNTIMES)}")
    stamp, adapter = card.stamp, card.adapter
    if card.static is not None:
        runtime = _static_runtime(card, runtime)
    if adapter is not None:
        stamp += stamp_folder(adapter, str(adapter))

    compiled = compiled and runtime == "torch"

    def make() -> Runtime:
        module = importlib.import_module(f"{__name__}.{runtime}")
        options = {"compiled": True} if compiled else {}
        with weights_lock:
            loaded: Runtime = module.load(card, autocast=autocast, **options)
        keep_freed_memory()  # after loading, whose temporary memory goes back to the system
        return loaded

    with loading_lock:
        return load_once(_loaded, (runtime, card.path, adapter, card.code, autocast, compiled), stamp, make)


def _static_runtime(card: ModelCard, runtime: str) -> str:
    if runtime != "torch":
        raise ConfigError(
            f"model {card.name!r} is static: it has no transformer that runtime={runtime!r} could run; leave "
            "out runtime"
        )
    return "static"


def unload() -> None:
    """Drop every loaded model of this process, which frees its memory."""
    with loading_lock:
        _loaded.clear()
