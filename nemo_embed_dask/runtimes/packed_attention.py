"""Attention over packed rows, under the name by which transformers calls it. Knows tensors only.

All rows of a batch stand end to end in one sequence, so that every linear layer runs without padding;
only attention must know where rows end. On a CPU rows of about one length go as a block (`blocks`). Elsewhere
one variable-length kernel takes the whole batch: flash-attention's where that is installed, else torch's own.
Where there is neither, or it refuses the dtype or the width of the heads, the model cannot pack, and is run
padded.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..device import to_device
from ..ragged import Ints
from .cpu_attention import Blocks

NAME = "nemo_embed_dask_packed"
# Variable-length kernels, best first. All begin (q, k, v, cu_seqlens, cu_seqlens, longest, longest).
KERNELS = (("flash_attn", "flash_attn_varlen_func"), ("torch.nn.attention.varlen", "varlen_attn"))


class CannotPackError(Exception):
    """The model asks attention for something that the packed one does not do."""


@dataclass(eq=False)
class Packing:
    """Where the rows of a packed batch are: ``offsets`` int64 ``[n + 1]`` on the host."""

    offsets: Ints
    device: torch.device

    @cached_property
    def blocks(self) -> Blocks:
        """The batch as a CPU takes it."""
        return Blocks(self.offsets)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """The offsets as the varlen kernel takes them: int32, on the device."""
        return to_device(self.offsets.astype(np.int32), self.device)

    @cached_property
    def longest(self) -> int:
        """Length of the longest row."""
        return int(np.diff(self.offsets).max(initial=0))


_current: ContextVar[Packing | None] = ContextVar("packing", default=None)


_calls = [0]


def calls() -> int:
    """How often packed attention has run in this process: tells whether a model uses it at all."""
    return _calls[0]


@contextmanager
def packed(packing: Packing) -> Iterator[Packing]:
    """Let attention inside this block see where rows end."""
    token = _current.set(packing)
    try:
        yield packing
    finally:
        _current.reset(token)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: q ``[1, heads, total, d]``; k, v likewise, fewer heads under GQA."""
    packing = _current.get()
    asked = [k for k in ("softcap", "s_aux", "position_bias", "score_mod") if extra.get(k) is not None]
    if packing is None or attention_mask is not None or asked:
        raise CannotPackError(f"attention mask or {asked or 'no packing'} in {type(module).__name__}")
    if sliding_window is not None and getattr(getattr(module, "config", None), "is_causal", None) is False:
        raise CannotPackError("a decoder made bidirectional: its mask reaches one token beyond its window")
    _calls[0] += 1
    causal = bool(is_causal if is_causal is not None else getattr(module, "is_causal", True))
    run = _in_blocks if query.device.type == "cpu" else varlen()
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return run(packing, q, k, v, scaling, causal, sliding_window)[None], None


Attention = Callable[[Packing, Tensor, Tensor, Tensor, float | None, bool, int | None], Tensor]


def _in_blocks(packing: Packing, *asked: Any) -> Tensor:
    return packing.blocks.attend(*asked)


@cache
def varlen() -> Attention:
    """The best variable-length kernel of this machine, adapted to one call."""
    for module, name in KERNELS:
        try:
            return adapt(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue
    raise CannotPackError("there is no variable-length attention kernel here")


def adapt(kernel: Callable[..., Any]) -> Attention:
    """One call for all versions of the kernels, by the names of their parameters.

    torch 2.10 has ``is_causal`` and no scale or window; from 2.11 causal is a window of ``(-1, 0)``, and from
    2.12 or so grouped heads are asked for. flash-attention says ``causal`` and ``softmax_scale``, and groups
    heads unasked.
    """
    known = set(inspect.signature(kernel).parameters)
    scale_name = next(iter(known & {"scale", "softmax_scale"}), None)
    causal_name = next(iter(known & {"causal", "is_causal"}), None)

    def attend(
        packing: Packing, q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, window: int | None
    ) -> Tensor:
        options: dict[str, Any] = {causal_name: causal} if causal_name else {}
        reach = -1 if window is None else window - 1
        if "window_size" in known:
            options["window_size"] = (reach, 0 if causal else reach)
        elif window is not None:
            raise CannotPackError("this kernel has no sliding window")
        if scale_name:
            options[scale_name] = scale
        elif scale is not None:
            q = q * (scale * q.shape[-1] ** 0.5)
        groups = q.shape[1] // k.shape[1]
        if "enable_gqa" in known:
            options["enable_gqa"] = groups > 1
        elif groups > 1 and scale_name != "softmax_scale":
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        cu, longest = packing.cu_seqlens, packing.longest
        out: Tensor = kernel(
            q.contiguous(), k.contiguous(), v.contiguous(), cu, cu, longest, longest, **options
        )
        return out

    return attend
