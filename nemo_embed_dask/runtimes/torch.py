"""transformers models on torch: token ids in, token states out. Knows no text, no pooling, no dataframe.

A model runs packed (all rows end to end, no padding) where its attention goes through transformers'
interface, else padded. Which one, and how its positions count, is not looked up in a table but found out
at load: a few short rows must come out as they do alone, in a plain forward of the model as published.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..device import (
    batch_memory,
    bound_kernel_caches,
    compute_dtype,
    default_device,
    is_oom,
    keep_freed_memory,
    send,
    token_budget,
)
from ..errors import ModelError
from ..models.card import ModelCard
from ..models.weights import load_weights
from ..ragged import Ragged, Side
from . import packed_attention as attention
from .cpu_linear import pack_linears

# How far the states of a packed or padded row may be from those of the row alone: 1 - cosine.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
_PROBE_LENGTHS = (7, 3, 12, 3)


class _Way(NamedTuple):
    """How a model is run: ``packed`` or padded; ``shift``: its first position id, None to leave it out."""

    packed: bool
    shift: int | None


class TorchRuntime:
    """A transformers model on one device. Satisfies `runtimes.Runtime`."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self._way, self.dimension = _find_way(model, device, dtype)
        self.pads = not self._way.packed
        self.budget = token_budget(device, self._run_trial_batch)
        self.weight_bytes = sum(tensor.nbytes for tensor in model.parameters())

    def states(self, ids: Ragged, *, padding_side: Side = "right") -> tuple[Tensor, Tensor]:
        """Token states of some rows.

        Parameters
        ----------
        ids : Ragged of int32
            Token ids; no row is empty.
        padding_side : "left" or "right"
            Where padding goes, if this model has to be padded; its states do not depend on it.

        Returns
        -------
        states : Tensor, shape (total, dimension), on the device
        offsets : Tensor of int64, shape (n + 1,), on the device
        """
        with torch.inference_mode():
            return _forward(self.model, self._way, ids, self.device, padding_side)

    def batch_memory(self, tokens: int) -> int:
        """Return the bytes of GPU memory that a batch of ``tokens`` tokens takes; 0 on a CPU."""
        return batch_memory(self.device, self._run_trial_batch, tokens)

    def _run_trial_batch(self, tokens: int) -> None:
        """Run one batch of about ``tokens`` tokens, so that its memory can be measured."""
        rows = tokens // sum(_PROBE_LENGTHS)
        probe = _probe(self.model)
        self.states(Ragged.from_lengths(np.tile(probe.values, rows), np.tile(probe.lengths, rows)))


def load(card: ModelCard, *, autocast: bool = True, adapter: str | None = None) -> TorchRuntime:
    """Load a model directory's weights, converted once to the dtype that the hardware runs best."""
    device = default_device()
    dtype = compute_dtype(device, autocast=autocast)
    if device.type == "cpu":
        bound_kernel_caches()
    model = load_weights(card.path, dtype, adapter).to(device)
    if device.type == "cpu":
        keep_freed_memory()
        pack_linears(model, dtype)
    return TorchRuntime(model, device, dtype)


