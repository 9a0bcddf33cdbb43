"""The torch runtime: transformers models, from token ids to token states.

A model runs packed (all rows end to end, without padding) if its attention goes through transformers'
interface, else padded. Which of the two works, and with which position ids, is tried at load and not looked up
in a table: a few short rows must have the same states in a batch as alone in the published model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..device import (
    batch_memory,
    compute_dtype,
    default_device,
    is_oom,
    keep_freed_memory,
    limit_kernel_caches,
    to_device,
    token_budget,
)
from ..errors import ModelError
from ..models.card import ModelCard
from ..models.weights import load_weights
from ..ragged import Ragged, Side
from . import packed_attention as attention
from .cpu_linear import pack_linears
from .probe import states_agree

_PROBE_LENGTHS = (7, 3, 12, 3)


class _Layout(NamedTuple):
    """How a batch is given to a model.

    ``packed``: rows end to end, else padded. ``first_position``: the position id of a row's first token; None
    if the model gets no position ids.
    """

    packed: bool
    first_position: int | None


class TorchRuntime:
    """A transformers model on one device. Implements `runtimes.Runtime`."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self._layout, self.dimension = _find_layout(model, device, dtype)
        self.pads = not self._layout.packed
        self.budget = token_budget(device, self._run_trial_batch)
        self.weight_bytes = sum(tensor.nbytes for tensor in model.parameters())

    def states(self, ids: Ragged, *, padding_side: Side = "right") -> tuple[Tensor, Tensor]:
        """Return the token states of a batch.

        Parameters
        ----------
        ids : Ragged of int32
            Token ids; no row is empty.
        padding_side : "left" or "right"
            Side to pad, for models that cannot run packed; the states do not depend on it.

        Returns
        -------
        states : Tensor, shape (total, dimension), on the device
        offsets : Tensor of int64, shape (n + 1,), on the device
        """
        with torch.inference_mode():
            return _forward(self.model, self._layout, ids, self.device, padding_side)

    def batch_memory(self, tokens: int) -> int:
        """Return the bytes of GPU memory that a batch of ``tokens`` tokens takes; 0 on a CPU."""
        return batch_memory(self.device, self._run_trial_batch, tokens)

    def _run_trial_batch(self, tokens: int) -> None:
        """Run one batch of about ``tokens`` tokens, so that its memory can be measured."""
        probe = _probe_batch(self.model)
        copies = tokens // len(probe.values)
        self.states(Ragged.from_lengths(np.tile(probe.values, copies), np.tile(probe.lengths, copies)))


def load(card: ModelCard, *, autocast: bool = True, adapter: str | None = None) -> TorchRuntime:
    """Load a model's weights on the best device, converted once to the dtype that it runs best."""
    device = default_device()
    dtype = compute_dtype(device, autocast=autocast)
    if device.type == "cpu":
        limit_kernel_caches()
    model = load_weights(card.path, dtype, adapter).to(device)
    if device.type == "cpu":
        keep_freed_memory()
        pack_linears(model, dtype)
    return TorchRuntime(model, device, dtype)


def _forward(
    model: nn.Module, layout: _Layout, ids: Ragged, device: torch.device, side: Side
) -> tuple[Tensor, Tensor]:
    """Run the model. Lengths are handled on the host, because reading them from a GPU would wait for it."""
    offsets = to_device(ids.offsets, device)
    if layout.packed:
        return _forward_packed(model, layout, ids, device), offsets
    return _forward_padded(model, layout, ids, device, side), offsets


def _forward_packed(model: nn.Module, layout: _Layout, ids: Ragged, device: torch.device) -> Tensor:
    inputs = {"input_ids": _send_ids(ids.values[None], device)}
    if layout.first_position is not None:
        inputs["position_ids"] = _send_ids(_positions(ids, layout.first_position).values[None], device)
    with attention.packed(attention.Packing(ids.offsets, device)):
        states: Tensor = model(**inputs)[0][0]
        return states


def _forward_padded(model: nn.Module, layout: _Layout, ids: Ragged, device: torch.device, side: Side) -> Tensor:
    if layout.first_position is None:
        side = "right"  # a model that counts positions itself counts padding on the left
    mask = ids.mask(side)
    inputs = {"input_ids": _send_ids(ids.pad(side=side), device), "attention_mask": _send_ids(mask, device)}
    if layout.first_position is not None:
        inputs["position_ids"] = _send_ids(_positions(ids, layout.first_position).pad(side=side), device)
    states: Tensor = model(**inputs)[0].flatten(0, 1)
    return states.index_select(0, to_device(np.flatnonzero(mask), device))


