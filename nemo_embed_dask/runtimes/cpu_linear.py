"""Linear layers whose weights are laid out for oneDNN once, at load, not anew in every batch. CPU only.

Knows tensors only. The operators are those that ``torch.compile`` emits when it freezes a model; they have
no public name, so one is tried first, and where it fails the model stays as it is. A GELU that follows a
layer is computed with it, before its output leaves the cache. Measured in benchmarks/LOG.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_ops: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """What ``plain`` computes; its weights are copied, so that it can be forgotten."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.width = plain.in_features
        self.weight = _ops._reorder_linear_weight(plain.weight.detach())
        self.bias = None if plain.bias is None else plain.bias.detach()
        self.after: tuple[str, str] = ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        out: Tensor = _ops._linear_pointwise(x, self.weight, self.bias, self.after[0], [], self.after[1])
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
        _fuse_gelu(parent, dtype)
    return model


def _fuse_gelu(block: nn.Module, dtype: torch.dtype) -> None:
    """Let a ``block``'s layer compute its GELU too, if the block is just these two, as in BERT and its kin.

    Which they are is not asked by name but seen from what they compute.
    """
    children = list(block.named_children())
    if len(children) != 2 or not isinstance(layer := children[0][1], PackedLinear):
        return
    name, after = children[1]
    grid, x = torch.linspace(-8, 8, 1001), torch.linspace(-4, 4, 4 * layer.width).reshape(4, -1).to(dtype)
    try:
        with torch.inference_mode():
            if torch.equal(after(grid), gelu(grid)) and torch.equal(block(x), after(layer(x))):
                layer.after = ("gelu", "none")
                setattr(block, name, nn.Identity())
    except (RuntimeError, TypeError):
        return
