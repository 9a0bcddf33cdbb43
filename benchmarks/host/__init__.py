"""Stand-ins for a GPU and for the cores of a larger machine, under the engine's own code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from nemo_embed_dask import engine
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.vectors.head import Head

from .. import corpora

# Most rows and tokens of a batch, as on a GPU.
_ROWS, BUDGET = 65_535, 131_072
SETTINGS = Settings(ModelRef(MINILM), pooling="auto", share_equal_texts=False, model_inference_batch_size=_ROWS)
# AG News has about 50 tokens per text; five joined texts stand for one of 250.
JOINED = {50: 1, 250: 5}
_AGNEWS_ROWS = 7_600


class SleepingRuntime:
    """A `runtimes.Runtime` that sleeps ``device_ns`` per token; processes that share ``lock`` take turns."""

    dimension, max_length, pads, weight_bytes, number_type = 1, None, False, 0, "float32"
    device = torch.device("cpu")

    def __init__(self, device_ns: float, vocabulary: int, lock: Any = None) -> None:
        self.vocabulary, self.budget = vocabulary, BUDGET
        self._seconds, self._lock = device_ns / 1e9, lock or nullcontext()

    def states(self, ids: Ragged) -> tuple[torch.Tensor, torch.Tensor]:
        """Return no states, but the offsets, from which `NoHead` knows the number of rows."""
        with self._lock:
            time.sleep(len(ids.values) * self._seconds)
        return torch.zeros(0, 1), torch.from_numpy(ids.offsets)

    def batch_memory(self, tokens: int) -> int:
        """Return the bytes of GPU memory of a batch: none."""
        return 0

    def load_wider(self) -> None:
        """Return None: there is no type of greater range."""


class NoHead(Head):
    """A head whose vectors are one zero, so that the host spends no time on them."""

    def __init__(self, head: Head) -> None:
        vars(self).update(vars(head) | {"dimension": 1, "default_dim": 1})

    def __call__(self, states: torch.Tensor, offsets: torch.Tensor, *, prompt_tokens: int = 0) -> torch.Tensor:
        return torch.zeros(len(offsets) - 1, 1)


class Replay:
    """In place of a `tokenizers.Tokenizer`: returns earlier results after a sleep of ``ns`` per token."""

    def __init__(self, backend: Any, ns: float, known: dict[str, Any]) -> None:
        self._backend, self._seconds, self._known = backend, ns / 1e9, known

    def encode_batch_fast(self, texts: Sequence[str], **options: Any) -> list[Any]:
        """Return the encodings of these texts; new ones are tokenized, without a sleep."""
        new = [text for text in texts if text not in self._known]
        if new:
            self._known.update(zip(new, self._backend.encode_batch_fast(new, **options), strict=True))
        out = [self._known[text] for text in texts]
        time.sleep(0 if new else self._seconds * sum(map(len, out)))
        return out


def documents(tokens: int, rows: int) -> list[str]:
    """Return texts of about 50 or 250 tokens, which repeat if there are more rows than in the corpus."""
    joined = JOINED[tokens]
    texts = corpora.texts("medium_agnews", min(rows * joined, _AGNEWS_ROWS))
    parts = [" ".join(texts[i : i + joined]) for i in range(0, len(texts), joined)]
    return [parts[i % len(parts)] for i in range(rows)]


def use_stand_in(device_ns: float, lock: Any = None) -> engine.Model:
    """Make the engine of this process use the stand-in, with the slabs of a GPU; return its model."""
    torch.set_num_threads(1)
    model = _load_model(SETTINGS)
    runtime = SleepingRuntime(device_ns, model.runtime.vocabulary, lock)
    assert isinstance(model.head, Head)
    stand_in = replace(model, runtime=runtime, head=NoHead(model.head))
    use_model(stand_in)
    engine._slab_size = lambda _: _slab_size(_ON_GPU)
    return stand_in


_load_model, _slab_size = engine.load_model, engine._slab_size
# What decides the size of slabs.
_ON_GPU: Any = SimpleNamespace(device=SimpleNamespace(type="cuda"))


def use_model(model: engine.Model | None) -> None:
    """Make the engine of this process use a model; None for the one of its settings."""
    engine.load_model = (lambda _: model) if model else _load_model


def replay_tokens(tokenizer: Any, cores: int, library_ns: float) -> None:
    """Make the tokenizer's copies, one per four cores as on a GPU, sleep as long as ``cores`` cores take."""
    first, known = tokenizer._copies[0], {}
    count = max(1, cores // 4)
    tokenizer._copies = [first, *(first.copy() for _ in range(count - 1))]
    for copy in tokenizer._copies:
        copy._backend = Replay(copy._backend, library_ns * count / cores, known)
