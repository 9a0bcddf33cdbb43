"""Faster linear layers on a CPU: their weights are reordered for oneDNN once, at load, not in every batch.

The operators are those that ``torch.compile`` uses in a frozen model. They have no public name, so one is
tried first; if it fails, the model stays as it is. A GELU after a layer is computed together with it, before
its output leaves the cache. Measurements are in benchmarks/LOG.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_ops: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer with a reordered copy of the weights of ``plain``."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features = plain.in_features
        self.weight = _ops._reorder_linear_weight(plain.weight.detach())
        self.bias = None if plain.bias is None else plain.bias.detach().clone()  # not a part of a mapped file
        # The function that oneDNN applies to the output, and its variant.
        self.post_op: tuple[str, str] = ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        name, variant = self.post_op
        out: Tensor = _ops._linear_pointwise(x, self.weight, self.bias, name, [], variant)
        return out


@lru_cache(maxsize=2)
def _is_supported(dtype: torch.dtype) -> bool:
    """Return whether this build of torch has the operators and they compute what a plain layer does."""
    with torch.random.fork_rng(devices=[]):
        plain = nn.Linear(16, 8).to(dtype)
    x = torch.linspace(-1, 1, 64).reshape(4, 16).to(dtype)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(plain)(x), plain(x), atol=2e-2)
    except (RuntimeError, AttributeError):
        return False


def pack_linears(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace every ``nn.Linear`` of a model on the CPU by a `PackedLinear`, but no subclass of it."""
    if not _is_supported(dtype):
        return model
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
        _fuse_gelu(parent, dtype)
    return model


def _fuse_gelu(block: nn.Module, dtype: torch.dtype) -> None:
    """Let the layer of a ``block`` compute the GELU after it, if the block has just these two, as in BERT.

    Activations have many class names, so this one is recognized by its outputs.
    """
    children = list(block.named_children())
    if len(children) != 2 or not isinstance(layer := children[0][1], PackedLinear):
        return
    name, activation = children[1]
    grid = torch.linspace(-8, 8, 1001)
    x = torch.linspace(-4, 4, 4 * layer.in_features).reshape(4, -1).to(dtype)
    try:
        with torch.inference_mode():
            is_gelu = torch.equal(activation(grid), gelu(grid))
            if is_gelu and torch.equal(block(x), activation(layer(x))):
                layer.post_op = ("gelu", "none")
                setattr(block, name, nn.Identity())
    except (RuntimeError, TypeError):
        return
