"""NeMo Curator's algorithm, written again without its code.

Rows are Python lists, padded to the length limit, sorted by length, and cut into batches of 1,024 rows, each
clipped to its longest row. The weights are float32 under autocast, and vectors are collected on the host. Two
things differ, so that it runs on CPUs and vectors can be compared: autocast is that of the device, and the
limit is the model card's 256 (Curator: 512).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import transformers

from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM

from . import Output

ROWS = 1024


def _embed(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast(ids.device.type, dtype):
        states = model(input_ids=ids, attention_mask=mask)[0].float()
    weights = mask[:, :, None].float()
    return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=1).cpu()


def load(*, dtype: str, device: str = "cpu") -> Callable[[list[str]], Output]:
    card = read_card(find_model(ModelRef(MINILM)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(card.path), trust_remote_code=False)
    model = transformers.AutoModel.from_pretrained(str(card.path), trust_remote_code=False).eval().to(device)

    def run(texts: list[str]) -> Output:
        start = time.perf_counter()
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=card.max_seq_length)
        ids, masks = tokens["input_ids"], tokens["attention_mask"]
        lengths = np.array([sum(row) for row in masks])
        tokenized, padded, parts = time.perf_counter(), 0, []
        order = np.argsort(lengths, kind="stable")
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            longest = int(lengths[rows].max())
            padded += longest * len(rows)
            block = [torch.tensor([cells[i] for i in rows])[:, :longest].to(device) for cells in (ids, masks)]
            parts.append(_embed(model, *block, getattr(torch, dtype)).numpy())
        vectors = np.concatenate(parts)[np.argsort(order)]
        return Output(vectors, padded, tokenized - start, time.perf_counter() - tokenized)

    return run
