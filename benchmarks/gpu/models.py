"""The model alone: a decoder of a real shape, and whether compiling or CUDA graphs would pay for MiniLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from nemo_embed_dask.device import compute_dtype
from nemo_embed_dask.models.card import ModelCard, read_card
from nemo_embed_dask.models.locate import find_model
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes.torch import TorchRuntime

from . import DEVICE, SETTINGS, Result, Run, Work, clocked, flops, matmul_rate, measured

QWEN3 = {
    "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_936,
}  # fmt: skip
PASSES = 5


def rows_of(rng: np.random.Generator, tokens: int, length: int, vocabulary: int) -> Ragged:
    """About so many tokens in rows of half to all of a length, longest first as a batch has them."""
    lengths = np.sort(rng.integers(length // 2, length + 1, max(2, tokens * 4 // (3 * length))))[::-1]
    ids = rng.integers(1000, vocabulary, int(lengths.sum())).astype(np.int32)
    return Ragged.from_lengths(ids, lengths)


def repeated(states: Callable[[], torch.Tensor], config: Any, lengths: np.ndarray, **about: Any) -> Work:
    """The median of five passes."""

    def work(_: list[str]) -> Result:
        made = [states().clone()]
        seconds = float(np.median([clocked(states) for _ in range(PASSES)]))
        return Result(made[0].float(), seconds, {"flops": flops(config, lengths)} | about)

    return work


def decoder(scale: float) -> Iterator[Run]:
    """Qwen3-0.6B's shape with random weights: ours packed, and plain transformers padded, under SDPA."""
    import transformers

    rate, rng = matmul_rate(), np.random.default_rng(0)
    tiny = {"num_hidden_layers": 2} if DEVICE.type == "cpu" else {}
    config = transformers.Qwen3Config(**(QWEN3 | tiny), use_cache=False)
    model = transformers.AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model = model.eval().to(DEVICE)
    for length in (32, 256, 1024):
        ids = rows_of(rng, int(65_536 * scale), length, 150_000)
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


def ways(scale: float) -> Iterator[Run]:
    """MiniLM's loop over one batch: eager, compiled, as a CUDA graph. Whether these pay decides what is built.

    The graph is of this very batch, its shapes fixed: more than batches of their own shapes could gain.
    """
    rate, rng = matmul_rate(), np.random.default_rng(0)
    card = read_card(find_model(SETTINGS.model))
    for length, tokens in ((32, 4096), (32, 131_072), (256, 16_384), (256, 131_072)):
        ids = rows_of(rng, max(2 * length, int(tokens * scale)), length, 30_000)
        config, expected = _fresh(card).model.config, _fresh(card).states(ids)[0].float()
        common = {"corpus": f"{tokens} tokens in rows of {length}", "rows": len(ids), "tokens": len(ids.values)}
        for name, make in _WAYS.items():
            run = common | {"peer": name}

            begin = partial(_begin, card, make, ids, config)
            yield measured(run, begin, [], rate=rate, expected=expected)


def _begin(card: ModelCard, make: Callable[..., Any], ids: Ragged, config: Any) -> Work:
    runtime = _fresh(card)
    return repeated(make(runtime, ids), config, ids.lengths, packed=not runtime.pads)


def _fresh(card: ModelCard) -> TorchRuntime:
    """A model of its own, its weights plain on a CPU too: laid out for it, they cannot be compiled."""
    dtype = compute_dtype(DEVICE, autocast=True)
    return TorchRuntime(load_weights(card.path, dtype).to(DEVICE), DEVICE, dtype)


def _eager(runtime: TorchRuntime, ids: Ragged) -> Callable[[], torch.Tensor]:
    return lambda: runtime.states(ids)[0]


def _compiled(runtime: TorchRuntime, ids: Ragged) -> Callable[[], torch.Tensor]:
    """Attention is left out: it asks where rows end, which a compiler cannot see. Two sizes, so that it is
    compiled for any."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64  # each layer is a frame of its own, between attentions
    ALL_ATTENTION_FUNCTIONS.register(attention.NAME, torch.compiler.disable(attention.packed_attention))
    runtime.model = torch.compile(runtime.model)
    for rows in (len(ids) // 2, len(ids)):
        runtime.states(ids.take(np.arange(max(1, rows))))
    return _eager(runtime, ids)


def _graph(runtime: TorchRuntime, ids: Ragged) -> Callable[[], torch.Tensor]:
    """The forward alone: ids, positions and offsets are on the card already."""
    if DEVICE.type != "cuda":
        raise NotImplementedError("CUDA graphs need a card")
    inputs = {
        "input_ids": torch.from_numpy(ids.values[None]).long().to(DEVICE),
        "position_ids": torch.from_numpy(ids.positions()[None] + (runtime._way.shift or 0)).to(DEVICE),
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


_WAYS = {"eager": _eager, "torch.compile": _compiled, "CUDA graph, fixed shapes": _graph}
