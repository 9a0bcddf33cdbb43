"""The torch runtime: transformers models, from token ids to token states.

A model runs packed (all rows end to end, without padding) if its attention goes through transformers'
interface, else padded. Which of the two works, and with which position ids, is tried at load and not looked up
in a table: a few short rows must have the same states in a batch as alone in the published model. Longer rows
are tried when they first occur (`probe.BatchLengths`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..device import (
    batch_memory,
    default_device,
    limit_kernel_caches,
    number_types,
    release_memory,
    to_device,
    token_budget,
    type_name,
)
from ..errors import ModelError
from ..models.card import ModelCard
from ..models.stored_type import stored_type
from ..models.weights import load_weights
from ..ragged import Ragged
from . import loading_lock, tables, weights_lock
from . import packed_attention as attention
from .compiled import CompiledModel, compile_if_faster
from .cpu_linear import pack_linears
from .float16 import overflow_probe, treats_float16
from .guards import checked
from .layouts import (
    CannotRunError,
    attention_name,
    describe,
    find_layout,
    forward,
    forward_alone,
    make_probe,
    set_attention,
    try_layout,
)
from .model_state import ModelState
from .probe import BatchLengths, states_agree


class TorchRuntime:
    """A transformers model on one device. Implements `runtimes.Runtime`.

    ``load_next``: loads the model in the next number type; None if there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        load_next: Callable[[], TorchRuntime] | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.number_type = type_name(dtype)
        self._load_next = load_next
        self._wider: TorchRuntime | None = None
        self.max_length = tables.position_count(model)
        self._published_attention = attention_name(model)
        self._layout, self.dimension = find_layout(model, device, dtype)
        self.vocabulary = tables.vocabulary_size(model)
        self._state = ModelState(model)
        self._changes_itself = False
        self._model_for_batches: Callable[..., Any] = model
        hints = tables.length_hints(cast("Any", model.config).to_dict())
        self._lengths = BatchLengths(self._agree, hints, tables.rope_limit(model))
        self.pads = not self._layout.packed
        self.budget = token_budget(device, self._run_trial_batch)
        self.weight_bytes = sum(tensor.nbytes for tensor in model.parameters())

    def compile(self) -> None:
        """Compile the model for batches, if that is faster and gives the same states."""
        self._model_for_batches = compile_if_faster(self.model, self._layout, self.device, self.dtype)
        self.budget = token_budget(self.device, self._run_trial_batch)

    def states(self, ids: Ragged) -> tuple[Tensor, Tensor]:
        """Return the token states of a batch.

        Parameters
        ----------
        ids : Ragged of int32
            Token ids; no row is empty.

        Returns
        -------
        states : Tensor, shape (total, dimension), on the device
        offsets : Tensor of int64, shape (n + 1,), on the device
        """
        with torch.inference_mode():
            parts = [
                self._run_alone(part) if alone else self._run_together(part)
                for part, alone in self._lengths.divide(ids)
            ]
            states = parts[0] if len(parts) == 1 else torch.cat(parts)
            return states, to_device(ids.offsets, self.device)

    def _run_together(self, ids: Ragged) -> Tensor:
        if self._changes_itself:
            self._state.restore()
        return forward(self._model_for_batches, self._layout, ids, self.device)

    def _run_alone(self, row: Ragged) -> Tensor:
        """Run one row as the published model does, from its state after loading."""
        self._state.restore()
        if self._layout.packed:
            set_attention(self.model, self._published_attention)
        try:
            return forward_alone(self.model, row, self.device)
        finally:
            self._state.restore()
            if self._layout.packed:
                set_attention(self.model, attention.NAME)

    def fits_float16(self) -> bool:
        """Return whether the states of a text are finite in float16, and are not if a value overflows."""
        if treats_float16(self.model):
            return False
        with torch.inference_mode():
            return bool(self._run_each_alone(overflow_probe(self.model)).isfinite().all())

    def load_wider(self) -> TorchRuntime | None:
        """Return the model in the next number type, of greater range, loaded once; None if there is none."""
        with loading_lock, weights_lock:
            if self._wider is None and self._load_next is not None:
                self._wider = self._load_next()
            return self._wider

    def _agree(self, lengths: Sequence[int]) -> bool:
        """Return whether rows of these lengths have the same states in a batch as alone."""
        probe = make_probe(self.model, lengths)
        try:
            expected = self._run_each_alone(probe)
            states = try_layout(self.model, self._layout, probe, self.device)
            if states is not None and states_agree(states, expected, self.dtype):
                self._check_compiled(probe)
                return True
            # Rows with NaN fail one by one when they run alone.
            is_finite = bool(expected.isfinite().all())
            if is_finite and not states_agree(self._run_each_alone(probe), expected, self.dtype):
                raise ModelError(
                    f"{describe(self.model)} gives the same {max(lengths)} tokens different states in each "
                    "run; pass a smaller max_seq_length, or use another model"
                )
            return False
        finally:
            self._changes_itself |= self._state.restore()
            if self._changes_itself:
                self._model_for_batches = self.model

    def _check_compiled(self, probe: Ragged) -> None:
        if isinstance(self._model_for_batches, CompiledModel):
            self._model_for_batches = self._model_for_batches.model_for(probe)

    def _run_each_alone(self, ids: Ragged) -> Tensor:
        runs = (partial(self._run_alone, ids.take([row])) for row in range(len(ids)))
        return torch.cat([checked(self.device, run) for run in runs])

    def batch_memory(self, tokens: int) -> int:
        """Return the bytes of GPU memory that a batch of ``tokens`` tokens takes; 0 on a CPU."""
        return batch_memory(self.device, self._run_trial_batch, tokens)

    def _run_trial_batch(self, tokens: int) -> None:
        """Run one batch of about ``tokens`` tokens, so that its memory can be measured."""
        probe = make_probe(self.model)
        copies = tokens // len(probe.values)
        self.states(Ragged.from_lengths(np.tile(probe.values, copies), np.tile(probe.lengths, copies)))


