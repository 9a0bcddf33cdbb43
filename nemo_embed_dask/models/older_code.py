"""What transformers 5 has removed and code of models that was written for transformers 4 uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PRUNING = ("find_pruneable_heads_and_indices", "prune_linear_layer")


@contextmanager
def older_imports() -> Iterator[None]:
    """Let code import the functions for pruning, which it does not call to compute token states."""
    from transformers import pytorch_utils

    lacking = [name for name in _PRUNING if not hasattr(pytorch_utils, name)]
    for name in lacking:
        setattr(pytorch_utils, name, _refuse_pruning)
    try:
        yield
    finally:
        for name in lacking:
            delattr(pytorch_utils, name)


def add_older_methods(model_class: Any) -> None:
    """Give a class the methods of transformers 4 that it may call and that transformers 5 no longer has."""
    for method in (get_extended_attention_mask, get_head_mask):
        if not hasattr(model_class, method.__name__):
            setattr(model_class, method.__name__, method)


def _refuse_pruning(*_arguments: Any, **_options: Any) -> None:
    raise NotImplementedError("heads are not pruned with transformers 5")


def get_extended_attention_mask(
    self: Any, attention_mask: Any, input_shape: Any, device: Any = None, dtype: Any = None
) -> Any:
    """Return what an encoder adds to its scores: 0 for tokens, and the least number for padding.

    ``attention_mask`` is ``[n, longest]`` or ``[n, longest, longest]``.
    """
    import torch

    del input_shape, device
    if getattr(self.config, "is_decoder", False):
        raise NotImplementedError("its mask is that of a decoder, which transformers 5 no longer makes")
    dtype = dtype or self.dtype
    mask = attention_mask[:, None] if attention_mask.dim() == 3 else attention_mask[:, None, None]
    return (1.0 - mask.to(dtype)) * torch.finfo(dtype).min


def get_head_mask(self: Any, head_mask: Any, num_hidden_layers: int, *_options: Any) -> list[None]:
    """Return one mask of heads per layer: none, because no heads are left out."""
    del self
    if head_mask is not None:
        raise NotImplementedError("heads are not left out with transformers 5")
    return [None] * num_hidden_layers
