"""Operations of a model, and the device's rate of matrix products, which bounds its speed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import DEVICE
from .clock import clocked


def flops(config: Any, lengths: np.ndarray) -> float:
    """Return the FLOPs of linear layers and attention for rows of these lengths, without padding."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    gates = 3 if config.model_type == "qwen3" else 2
    linear = 2 * hidden * (2 * heads * width + 2 * groups * width + gates * inner)
    pairs = 4 * heads * width * float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * (linear * float(lengths.sum()) + pairs)


def matmul_rate() -> float:
    """Return the FLOP/s of a bf16 matrix product on random data; a GPU has the same rate in fp16."""
    size, passes = (8192, 50) if DEVICE.type == "cuda" else (512, 10)
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 * passes / clocked(lambda: [a @ b for _ in range(passes)])
