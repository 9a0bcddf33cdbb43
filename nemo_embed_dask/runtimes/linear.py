"""Linear layers whose weights are laid out for oneDNN once, at load, not anew in every batch. CPU only.

Knows tensors only. The operators are those that ``torch.compile`` emits when it freezes a model; they have
no public name, so one is tried first, and where it fails the model stays as it is. Measured in
benchmarks/LOG.md: 1.1 times the speed in bfloat16, 1.2 in float32, the same states.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

_ops: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """What ``plain`` computes; its weights are copied, so that it can be forgotten."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight = _ops._reorder_linear_weight(plain.weight.detach())
        self.bias = None if plain.bias is None else plain.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        out: Tensor = _ops._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


@lru_cache(maxsize=2)
def _works(dtype: torch.dtype) -> bool:
    with torch.random.fork_rng(devices=[]):
        plain = nn.Linear(16, 8).to(dtype)
    x = torch.linspace(-1, 1, 64).reshape(4, 16).to(dtype)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(plain)(x), plain(x), atol=2e-2)
    except (RuntimeError, AttributeError):
        return False


def pack_linears(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace every plain ``nn.Linear`` of a model on the CPU, in place; its subclasses are left alone."""
    if not _works(dtype):
        return model
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
    return model
