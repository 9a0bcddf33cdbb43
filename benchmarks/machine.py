"""The machine of a measurement: its description, its matrix product rate, and the peak memory of a run."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch

from nemo_embed_dask.device import cpu_cores, cpu_flags
from nemo_embed_dask.runtimes.cpu_linear import pack_linears

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "openvino",
    "dask",
    "distributed",
    "pandas",
    "pyarrow",
    "numpy",
)


def describe() -> dict[str, Any]:
    """Return the CPU, its cores, whether it has bfloat16 instructions, and the memory in GiB."""
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = cpu_flags()
    return {
        "cpu": names[0] if names else "unknown",
        "cores": cpu_cores(),
        "amx_bf16": "amx_bf16" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that influence speed."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def layer_shapes(config: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """Return the shapes (in, out) of the linear layers in one BERT layer, and how often each occurs."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return {(hidden, hidden): 4, (hidden, inner): 1, (inner, hidden): 1}


def flops(config: Mapping[str, Any], lengths: np.ndarray) -> float:
    """Return the FLOPs of linear layers and attention for rows of these lengths, without padding."""
    linear = sum(2 * a * b * n for (a, b), n in layer_shapes(config).items())
    pairs = 4 * config["hidden_size"] * float((lengths.astype(np.float64) ** 2).sum())
    return config["num_hidden_layers"] * (linear * float(lengths.sum()) + pairs)


def matmul_gflops(
    config: Mapping[str, Any], dtype: torch.dtype, *, tokens: int = 4096, passes: int = 5
) -> float:
    """Return the GFLOP/s of the model's linear layers with packed weights, the median of ``passes``."""
    shapes = layer_shapes(config)
    layers = []
    for (a, b), count in shapes.items():
        plain = torch.nn.Sequential(torch.nn.Linear(a, b, dtype=dtype))
        layers += [(torch.randn(tokens, a, dtype=dtype), pack_linears(plain, dtype))] * count
    seconds = []
    for _ in range(passes + 1):
        start = time.perf_counter()
        with torch.inference_mode():
            for x, layer in layers:
                layer(x)
        seconds.append(time.perf_counter() - start)
    operations = sum(2 * tokens * a * b * n for (a, b), n in shapes.items())
    return operations / median(seconds[1:]) / 1e9


def _process_ids() -> list[int]:
    """Return the ids of this process and its children."""
    return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]


def reset_peak() -> None:
    """Reset the peak of resident memory of this process and its children (Linux)."""
    for pid in _process_ids():
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak_mib() -> float:
    """Return the peak resident memory in MiB of this process and its children since `reset_peak`."""
    total = 0
    for pid in _process_ids():
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return round(total / 1024, 1)
