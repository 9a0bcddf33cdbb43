"""Ways to run MiniLM on prepared token ids: eager, compiled, and as a CUDA graph, in batches of several sizes.

A CUDA graph has fixed shapes, so that its batches are padded to the budget with rows that are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import find_model
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes.torch import TorchRuntime

from . import DEVICE, SETTINGS, Options, Run
from .fixed_shape import FixedShape
from .measure import Result, cosines, repeat, speeds
from .models import random_rows
from .rates import flops

TOKENS = 131_072
# Tokens whose states are compared with those of the model in float32.
COMPARED = 4096
# Also the time of compiling, once per number type.
START_S = 30.0


class Case(NamedTuple):
    """Rows of about ``length`` tokens, in batches of at most ``budget`` tokens."""

    dtype: str
    length: int
    budget: int


_CASES = [Case("float16", length, budget) for length in (256, 32) for budget in (TOKENS, 32_768, 16_384)]
_CASES += [Case("bfloat16", length, TOKENS) for length in (256, 32)]
CASES = {f"{c.dtype}, rows of {c.length}, batches of {c.budget:,}": c for c in _CASES}


def case_s(options: Options) -> float:
    """Return about how long one case takes. It is one fifth of other runs: nothing here is tokenized."""
    return 0.5 + options.seconds / 5


def split(ids: Ragged, budget: int) -> list[Ragged]:
    """Return the rows in batches of at most ``budget`` tokens, in the same order."""
    parts, first = [], 0
    while first < len(ids):
        last = int(np.searchsorted(ids.offsets, ids.offsets[first] + budget, side="right")) - 1
        parts.append(ids.take(np.arange(first, max(last, first + 1))))
        first = max(last, first + 1)
    return parts


@cache
def load_runtime(dtype: torch.dtype) -> TorchRuntime:
    """Load MiniLM, without packed weights on a CPU: packed weights cannot be compiled."""
    card = read_card(find_model(SETTINGS.model))
    return TorchRuntime(load_weights(card.path, dtype).to(DEVICE), DEVICE, dtype)


Forward = Callable[[Ragged], torch.Tensor]


def _eager(runtime: TorchRuntime, _batches: list[Ragged], _budget: int) -> Forward:
    return lambda ids: runtime.states(ids)[0]


def _compiled(runtime: TorchRuntime, batches: list[Ragged], budget: int) -> Forward:
    """Compile the model for all sizes, except its attention, whose row offsets a compiler cannot trace."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if runtime._model_for_batches is runtime.model:
        torch._dynamo.config.recompile_limit = 64  # each layer is compiled separately, between the attentions
        ALL_ATTENTION_FUNCTIONS.register(attention.NAME, torch.compiler.disable(attention.packed_attention))
        runtime._model_for_batches = torch.compile(runtime.model, dynamic=True)
    return _eager(runtime, batches, budget)


def _graph(runtime: TorchRuntime, batches: list[Ragged], budget: int) -> Forward:
    return FixedShape(runtime, batches, budget)


WAYS: dict[str, Callable[[TorchRuntime, list[Ragged], int], Any]] = {
    "eager": _eager,
    "torch.compile": _compiled,
    "CUDA graph, padded to the budget": _graph,
}


def jobs() -> dict[str, tuple[str, ...]]:
    """Return each way with all cases."""
    return dict.fromkeys(WAYS, tuple(CASES))


def load(peer: str, options: Options) -> Callable[[str], Run]:
    """Return a function that measures a way to run the model on a case."""
    return partial(_measure, WAYS[peer], options)


def _measure(way: Callable[..., Forward], options: Options, name: str) -> Run:
    case = CASES[name]
    tokens, budget = (max(2 * case.length, int(n * options.scale)) for n in (TOKENS, case.budget))
    ids = random_rows(np.random.default_rng(0), tokens, case.length, 30_000)
    batches = split(ids, budget)
    head = split(batches[0], COMPARED)[0]
    expected = load_runtime(torch.float32).states(head)[0].cpu().numpy()
    runtime = load_runtime(getattr(torch, case.dtype))
    forward = way(runtime, batches, budget)

    def work() -> Result:
        parts = [forward(batch)[: len(head.values)].clone() for batch in batches]
        return Result(parts[0])

    run, result = repeat(work, options.seconds / 5)
    found = result.vectors.float().cpu().numpy()
    operations = flops(load_runtime(torch.float32).model.config, ids.lengths)
    more: Run = {"computed_in": {case.dtype: len(ids)}, "packed": not runtime.pads, "batches": len(batches)}
    return run | more | cosines(found, expected) | speeds(len(ids), len(ids.values), run["seconds"], operations)
