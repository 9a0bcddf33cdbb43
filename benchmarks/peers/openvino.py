"""OpenVINO on a CPU with our tokenizer and our batches, so that only the model's run differs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import torch
import transformers

from nemo_embed_dask import batching
from nemo_embed_dask.device import set_threads
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.tokens.huggingface import Tokenizer
from nemo_embed_dask.vectors.pooling import pool, unpad

from . import Output

_PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class _Traceable(torch.nn.Module):
    """The model with an explicit mask and positions: those of transformers cannot be traced."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.bool()[:, None, None, :]
        positions = torch.arange(input_ids.shape[1])[None]
        return self.model(input_ids=input_ids, attention_mask=mask, position_ids=positions)[0]


def convert(path: Path) -> ov.Model:
    """Convert a transformers encoder to OpenVINO, from ids and mask of any shape to token states."""
    model = transformers.AutoModel.from_pretrained(str(path), add_pooling_layer=False, trust_remote_code=False)
    ids = torch.ones(2, 8, dtype=torch.int64)
    with torch.inference_mode():
        example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return ov.convert_model(_Traceable(model.eval()), example_input=example)


def load(*, dtype: str, budget: int = 1024, hint: str = "LATENCY") -> Callable[[list[str]], Output]:
    card = read_card(find_model(ModelRef(MINILM)))
    settings = {"INFERENCE_PRECISION_HINT": _PRECISION[dtype], "PERFORMANCE_HINT": hint}
    compiled = ov.Core().compile_model(convert(card.path), "CPU", settings)
    queue, tokenizer = ov.AsyncInferQueue(compiled), Tokenizer.from_directory(card.path)

    def run(texts: list[str]) -> Output:
        start = time.perf_counter()
        ids = tokenizer.encode(texts, card.max_seq_length).ids
        tokenized = time.perf_counter()
        out = torch.empty(len(ids), compiled.output(0).get_partial_shape()[2].get_length())

        def keep(request, data) -> None:
            group, mask = data
            states = torch.from_numpy(request.get_output_tensor(0).data)
            set_threads(1)  # for the thread in which OpenVINO runs this callback
            out[torch.from_numpy(group)] = pool("mean_pooling", *unpad(states, torch.from_numpy(mask)))

        queue.set_callback(keep)
        groups = batching.batches(ids.lengths, budget=budget, max_rows=1024, pads=True)
        for group in groups:
            batch = ids.take(group)
            mask = batch.mask()
            inputs = [batch.pad().astype(np.int64), mask.astype(np.int64)]
            queue.start_async(inputs, (group, mask))
        queue.wait_all()
        padded = sum(batching.cost(ids.lengths[group], pads=True) for group in groups)
        return Output(out.numpy(), padded, tokenized - start, time.perf_counter() - tokenized)

    return run
