"""The model without the engine: a decoder, and MiniLM with ``torch.compile`` and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from nemo_embed_dask.device import number_types
from nemo_embed_dask.models.card import ModelCard, read_card
from nemo_embed_dask.models.locate import find_model
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes.torch import TorchRuntime

from . import DEVICE, SETTINGS, Result, Run, Work, clocked, flops, matmul_rate, measured

QWEN3 = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151_936,
}
PASSES = 5


def random_rows(rng: np.random.Generator, tokens: int, length: int, vocabulary: int) -> Ragged:
    """Return about ``tokens`` random ids in rows of ``length / 2`` to ``length``, longest row first."""
    lengths = np.sort(rng.integers(length // 2, length + 1, max(2, tokens * 4 // (3 * length))))[::-1]
    ids = rng.integers(1000, vocabulary, int(lengths.sum())).astype(np.int32)
    return Ragged.from_lengths(ids, lengths)


def repeated(states: Callable[[], torch.Tensor], config: Any, lengths: np.ndarray, **details: Any) -> Work:
    """Return work that computes token states five times and reports the median time."""

    def work(_: list[str]) -> Result:
        first = states().clone()
        seconds = float(np.median([clocked(states) for _ in range(PASSES)]))
        return Result(first.float(), seconds, {"flops": flops(config, lengths)} | details)

    return work


def decoder(scale: float) -> Iterator[Run]:
    """Compare our packed runtime with padded SDPA on a random model of Qwen3-0.6B's shape."""
    import transformers

    rate, rng = matmul_rate(), np.random.default_rng(0)
    tiny = {"num_hidden_layers": 2} if DEVICE.type == "cpu" else {}
    config = transformers.Qwen3Config(**(QWEN3 | tiny), use_cache=False)
    model = transformers.AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model = model.eval().to(DEVICE)
    for length in (32, 256, 1024):
        ids = random_rows(rng, int(65_536 * scale), length, 150_000)
        block = torch.from_numpy(ids.pad()).long().to(DEVICE)
        mask = torch.from_numpy(ids.mask()).to(DEVICE)
        common = {"corpus": f"{length} tokens", "rows": len(ids), "tokens": len(ids.values)}

        def padded(block: torch.Tensor = block, mask: torch.Tensor = mask) -> torch.Tensor:
            with torch.inference_mode():
                return model(input_ids=block, attention_mask=mask.long())[0]

        model.set_attn_implementation("sdpa")
        expected = padded()[mask].float()
        plain = repeated(padded, config, ids.lengths)
        yield measured(common | {"peer": "transformers, padded SDPA"}, lambda w=plain: w, [], rate=rate)
        runtime = TorchRuntime(model, DEVICE, torch.bfloat16)
        ours = repeated(lambda r=runtime, i=ids: r.states(i)[0], config, ids.lengths, packed=not runtime.pads)
        run = common | {"peer": "ours, model alone"}
        yield measured(run, lambda w=ours: w, [], rate=rate, expected=expected)


def compilation(scale: float) -> Iterator[Run]:
    """Compare MiniLM on one batch in eager mode, under ``torch.compile`` and as a CUDA graph.

    The graph is captured for exactly this batch, so its speed is an upper bound for batches of any shape.
    """
    rate, rng = matmul_rate(), np.random.default_rng(0)
    card = read_card(find_model(SETTINGS.model))
    for length, tokens in ((32, 4096), (32, 131_072), (256, 16_384), (256, 131_072)):
        ids = random_rows(rng, max(2 * length, int(tokens * scale)), length, 30_000)
        config, expected = _load_runtime(card).model.config, _load_runtime(card).states(ids)[0].float()
        common = {"corpus": f"{tokens} tokens in rows of {length}", "rows": len(ids), "tokens": len(ids.values)}
        for name, make in _VARIANTS.items():
            load = partial(_load_variant, card, make, ids, config)
            yield measured(common | {"peer": name}, load, [], rate=rate, expected=expected)


def _load_variant(card: ModelCard, make: Callable[..., Any], ids: Ragged, config: Any) -> Work:
    runtime = _load_runtime(card)
    return repeated(make(runtime, ids), config, ids.lengths, packed=not runtime.pads)


def _load_runtime(card: ModelCard) -> TorchRuntime:
    """Load the model again, without packed weights on a CPU: packed weights cannot be compiled."""
    dtype = number_types(DEVICE, autocast=True, stored=torch.float32)[0]
    return TorchRuntime(load_weights(card.path, dtype).to(DEVICE), DEVICE, dtype)


def _eager(runtime: TorchRuntime, ids: Ragged) -> Callable[[], torch.Tensor]:
    return lambda: runtime.states(ids)[0]


def _compiled(runtime: TorchRuntime, ids: Ragged) -> Callable[[], torch.Tensor]:
    """Compile the model except its attention, whose row offsets a compiler cannot trace.

    It runs on two sizes, so that torch compiles it for any size.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64  # each layer is compiled separately, between the attentions
    ALL_ATTENTION_FUNCTIONS.register(attention.NAME, torch.compiler.disable(attention.packed_attention))
    runtime.model = torch.compile(runtime.model)
    for rows in (len(ids) // 2, len(ids)):
        runtime.states(ids.take(np.arange(max(1, rows))))
    return _eager(runtime, ids)


def _graph(runtime: TorchRuntime, ids: Ragged) -> Callable[[], torch.Tensor]:
    """Capture the forward pass only: ids, positions and offsets are already on the GPU."""
    if DEVICE.type != "cuda":
        raise NotImplementedError("CUDA graphs need a GPU")
    positions = ids.positions_in_rows() + (runtime._layout.first_position or 0)
    inputs = {
        "input_ids": torch.from_numpy(ids.values[None]).long().to(DEVICE),
        "position_ids": torch.from_numpy(positions[None]).to(DEVICE),
    }
    packing = attention.Packing(ids.offsets, DEVICE)
    _ = packing.cu_seqlens, packing.longest

    def forward() -> torch.Tensor:
        with torch.inference_mode(), attention.packed(packing):
            return runtime.model(**inputs)[0][0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = forward()

    def replay() -> torch.Tensor:
        graph.replay()
        return out

    return replay


_VARIANTS = {"eager": _eager, "torch.compile": _compiled, "CUDA graph, fixed shapes": _graph}