def load(card: ModelCard, *, autocast: bool = True, compiled: bool = False) -> TorchRuntime:
    """Load a model's weights on the best device, converted once to the number type that it runs best.

    ``compiled``: on a GPU, compile the model for batches if that is faster.
    """
    runtime = _load(card, autocast=autocast)
    if compiled and runtime.device.type != "cpu":
        runtime.compile()
    return runtime


def _load(card: ModelCard, *, autocast: bool) -> TorchRuntime:
    device = default_device()
    types = number_types(device, autocast=autocast, stored=partial(stored_type, card.weights_path))
    return _load_first(card, device, types)


def _load_first(card: ModelCard, device: torch.device, types: Sequence[torch.dtype]) -> TorchRuntime:
    """Load the model in the first type in which it runs; the error of the last type is raised."""
    dtype, *others = types
    if not others:
        return _load_in(card, device, dtype)
    with suppress(CannotRunError):
        runtime = _load_in(card, device, dtype, partial(_load_first, card, device, others))
        if dtype != torch.float16 or runtime.fits_float16():
            return runtime
        del runtime
    gc.collect()  # the runtime is part of a reference cycle
    release_memory(device)
    return _load_first(card, device, others)


def _load_in(
    card: ModelCard,
    device: torch.device,
    dtype: torch.dtype,
    load_next: Callable[[], TorchRuntime] | None = None,
) -> TorchRuntime:
    load_model = partial(load_weights, card.weights_path, dtype, card.adapter, code=card.code)
    if device.type != "cpu":
        return TorchRuntime(load_model().to(device), device, dtype, load_next)
    limit_kernel_caches()
    model = load_model()
    try:
        return TorchRuntime(_copy_weights(pack_linears(model, dtype)), device, dtype, load_next)
    except CannotRunError:
        # Recurrent models read the weights of their linear layers, which packed layers do not have.
        return TorchRuntime(_copy_weights(load_model()), device, dtype, load_next)


def _copy_weights(model: nn.Module) -> nn.Module:
    """Copy the weights that are not packed into memory of the process; packing copies the others.

    Weights that were not converted to another type are part of a mapped file. If the file is written again,
    they change; if it becomes shorter, the process is killed.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
