"""The device, its number type, memory and threads. No other file may use torch.cuda or rmm."""

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

from .errors import ConfigError

# Most tokens per batch. On a CPU the token states of a batch should fit in the cache (benchmarks/LOG.md); on a
# GPU kernels should run much longer than their launch takes.
_MAX_TOKENS = {"cpu": 4096, "cuda": 131_072}
# The fraction of a GPU's free memory that one batch may take. The rest is for cuDF and for results.
_MEMORY_FRACTION = 0.5
# Tokens of the batch whose memory is measured.
_TRIAL_TOKENS = 8192
# The smallest token budget that is chosen from a measurement.
_MIN_TOKENS = 1024
# The environment variable that tells workers how many of them share a GPU.
WORKERS_PER_GPU = "NEMO_EMBED_WORKERS_PER_GPU"
# Two parameters of glibc's mallopt, by their numbers in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Their values: the most bytes of freed memory that are kept, and the size from which an allocation gets its own
# mapping, which is not kept when freed (32 MiB is the largest size that glibc accepts).
_KEPT_BYTES, _MMAP_BYTES = 1 << 28, 1 << 25
# If memory runs out, RMM, cuBLAS and the host's allocator raise a plain RuntimeError with such a message.
_OOM_MESSAGES = (
    "std::bad_alloc",
    "out_of_memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def default_device() -> torch.device:
    """Return the GPU of this process, or the CPU if it has none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpu_count() -> int:
    """Count the GPUs that this process may use, without creating a CUDA context on any of them."""
    return torch.cuda.device_count()


def number_types(
    device: torch.device, *, autocast: bool, stored: Callable[[], torch.dtype]
) -> tuple[torch.dtype, ...]:
    """Return the types of weights and token states to try, best first; each later one has a greater range.

    Without ``autocast`` it is float32. On a CPU it is bfloat16 where the CPU multiplies it natively. On a GPU
    float16 is as fast as bfloat16 and rounds eight times finer, so it comes first, unless the model's weights
    are stored in bfloat16: such models were trained in it, and have values that overflow float16. ``stored``
    returns the type in which the weights are stored; it is called for a GPU only.

    The differences to float32 (200 texts, mean pooling): 1.9e-4 in float16, 2.7e-3 in bfloat16; NeMo Curator's
    tests allow 1e-3.
    """
    if not autocast:
        return (torch.float32,)
    if device.type != "cuda":
        return (torch.bfloat16 if _has_bf16(device) else torch.float32,)
    bfloat16 = (torch.bfloat16,) if _has_bf16(device) else ()
    float16 = () if stored() == torch.bfloat16 else (torch.float16,)
    return (*float16, *bfloat16, torch.float32)


def type_name(dtype: torch.dtype) -> str:
    """Return the name of a number type, such as "float16"."""
    return str(dtype).removeprefix("torch.")


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = cpu_flags()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this CPU by their Linux names; empty if they cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def to_device(array: npt.NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Start to copy an array to the device, from pinned memory, so that the host does not wait for it.

    A tensor that is on the device already is returned as it is.
    """
    if isinstance(array, Tensor):
        return array.to(device, non_blocking=True)
    host = torch.from_numpy(np.ascontiguousarray(array))
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


def start_to_host(tensor: Tensor) -> Callable[[], npt.NDArray[Any]]:
    """Start to copy a tensor to the host; return a function that waits for this copy and returns it.

    Work that is queued on the device later is not waited for.
    """
    if tensor.device.type != "cuda":
        return tensor.numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tensor.device))

    def wait() -> npt.NDArray[Any]:
        copied.synchronize()
        return host.numpy()

    return wait