def _send(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """To the device as int32, half the bytes; int64 there, as embeddings and gathers want it."""
    return send(array.astype(np.int32, copy=False), device).long()


def _forward(
    model: nn.Module, way: _Way, ids: Ragged, device: torch.device, side: Side
) -> tuple[Tensor, Tensor]:
    """Nothing in here may wait for a GPU: all that depends on lengths is worked out on the host."""
    offsets = send(ids.offsets, device)
    if way.packed:
        inputs = {"input_ids": _send(ids.values[None], device)}
        if way.shift is not None:
            inputs["position_ids"] = _send(_positions(ids, way.shift).values[None], device)
        with attention.packed(attention.Packing(ids.offsets, device)):
            return model(**inputs)[0][0], offsets
    side = side if way.shift is not None else "right"
    mask = ids.mask(side)
    inputs = {"input_ids": _send(ids.pad(side=side), device), "attention_mask": _send(mask, device)}
    if way.shift is not None:
        inputs["position_ids"] = _send(_positions(ids, way.shift).pad(side=side), device)
    states = model(**inputs)[0].flatten(0, 1)
    return states.index_select(0, send(np.flatnonzero(mask), device)), offsets


def _positions(ids: Ragged, shift: int) -> Ragged:
    """Position ids; where they start behind the padding id, a text's own "<pad>" is not counted."""
    places, pad = ids.positions() + shift, shift - 1
    found = ids.values == pad
    if shift == 0 or not found.any():
        return Ragged(places, ids.offsets)
    seen = np.concatenate([[0], np.cumsum(found)])
    skipped = seen[1:] - np.repeat(seen[ids.offsets[:-1]], ids.lengths)
    return Ragged(np.where(found, pad, places - skipped), ids.offsets)


def _find_way(model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[_Way, int]:
    """The fastest way to run the model that gives each row the states it has alone."""
    published = _attention_name(model)
    try:
        probe = _probe(model)
        expected = _alone(model, probe, device)
    except Exception as error:
        if is_oom(error):
            raise
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ModelError(
            f"{type(model).__name__} gives no states for token ids alone ({why}); such models are not supported"
        ) from error
    if not expected.isfinite().all():
        raise ModelError(
            f"{type(model).__name__} gives NaN or infinite states: its weights are damaged, or overflow {dtype}"
        )
    with torch.inference_mode():
        for way in _ways(model):
            if not _set_attention(model, attention.NAME if way.packed else published):
                continue
            if _agrees(model, way, probe, device, expected, _TOLERANCE[dtype]):
                return way, expected.shape[1]
    raise ModelError(
        f"{type(model).__name__} gives a row other states in a batch than alone, packed and padded; "
        "it cannot be batched, so it is not supported"
    )


def _alone(model: nn.Module, probe: Ragged, device: torch.device) -> Tensor:
    """States ``[total, dimension]`` of rows that are run one by one, as the model is published."""
    with torch.inference_mode():
        rows = [model(input_ids=_send(probe.row(i)[None], device))[0][0] for i in range(len(probe))]
        return torch.cat(rows).float()


def _ways(model: nn.Module) -> list[_Way]:
    shifts: list[int | None] = [None]
    if "position_ids" in inspect.signature(model.forward).parameters:
        pad = getattr(model.config, "pad_token_id", None)
        shifts = [0, *([pad + 1] if pad is not None else []), None]
    packed = [_Way(True, shift) for shift in shifts if shift is not None]
    return packed + [_Way(False, shift) for shift in shifts]


def _probe(model: nn.Module) -> Ragged:
    vocabulary, pad = int(cast("Any", model.config).vocab_size), getattr(model.config, "pad_token_id", None)
    total = sum(_PROBE_LENGTHS)
    ids = np.random.default_rng(0).integers(0, vocabulary, total).astype(np.int32)
    ids[ids == pad] = (ids[ids == pad] + 1) % vocabulary
    return Ragged.from_lengths(ids, _PROBE_LENGTHS)


def _agrees(
    model: nn.Module, way: _Way, probe: Ragged, device: torch.device, expected: Tensor, tolerance: float
) -> bool:
    calls = attention.calls()
    try:
        states, _ = _forward(model, way, probe, device, "right")
    except (attention.CannotPackError, RuntimeError, IndexError, TypeError, ValueError):
        return False
    if way.packed and attention.calls() == calls:
        return False  # the model never asked our attention, so rows were mixed
    return bool((1 - cosine_similarity(states.float(), expected, dim=1)).max() < tolerance)


def _attention_name(model: nn.Module) -> str:
    return str(cast("Any", model.config)._attn_implementation)


def _set_attention(model: nn.Module, name: str) -> bool:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if name == attention.NAME:
        ALL_ATTENTION_FUNCTIONS.register(name, attention.packed_attention)
    try:
        cast("Any", model).set_attn_implementation(name)
    except (ValueError, ImportError):
        return False
    return _attention_name(model) == name
