"""Attention over packed rows, registered in transformers under the name `NAME`.

All rows of a batch stand end to end in one sequence, so that linear layers run without padding; only attention
must know where rows end. On a CPU rows of similar length are computed together (`cpu_attention`). On a GPU one
variable-length kernel takes the whole batch: flash-attention's if it is installed, else torch's. If there is no
kernel, or it refuses the dtype or the size of the heads, the model runs padded.
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
# Variable-length kernels, best first. All begin with (q, k, v, cu_seqlens, cu_seqlens, longest, longest).
KERNELS = (("flash_attn", "flash_attn_varlen_func"), ("torch.nn.attention.varlen", "varlen_attn"))
# Options of transformers' attention that packed attention does not implement.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "score_mod")


class CannotPackError(Exception):
    """The model needs something from attention that packed attention does not do."""


@dataclass(eq=False)
class Packing:
    """Where the rows of a packed batch start: ``offsets``, int64 ``[n + 1]``, in the host's memory."""

    offsets: Ints
    device: torch.device

    @cached_property
    def blocks(self) -> Blocks:
        """The batch in the form that a CPU uses."""
        return Blocks(self.offsets)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """The offsets in the form that a variable-length kernel uses: int32, on the device."""
        return to_device(self.offsets.astype(np.int32), self.device)

    @cached_property
    def longest(self) -> int:
        """Length of the longest row."""
        return int(np.diff(self.offsets).max(initial=0))


_current: ContextVar[Packing | None] = ContextVar("packing", default=None)
_calls = [0]


def call_count() -> int:
    """Return how often packed attention has run in this process; shows whether a model uses it."""
    return _calls[0]


@contextmanager
def packed(packing: Packing) -> Iterator[Packing]:
    """Give attention the ``packing`` of the batch that runs inside this context."""
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
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of each row over itself; the signature is that of transformers' interface.

    ``query`` is ``[1, heads, total, d]``; ``key`` and ``value`` may have fewer heads (grouped-query attention).

    Raises
    ------
    CannotPackError
        The model uses a mask or an option that is not implemented here.
    """
    unsupported = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if attention_mask is not None or unsupported:
        raise CannotPackError(f"attention mask or {unsupported} in {type(module).__name__}")
    if sliding_window is not None and getattr(getattr(module, "config", None), "is_causal", None) is False:
        # A decoder made bidirectional: its mask reaches one token further than its sliding window.
        raise CannotPackError(f"a bidirectional sliding window in {type(module).__name__}")
    causal = bool(is_causal if is_causal is not None else getattr(module, "is_causal", True))
    attend = _attend_as_operator if torch.compiler.is_compiling() else _attend
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, scaling, causal, sliding_window)[None], None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, sliding_window: int | None
) -> Tensor:
    packing = _current.get()
    if packing is None:
        raise CannotPackError("attention runs without a packing")
    _calls[0] += 1
    attend = _attend_on_cpu if q.device.type == "cpu" else varlen_attention()
    return attend(packing, q, k, v, scale, causal, sliding_window)


@torch.library.custom_op("nemo_embed_dask::packed_attention", mutates_args=())
def _attend_as_operator(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, sliding_window: int | None
) -> Tensor:
    """Compute attention as one operator, which ``torch.compile`` calls and does not trace.

    A model is then compiled as one graph. Plain models call `_attend`, which costs less per call.
    """
    return _attend(q, k, v, scale, causal, sliding_window).contiguous()


@_attend_as_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, sliding_window: int | None) -> Tensor:
    del k, v, scale, causal, sliding_window
    return q.new_empty(q.shape)


# Arguments: packing, q, k, v (``[total, heads, d]``), scale, causal, sliding window.
Attention = Callable[[Packing, Tensor, Tensor, Tensor, float | None, bool, int | None], Tensor]


def _attend_on_cpu(packing: Packing, *arguments: Any) -> Tensor:
    return packing.blocks.attend(*arguments)


@cache
def varlen_attention() -> Attention:
    """Return the best variable-length kernel of this machine.

    Raises
    ------
    CannotPackError
        There is none.
    """
    for module, name in KERNELS:
        try:
            return adapt_kernel(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue
    raise CannotPackError("there is no variable-length attention kernel in this environment")


def adapt_kernel(kernel: Callable[..., Any]) -> Attention:
    """Wrap a variable-length kernel, so that all kernels are called in the same way.

    Versions differ in their parameters, so these are read from the signature. torch 2.10 has ``is_causal`` and
    neither scale nor window. From 2.11 causal attention is a window of ``(-1, 0)``, and from about 2.12 grouped
    heads need ``enable_gqa``. flash-attention has ``causal`` and ``softmax_scale``, and always groups heads.
    """
    parameters = set(inspect.signature(kernel).parameters)
    scale_name = next(iter(parameters & {"scale", "softmax_scale"}), None)
    causal_name = next(iter(parameters & {"causal", "is_causal"}), None)

    def attend(
        packing: Packing,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float | None,
        causal: bool,
        sliding_window: int | None,
    ) -> Tensor:
        options: dict[str, Any] = {causal_name: causal} if causal_name else {}
        reach = -1 if sliding_window is None else sliding_window - 1
        if "window_size" in parameters:
            options["window_size"] = (reach, 0 if causal else reach)
        elif sliding_window is not None:
            raise CannotPackError("this kernel has no sliding window")
        if scale_name:
            options[scale_name] = scale
        elif scale is not None:
            q = q * (scale * q.shape[-1] ** 0.5)  # the kernel itself divides by the square root
        groups = q.shape[1] // k.shape[1]
        if "enable_gqa" in parameters:
            options["enable_gqa"] = groups > 1
        elif groups > 1 and scale_name != "softmax_scale":
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        cu, longest = packing.cu_seqlens, packing.longest
        out: Tensor = kernel(
            q.contiguous(), k.contiguous(), v.contiguous(), cu, cu, longest, longest, **options
        )
        return out

    return attend
