"""What the hardware offers: device, dtype, threads, memory.

The only file that names torch.cuda or rmm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Tokens a batch: on a CPU the states of a batch should stay in cache (benchmarks/LOG.md); on a GPU
# the kernels should be long against their launch.
_BUDGETS = {"cpu": 4096, "cuda": 131_072}


def default_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def token_budget(device: torch.device) -> int:
    """Tokens a batch to start with on this device."""
    return _BUDGETS[device.type]


def is_oom(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own, RMM's, or the host's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    signs = ("std::bad_alloc", "out_of_memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in message for sign in signs)


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device, after an out-of-memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def cpu_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with ``count`` intra-op threads (None: leave torch's number alone)."""
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
