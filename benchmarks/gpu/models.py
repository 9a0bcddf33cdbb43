"""A decoder without the engine: our packed runtime, and padded SDPA of transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import transformers

from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.torch import TorchRuntime

from . import DEVICE, Options, Run
from .measure import Result, cosines, repeat, speeds
from .rates import flops

QWEN3 = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151_936,
}
PADDED, OURS = "transformers, padded SDPA", "ours, model alone"
START_S = 20.0
LENGTHS = {f"{length} tokens": length for length in (32, 256, 1024)}


def case_s(options: Options) -> float:
    """Return about how long one length takes."""
    return 2 + options.seconds


def random_rows(rng: np.random.Generator, tokens: int, length: int, vocabulary: int) -> Ragged:
    """Return about ``tokens`` random ids in rows of ``length / 2`` to ``length``, longest row first."""
    lengths = np.sort(rng.integers(length // 2, length + 1, max(2, tokens * 4 // (3 * length))))[::-1]
    ids = rng.integers(1000, vocabulary, int(lengths.sum())).astype(np.int32)
    return Ragged.from_lengths(ids, lengths)


def _random_model() -> torch.nn.Module:
    """Return a random model of Qwen3-0.6B's shape, on a CPU with two layers; equal in every process."""
    torch.manual_seed(0)
    tiny = {"num_hidden_layers": 2} if DEVICE.type == "cpu" else {}
    config = transformers.Qwen3Config(**(QWEN3 | tiny), use_cache=False)
    model = transformers.AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.set_attn_implementation("sdpa")
    return model.eval().to(DEVICE)


def _padded_states(model: torch.nn.Module, ids: Ragged) -> torch.Tensor:
    """Return the states of the tokens, from a forward pass with padding on the right."""
    block, mask = (torch.from_numpy(x).to(DEVICE) for x in (ids.pad(), ids.mask()))
    with torch.inference_mode():
        return model(input_ids=block.long(), attention_mask=mask.long())[0][mask]


def jobs() -> dict[str, tuple[str, ...]]:
    """Return both runtimes with all lengths."""
    return dict.fromkeys((PADDED, OURS), tuple(LENGTHS))


def load(peer: str, options: Options) -> Callable[[str], Run]:
    """Load the model, and return a function that measures it on rows of one length."""
    padded = partial(_padded_states, _random_model())
    if peer == PADDED:
        states = padded
    else:
        runtime = TorchRuntime(_random_model(), DEVICE, torch.bfloat16)
        states = lambda ids: runtime.states(ids)[0]  # noqa: E731

    def measure(case: str) -> Run:
        ids = random_rows(np.random.default_rng(0), int(65_536 * options.scale), LENGTHS[case], 150_000)
        expected = padded(ids).float().cpu().numpy()
        run, result = repeat(lambda: Result(states(ids)), options.seconds)
        found = result.vectors.float().cpu().numpy()
        operations = flops(padded.args[0].config, ids.lengths)
        more: Run = {"computed_in": {"bfloat16": len(ids)}}
        if peer == OURS:
            more["packed"] = not runtime.pads
        return (
            run
            | more
            | cosines(found, expected)
            | speeds(len(ids), len(ids.values), run["seconds"], operations)
        )

    return measure
