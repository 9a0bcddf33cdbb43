"""How a batch is given to a transformers model, packed or padded, and which of the two is right for it.

Which layout works, and with which position ids, is tried and not looked up: a few short rows must have the same
states in a batch as alone in the published model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..device import is_oom, to_device
from ..device_ragged import DeviceRagged
from ..errors import ModelError, type_and_message
from ..models.names import model_name
from ..models.remote_code import is_custom
from ..models.token_states import token_states
from ..ragged import Ragged
from . import packed_attention as attention
from . import tables
from .guards import checked
from .model_state import ModelState
from .probe import LENGTHS, probe_batch, states_agree, states_distance


class CannotRunError(ModelError):
    """The model fails in its number type, or its states are not finite, or depend on the batch."""


class Layout(NamedTuple):
    """How a batch is given to a model.

    ``packed``: rows end to end, else padded. ``first_position``: the position id of a row's first token; None
    if the model gets no position ids.
    """

    packed: bool
    first_position: int | None


def forward(model: Callable[..., Any], layout: Layout, ids: Ragged, device: torch.device) -> Tensor:
    """Run the model. Lengths are handled on the host, because reading them from a GPU would wait for it."""
    run = _forward_packed if layout.packed else _forward_padded
    return run(model, layout, ids, device)


def forward_alone(model: nn.Module, row: Ragged, device: torch.device) -> Tensor:
    """Run one row, and give a model of transformers nothing but its token ids."""
    inputs = {"input_ids": _send_ids(row.values[None], device)}
    if is_custom(model):  # which may need a mask; sentence-transformers always gives one
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return token_states(model(**inputs))[0]


def _forward_packed(model: Callable[..., Any], layout: Layout, ids: Ragged, device: torch.device) -> Tensor:
    inputs = {"input_ids": _send_ids(ids.values[None], device)}
    if layout.first_position is not None:
        inputs["position_ids"] = _send_ids(_positions(ids, layout.first_position).values[None], device)
    with attention.packed(attention.Packing(ids.offsets, device)):
        return token_states(model(**inputs))[0]


def _forward_padded(model: Callable[..., Any], layout: Layout, ids: Ragged, device: torch.device) -> Tensor:
    """Run padded on the right: recurrent layers would read padding on the left, before the text."""
    inputs = {"input_ids": _send_ids(ids.pad(), device), "attention_mask": _send_ids(ids.mask(), device)}
    if layout.first_position is not None:
        inputs["position_ids"] = _send_ids(_positions(ids, layout.first_position).pad(), device)
    states = token_states(model(**inputs)).flatten(0, 1)
    return states.index_select(0, to_device(ids.places_in_block(), device))


def _send_ids(array: np.ndarray[Any, Any] | Tensor, device: torch.device) -> Tensor:
    """Copy integers to the device as int32, which is half the bytes, and widen them there to int64."""
    narrow = array if isinstance(array, Tensor) else array.astype(np.int32, copy=False)
    return to_device(narrow, device).long()


def _positions(ids: Ragged, first_position: int) -> Ragged:
    """Return position ids.

    In models whose positions start after the padding id, a "<pad>" in the text has the padding id as its
    position and is not counted: with padding id 1 the tokens [5, 1, 6] have the positions [2, 1, 3].
    """
    positions, pad = ids.positions_in_rows() + first_position, first_position - 1
    is_pad = ids.values == pad
    if isinstance(ids, DeviceRagged):
        return replace(ids, values=_without_pads(positions, is_pad, first_position))
    if first_position == 0 or not is_pad.any():
        return Ragged(positions, ids.offsets)
    pads_before = np.concatenate([[0], np.cumsum(is_pad)])
    pads_in_row = pads_before[1:] - np.repeat(pads_before[ids.offsets[:-1]], ids.lengths)
    return Ragged(np.where(is_pad, pad, positions - pads_in_row), ids.offsets)


def _without_pads(positions: Tensor, is_pad: Tensor, first_position: int) -> Tensor:
    """Do the same on a device, where asking whether there is a padding id would wait."""
    if first_position == 0:
        return positions
    row_starts = torch.arange(len(positions), device=positions.device) - (positions - first_position)
    pads_before = functional.pad(is_pad.cumsum(0), (1, 0))
    pads_in_row = pads_before[1:] - pads_before[row_starts]
    return torch.where(is_pad, first_position - 1, positions - pads_in_row)


def describe(model: nn.Module) -> str:
    """Return the model's class and name, for messages."""
    path = getattr(model, "name_or_path", "")
    return f"{type(model).__name__} of {model_name(Path(path))!r}" if path else type(model).__name__


