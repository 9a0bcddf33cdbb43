"""A prototype, measured by `bench_host`: other processes tokenize, and return ids through shared memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.huggingface import Tokens
from nemo_embed_dask.tokens.reader import find_reader

from . import replay_tokens

_ROWS = 1_024
_tokenizer: Any = None


def _load(settings: Settings, cores: int, library_ns: float | None) -> None:
    global _tokenizer
    _tokenizer = find_reader(settings).tokenizer
    if library_ns is not None:
        replay_tokens(_tokenizer, cores, library_ns)


def _tokenize(texts: list[str], max_length: int) -> tuple[str, int, bytes, bytes]:
    """Tokenize in a helper; return the name of the block with the ids, their number, lengths and truncated."""
    tokens = _tokenizer.encode(texts, max_length)
    values = tokens.ids.values
    block = SharedMemory(create=True, size=max(1, values.nbytes))
    np.ndarray(values.shape, np.int32, block.buf)[:] = values
    block.close()
    return block.name, len(values), tokens.ids.lengths.tobytes(), tokens.truncated.tobytes()


class Helpers:
    """In place of a `TokenizerCopies`: encodes in ``count`` helper processes.

    ``cores``, ``library_ns``: the cores of a helper, whose tokenizing is a sleep; None for none.
    """

    def __init__(
        self, settings: Settings, count: int, *, cores: int = 1, library_ns: float | None = None
    ) -> None:
        local = find_reader(settings).tokenizer
        self.special_tokens, self.n_special_tokens = local.special_tokens, local.n_special_tokens
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(count, context, _load, (settings, cores, library_ns))

    def encode(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Tokenize as `TokenizerCopies.encode` does."""
        parts = [texts[start : start + _ROWS] for start in range(0, len(texts), _ROWS)]
        jobs = [self.pool.submit(_tokenize, list(part), max_length) for part in parts]
        tokens = [_read(*job.result()) for job in jobs]
        return Tokens(Ragged.concat(t.ids for t in tokens), np.concatenate([t.truncated for t in tokens]))


def _read(name: str, count: int, lengths: bytes, truncated: bytes) -> Tokens:
    block = SharedMemory(name)
    values = np.ndarray((count,), np.int32, block.buf).copy()
    block.close()
    block.unlink()
    ids = Ragged.from_lengths(values, np.frombuffer(lengths, np.int64))
    return Tokens(ids, np.frombuffer(truncated, np.bool_))
