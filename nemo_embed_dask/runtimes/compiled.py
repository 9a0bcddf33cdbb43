"""A model compiled by ``torch.compile``, used where it gives the same states in less time.

Compiling joins small operations, such as an activation with the product before it, so that a GPU reads and
writes memory less often. It happens once, at load: a batch for which the model would have to be compiled again
runs in the plain model. If anything fails, a warning says why, and the plain model is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..device import is_oom, set_threads, wait_for_stream
from ..errors import ModelError, type_and_message
from ..models.notices import warn_once
from ..models.token_states import token_states
from ..ragged import Ragged
from .layouts import Layout, describe, forward, make_probe
from .model_state import ModelState
from .probe import LENGTHS, states_agree

# The lengths of the rows of two batches that a model is tried and timed with, of about 8,000 tokens each.
_SHORT, _LONG = (16, 9, 13) * 210, (256, 140, 200) * 14
# How often each batch is timed, and the forward passes that are timed at once, without waiting between them.
_ROUNDS, _PASSES = 5, 3

Model = Callable[..., Any]


def compile_if_faster(model: nn.Module, layout: Layout, device: torch.device, dtype: torch.dtype) -> Model:
    """Return the model, compiled if that works and is faster. It takes about half a minute."""
    state = ModelState(model)
    try:
        with torch.inference_mode():
            compiled = CompiledModel(model, layout, device, dtype)
            batches = [make_probe(model, lengths) for lengths in (_SHORT, _LONG)]
            faster = is_faster(compiled, model, layout, batches, device)
        if state.restore():
            raise ModelError("it changes itself in a forward pass")
    except Exception as error:  # noqa: BLE001 - compilers raise errors of any type
        _warn(model, _reason(error))
        state.restore()
        return model
    return compiled if faster else model


class CompiledModel:
    """A model that is compiled once, for batches of any size. It is called like the model.

    Raises
    ------
    ModelError
        The compiled model has other states than the model.
    Exception
        Of any type, from compiling.
    """

    def __init__(self, model: nn.Module, layout: Layout, device: torch.device, dtype: torch.dtype) -> None:
        self._model, self._layout, self._device, self._dtype = model, layout, device, dtype
        # torch compiles once more for sizes of 1, and for another number of threads.
        self._sizes_of_1, self._threads = (layout.packed, False), torch.get_num_threads()

        def states(**inputs: Tensor) -> Tensor:
            return token_states(model(**inputs))

        self._compiled = torch.compile(states, dynamic=True)
        with torch.compiler.set_stance("default"):
            for lengths in (_SHORT, _LONG):
                self._try(make_probe(model, lengths))
        with torch.compiler.set_stance("fail_on_recompile"):
            self._try(make_probe(model, LENGTHS))

    def _try(self, ids: Ragged) -> None:
        states = forward(self._compiled, self._layout, ids, self._device)
        if not self._agrees(states, ids):
            raise ModelError("the compiled model has other states than the model")

    def _agrees(self, states: Tensor, ids: Ragged) -> bool:
        expected = forward(self._model, self._layout, ids, self._device)
        return states_agree(states, expected, self._dtype)

    def __call__(self, **inputs: Tensor) -> Any:
        """Run the model, without compiling it again."""
        if tuple(size == 1 for size in inputs["input_ids"].shape) != self._sizes_of_1:
            return self._model(**inputs)
        set_threads(self._threads)
        try:
            with torch.compiler.set_stance("fail_on_recompile"):
                return self._compiled(**inputs)
        except Exception as error:
            if is_oom(error):
                raise
            states = self._model(**inputs)  # raises an error that is not the compiler's
            _warn(self._model, _reason(error))
            return states

    def model_for(self, ids: Ragged) -> Model:
        """Return itself if these rows have the states that the model gives them, else the model."""
        if self._agrees(forward(self, self._layout, ids, self._device), ids):
            return self
        _warn(self._model, f"it has other states for {ids.lengths.max()} tokens")
        return self._model


def is_faster(
    first: Model, second: Model, layout: Layout, batches: Sequence[Ragged], device: torch.device
) -> bool:
    """Return whether the first of two models takes less time for these batches."""
    seconds = np.array(
        [
            [[_seconds(model, layout, ids, device) for ids in batches] for model in (first, second)]
            for _ in range(_ROUNDS)
        ]
    )
    of_first, of_second = np.median(seconds, axis=0).sum(axis=1)
    return bool(of_first < of_second)


def _seconds(model: Model, layout: Layout, ids: Ragged, device: torch.device) -> float:
    wait_for_stream(device)
    start = time.perf_counter()
    for _ in range(_PASSES):
        forward(model, layout, ids, device)
    wait_for_stream(device)
    return time.perf_counter() - start


def _warn(model: nn.Module, reason: str) -> None:
    name = describe(model)
    warn_once("compile", name, message=f"{name} runs without torch.compile: {reason}")


def _reason(error: Exception) -> str:
    """Return the error's type and message; that of a backend is inside of torch's own."""
    return type_and_message(getattr(error, "inner_exception", error))