def find_layout(model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[Layout, int]:
    """Return the fastest layout in which each row has the states that it has alone, and their dimension.

    Only the implementation of attention is changed in the model.
    """
    published_attention, state = attention_name(model), ModelState(model)
    probe, expected = _run_probe_row_by_row(model, state, device)
    if not expected.isfinite().all():
        raise CannotRunError(
            f"{describe(model)} gives NaN or infinite states: its weights are damaged, or overflow {dtype}; "
            "fetch the model again, or use another one"
        )
    for packed in (True, False):
        if not set_attention(model, attention.NAME if packed else published_attention):
            continue
        batch, wanted = _exceed_positions(model, probe, expected) if packed else (probe, expected)
        distances = {}
        for layout in _possible_layouts(model, packed=packed):
            states = try_layout(model, layout, batch, device)
            state.restore()
            if states is not None and states_agree(states, wanted, dtype):
                distances[layout] = states_distance(states, wanted)
        if distances:
            return _closest(distances), expected.shape[1]
    raise CannotRunError(
        f"{describe(model)} gives a row different states in a batch than alone, packed and padded, so it "
        "cannot run in batches; use another model"
    )


def _run_probe_row_by_row(model: nn.Module, state: ModelState, device: torch.device) -> tuple[Ragged, Tensor]:
    """Return a small batch and its states, computed for each row alone in the published model."""
    rows = []
    try:
        probe = make_probe(model)
        with torch.inference_mode():
            for i in range(len(probe)):
                rows.append(checked(device, partial(forward_alone, model, probe.take([i]), device)))
                state.restore()
        if [row.shape[:-1] for row in rows] != [(length,) for length in probe.lengths]:
            raise ValueError("its first output is not one vector per token")
        return probe, torch.cat(rows).float()
    except Exception as error:
        if is_oom(error):
            raise
        advice = "use another model"
        if is_custom(model):
            advice = "its code may need autocast=False, or the version of transformers that it was written for"
        raise CannotRunError(
            f"{describe(model)} gives no states for token ids alone ({type_and_message(error)}); {advice}"
        ) from error


def make_probe(model: nn.Module, lengths: Sequence[int] = LENGTHS) -> Ragged:
    """Return rows of these lengths, or of the greatest length that the model can run in a batch."""
    limits = [limit for limit in (tables.position_count(model), tables.rope_limit(model)) if limit]
    longest = min([*limits, max(lengths)])
    pad = getattr(tables.text_config(model), "pad_token_id", None)
    return probe_batch(tables.vocabulary_size(model), pad, [min(length, longest) for length in lengths])


def _closest(distances: dict[Layout, float]) -> Layout:
    """Return the first layout that no other clearly beats.

    Wrong positions may change so little that it looks like rounding; rotary ones may be shifted.
    """
    least = max(min(distances.values()), 1e-9)
    return next(layout for layout, distance in distances.items() if distance < 4 * least)


def _exceed_positions(model: nn.Module, probe: Ragged, expected: Tensor) -> tuple[Ragged, Tensor]:
    """Repeat a batch until it has more tokens than a row may have, because some models count all of a batch."""
    copies = tables.counted_positions(model) // len(probe.values) + 1
    repeated = Ragged.from_lengths(np.tile(probe.values, copies), np.tile(probe.lengths, copies))
    return repeated, expected.repeat(copies, 1)


def _possible_layouts(model: nn.Module, *, packed: bool) -> list[Layout]:
    first_positions: list[int | None] = []
    if "position_ids" in inspect.signature(model.forward).parameters:
        pad = getattr(tables.text_config(model), "pad_token_id", None)
        first_positions = [0] if pad is None else [0, pad + 1]
    # Without position ids a packed batch would count positions across rows.
    return [Layout(packed, first) for first in (first_positions if packed else [*first_positions, None])]


def try_layout(model: nn.Module, layout: Layout, probe: Ragged, device: torch.device) -> Tensor | None:
    """Return the probe's states in this layout, or None if the model cannot run in it."""
    calls_before = attention.call_count()
    try:
        with torch.inference_mode():
            states = checked(device, partial(forward, model, layout, probe, device))
    except Exception as error:  # a model's own code may raise any type
        if is_oom(error):
            raise
        return None
    if layout.packed and attention.call_count() == calls_before:
        return None  # the model does not use our attention, so its tokens attended to other rows
    return states


def attention_name(model: nn.Module) -> str:
    """Return the name of the model's implementation of attention."""
    return str(getattr(model.config, "_attn_implementation", ""))


def set_attention(model: nn.Module, name: str) -> bool:
    """Let the model use this implementation of attention; return whether it does."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if name == attention.NAME:
        ALL_ATTENTION_FUNCTIONS.register(name, attention.packed_attention)
    with suppress(ValueError, ImportError, AttributeError):  # a model's own code may not have it
        cast("Any", model).set_attn_implementation(name)
    return attention_name(model) == name
