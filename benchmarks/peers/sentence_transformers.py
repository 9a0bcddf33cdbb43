"""sentence-transformers, with its defaults or in bfloat16. It sorts by length itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from sentence_transformers import SentenceTransformer

from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM

from . import Output


class _Meter:
    """Hooks on the transformer that count its tokens, with padding, and its seconds."""

    def __init__(self) -> None:
        self.padded, self.seconds, self._start = 0, 0.0, 0.0

    def before(self, _module, inputs) -> None:
        self.padded += inputs[0]["input_ids"].numel()
        self._start = time.perf_counter()

    def after(self, *_) -> None:
        self.seconds += time.perf_counter() - self._start


def load(*, dtype: str, batch_size: int) -> Callable[[list[str]], Output]:
    path = str(find_model(ModelRef(MINILM)))
    kwargs = {"dtype": getattr(torch, dtype)}
    model = SentenceTransformer(path, device="cpu", model_kwargs=kwargs, trust_remote_code=False)

    def run(texts: list[str]) -> Output:
        meter = _Meter()
        handles = [
            model[0].register_forward_pre_hook(meter.before),
            model[0].register_forward_hook(meter.after),
        ]
        vectors = model.encode(texts, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True)
        for handle in handles:
            handle.remove()
        return Output(vectors.float().numpy(), meter.padded, model_s=meter.seconds)

    return run
