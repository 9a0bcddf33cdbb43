"""What the hardware offers: device, dtype, threads, memory.

The only file that names torch.cuda or rmm.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Tokens a batch: on a CPU the states of a batch should stay in cache (benchmarks/LOG.md); on a GPU
# the kernels should be long against their launch.
_BUDGETS = {"cpu": 4096, "cuda": 131_072}
# Of a GPU's free memory, what one batch may take; the batch that is measured; and no batch below.
_SHARE, _TRIAL, _FEWEST = 0.5, 8192, 1024
# glibc's mallopt: its names for two thresholds, and their values here: what is kept, and from what size on an
# allocation is mapped alone (32 MiB is the most that glibc takes).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _MMAPPED = 1 << 28, 1 << 25
# How RMM, cuBLAS and the host's allocator say it, when they raise a mere RuntimeError.
_OOM_SIGNS = ("std::bad_alloc", "out_of_memory", "can't allocate memory", "not enough memory",
              "CUBLAS_STATUS_ALLOC_FAILED")  # fmt: skip


def default_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpu_count() -> int:
    """GPUs that this process may use; asks the driver's library, and starts no context on any of them."""
    return torch.cuda.device_count()


def compute_dtype(device: torch.device, *, autocast: bool) -> torch.dtype:
    """The dtype to hold weights and states in.

    bfloat16 where the hardware multiplies it natively and ``autocast`` is asked for, else float32.
    Never float16: models trained in bfloat16 overflow it.
    """
    return torch.bfloat16 if autocast and _has_bf16(device) else torch.float32


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = cpu_flags()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this CPU, by the names Linux gives them; empty where they cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Start an array's copy to the device, from pinned memory, so that the host need not wait for it."""
    host = torch.from_numpy(np.ascontiguousarray(array))
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


def wait_for_stream(device: torch.device) -> None:
    """Wait until this thread's torch stream has done its work: before another library reads its memory."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def token_budget(device: torch.device, trial: Callable[[int], object]) -> int:
    """Tokens a batch that this device has room for.

    On a GPU it is measured here, in the process that will run the model: ``trial(tokens)`` runs one batch,
    and what that takes is compared with what is free. Where the allocator keeps no statistics (torch on
    RMM's pool) the largest budget is taken, and the first out-of-memory halves it.
    """
    most = _BUDGETS.get(device.type, _BUDGETS["cpu"])
    if device.type != "cuda":
        return most
    try:
        return affordable_tokens(_free_memory(device), _peak_memory(device, trial) / _TRIAL, most)
    except RuntimeError as error:
        if is_oom(error):
            return _FEWEST
        return most


def affordable_tokens(free: int, per_token: float, most: int) -> int:
    """Tokens a batch for ``free`` bytes, at so many bytes a token: a share is left to cuDF and to results."""
    return int(min(most, max(_FEWEST, _SHARE * free / max(per_token, 1.0))))


def _free_memory(device: torch.device) -> int:
    """Bytes that torch can still get: the card's own, and what its cache holds unused."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def _peak_memory(device: torch.device, trial: Callable[[int], object]) -> int:
    """Bytes that one batch of `_TRIAL` tokens takes at its worst moment."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    trial(_TRIAL)
    return int(torch.cuda.max_memory_allocated(device) - before)


def batch_memory(device: torch.device, trial: Callable[[int], object], tokens: int) -> int:
    """Bytes of a GPU's memory that a batch of so many tokens takes, by one that is run here; 0 on a CPU."""
    return _peak_memory(device, trial) * tokens // _TRIAL if device.type == "cuda" else 0


def is_oom(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own, RMM's, cuBLAS's, or the host's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(sign in message for sign in _OOM_SIGNS)


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device, after an out-of-memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def cpu_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tokenizer_copy_count() -> int:
    """Copies of the tokenizer: one where the model needs the cores, one per four of them beside a GPU."""
    if default_device().type == "cpu":
        return 1
    return max(1, int(os.environ.get("RAYON_NUM_THREADS") or cpu_cores()) // 4)


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next batch; whether the allocator took it.

    By itself glibc hands a batch's freed states back to the system and faults the next ones in again, page by
    page, and under Dask's nannies, which set ``MALLOC_TRIM_THRESHOLD_=65536``, always: MiniLM on a CPU takes
    1.2 to 2 times as long (benchmarks/LOG.md). At most `_KEPT` bytes are kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _MMAPPED))


def limit_kernel_caches() -> None:
    """Let oneDNN keep few compiled kernels; to be called before it runs in this process.

    It compiles one for every shape. Batches of texts hardly ever share theirs, but the layers that a batch goes
    through do, and for these so many are enough. By itself torch keeps some thousands, and a process grows by
    hundreds of MB (benchmarks/LOG.md). What the user's environment says is left alone.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")


def set_threads(count: int | None) -> None:
    """Give the calling thread ``count`` intra-op threads; None leaves torch's number alone."""
    if count is not None and count != torch.get_num_threads():
        torch.set_num_threads(count)