def wait_for_stream(device: torch.device) -> None:
    """Wait until torch has finished what this thread queued, so that another library may read its memory."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def token_budget(device: torch.device, trial: Callable[[int], object]) -> int:
    """Return the most tokens per batch for this device.

    On a GPU this is measured, in the process that runs the model: ``trial(tokens)`` runs one batch, and its
    peak memory is compared with this process's part of the free memory, which it may share with other workers.
    If the allocator keeps no statistics (torch on RMM's pool), the largest budget is returned, and the first
    out-of-memory error halves it.
    """
    largest = _MAX_TOKENS.get(device.type, _MAX_TOKENS["cpu"])
    if device.type != "cuda":
        return largest
    try:
        bytes_per_token = _peak_memory(device, trial) / _TRIAL_TOKENS
        free = _free_memory(device) // workers_per_gpu()
        return affordable_tokens(free, bytes_per_token, largest)
    except RuntimeError as error:  # the trial ran out of memory, or the allocator keeps no statistics
        return _MIN_TOKENS if is_oom(error) else largest


def workers_per_gpu() -> int:
    """Return how many workers share this process's GPU; ConfigError if the variable is no such number."""
    value = os.environ.get(WORKERS_PER_GPU) or "1"
    if not (value.isascii() and value.isdigit() and int(value)):
        raise ConfigError(
            f"the environment variable {WORKERS_PER_GPU}={value!r} says how many workers share a GPU: set it "
            "to a positive whole number, or unset it"
        )
    return int(value)


def affordable_tokens(free: int, bytes_per_token: float, largest: int) -> int:
    """Return the tokens per batch for ``free`` bytes of memory: at least `_MIN_TOKENS`, at most ``largest``."""
    affordable = _MEMORY_FRACTION * free / max(bytes_per_token, 1.0)
    return int(min(largest, max(_MIN_TOKENS, affordable)))


def _free_memory(device: torch.device) -> int:
    """Return the bytes that torch can still allocate: free memory of the GPU and unused blocks of its cache."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def _peak_memory(device: torch.device, trial: Callable[[int], object]) -> int:
    """Return the peak memory in bytes of one batch of `_TRIAL_TOKENS` tokens."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    trial(_TRIAL_TOKENS)
    return int(torch.cuda.max_memory_allocated(device) - before)


def batch_memory(device: torch.device, trial: Callable[[int], object], tokens: int) -> int:
    """Run a trial batch and return the GPU memory in bytes of a batch of ``tokens``; 0 on a CPU."""
    return _peak_memory(device, trial) * tokens // _TRIAL_TOKENS if device.type == "cuda" else 0


def is_oom(error: BaseException) -> bool:
    """Return whether an error of torch, RMM, cuBLAS or the host's allocator means out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(part in message for part in _OOM_MESSAGES)


def release_memory(device: torch.device) -> None:
    """Give free memory back: torch's cached blocks on a GPU, and what glibc keeps on the host."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def cpu_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tokenizer_copy_count() -> int:
    """Return how many copies of the tokenizer to make: one on a CPU, else one per four cores."""
    if default_device().type == "cpu":
        return 1  # the model needs the cores
    threads = int(os.environ.get("RAYON_NUM_THREADS") or cpu_cores())
    return max(1, threads // 4)


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next batch, and return whether its allocator supports that.

    By default glibc often returns the memory of a batch to the system, and the next batch has a page fault for
    each page. With ``MALLOC_TRIM_THRESHOLD_=65536``, which Dask's nannies set, it always does. MiniLM on a CPU
    then takes 1.2 to 2 times as long (benchmarks/LOG.md). At most `_KEPT_BYTES` are kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES))


def limit_kernel_caches() -> None:
    """Limit the compiled kernels that oneDNN caches; call this before oneDNN runs in this process.

    oneDNN compiles a kernel per shape. Batches of texts rarely have equal shapes, but the layers of one batch
    do, and 128 kernels are enough for these. torch's default is some thousands, which makes a process grow by
    hundreds of MB (benchmarks/LOG.md). Values that the user has set are kept.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")


def set_threads(count: int | None) -> None:
    """Set how many threads torch uses for an operation of the calling thread; None changes nothing."""
    if count is not None and count != torch.get_num_threads():
        torch.set_num_threads(count)