def _send_ids(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """Copy integers to the device as int32, which is half the bytes, and widen them there to int64."""
    return to_device(array.astype(np.int32, copy=False), device).long()


def _positions(ids: Ragged, first_position: int) -> Ragged:
    """Return position ids.

    In models whose positions start after the padding id, a "<pad>" in the text has the padding id as its
    position and is not counted: with padding id 1 the tokens [5, 1, 6] have the positions [2, 1, 3].
    """
    positions, pad = ids.positions_in_rows() + first_position, first_position - 1
    is_pad = ids.values == pad
    if first_position == 0 or not is_pad.any():
        return Ragged(positions, ids.offsets)
    pads_before = np.concatenate([[0], np.cumsum(is_pad)])
    pads_in_row = pads_before[1:] - np.repeat(pads_before[ids.offsets[:-1]], ids.lengths)
    return Ragged(np.where(is_pad, pad, positions - pads_in_row), ids.offsets)


def _find_layout(model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[_Layout, int]:
    """Return the fastest layout in which each row has the states that it has alone, and their dimension."""
    published_attention = _attention_name(model)
    probe, expected = _run_probe_row_by_row(model, device)
    if not expected.isfinite().all():
        raise ModelError(
            f"{type(model).__name__} gives NaN or infinite states: its weights are damaged, or overflow {dtype}"
        )
    for layout in _possible_layouts(model):
        if not _set_attention(model, attention.NAME if layout.packed else published_attention):
            continue
        states = _try_layout(model, layout, probe, device)
        if states is not None and states_agree(states, expected, dtype):
            return layout, expected.shape[1]
    raise ModelError(
        f"{type(model).__name__} gives a row different states in a batch than alone, packed and padded, so it "
        "cannot run in batches and is not supported"
    )


def _run_probe_row_by_row(model: nn.Module, device: torch.device) -> tuple[Ragged, Tensor]:
    """Return a small batch and its states, computed for each row alone in the published model."""
    try:
        probe = _probe_batch(model)
        with torch.inference_mode():
            rows = [model(input_ids=_send_ids(probe.row(i)[None], device))[0][0] for i in range(len(probe))]
            return probe, torch.cat(rows).float()
    except Exception as error:
        if is_oom(error):
            raise
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ModelError(
            f"{type(model).__name__} gives no states for token ids alone ({why}); such models are not supported"
        ) from error


def _probe_batch(model: nn.Module) -> Ragged:
    """Return a few short rows of random token ids, none of them the padding id."""
    vocabulary, pad = int(cast("Any", model.config).vocab_size), getattr(model.config, "pad_token_id", None)
    ids = np.random.default_rng(0).integers(0, vocabulary, sum(_PROBE_LENGTHS)).astype(np.int32)
    ids[ids == pad] = (ids[ids == pad] + 1) % vocabulary
    return Ragged.from_lengths(ids, _PROBE_LENGTHS)


def _possible_layouts(model: nn.Module) -> Iterator[_Layout]:
    """Yield the layouts that the model may run in, fastest first."""
    first_positions: list[int | None] = [None]
    if "position_ids" in inspect.signature(model.forward).parameters:
        pad = getattr(model.config, "pad_token_id", None)
        first_positions = [0, None] if pad is None else [0, pad + 1, None]
    for packed in (True, False):
        for first_position in first_positions:
            # Without position ids a packed batch would count positions across rows.
            if not (packed and first_position is None):
                yield _Layout(packed, first_position)


def _try_layout(model: nn.Module, layout: _Layout, probe: Ragged, device: torch.device) -> Tensor | None:
    """Return the probe's states in this layout, or None if the model cannot run in it."""
    calls_before = attention.call_count()
    try:
        with torch.inference_mode():
            states, _ = _forward(model, layout, probe, device, "right")
    except (attention.CannotPackError, RuntimeError, IndexError, TypeError, ValueError):
        return None
    if layout.packed and attention.call_count() == calls_before:
        return None  # the model does not use our attention, so its tokens attended to other rows
    return states


def _attention_name(model: nn.Module) -> str:
    return str(cast("Any", model.config)._attn_implementation)


def _set_attention(model: nn.Module, name: str) -> bool:
    """Let the model use this implementation of attention; return whether it does."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if name == attention.NAME:
        ALL_ATTENTION_FUNCTIONS.register(name, attention.packed_attention)
    try:
        cast("Any", model).set_attn_implementation(name)
    except (ValueError, ImportError):
        return False
    return _attention_name(model) == name
