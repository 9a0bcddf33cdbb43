"""One tokenizer in several copies, so that a GPU is fed. Knows how texts are shared out, not how they are read.

A copy that several threads call scales badly, for they contend for its cache (tokenizers#1900); copies of
their own don't. All of them work on the threads of one rayon pool (``RAYON_NUM_THREADS``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..ragged import Ragged
from .huggingface import Tokenizer, Tokens

# Below this a shard's own start costs more than it saves.
_FEWEST_ROWS = 256


class TokenizerCopies:
    """Stands for a `Tokenizer`; ``make`` gives one copy, ``count`` of them are made."""

    def __init__(self, make: Callable[[], Tokenizer], count: int) -> None:
        self._copies = [make() for _ in range(count)]
        first = self._copies[0]
        self.prefix, self.suffix, self.n_special_tokens = first.prefix, first.suffix, first.n_special_tokens
        self.encode_with_offsets = first.encode_with_offsets  # for windows of long documents: one copy will do

    @property
    def state(self) -> dict[str, Any]:
        """`Tokenizer.state`."""
        return self._copies[0].state

    def encode(self, texts: Sequence[str], max_length: int) -> Tokens:
        """`Tokenizer.encode`: the same ids in the same order, whatever the number of copies."""
        count = min(len(self._copies), len(texts) // _FEWEST_ROWS)
        if count < 2:
            return self._copies[0].encode(texts, max_length)
        edges = _edges(texts, count)
        with ThreadPoolExecutor(count, "shard") as pool:
            jobs = [
                pool.submit(copy.encode, texts[start:stop], max_length)
                for copy, start, stop in zip(self._copies, edges[:-1], edges[1:], strict=False)
            ]
            parts = [job.result() for job in jobs]
        return Tokens(Ragged.concat(p.ids for p in parts), np.concatenate([p.truncated for p in parts]))


def _edges(texts: Sequence[str], count: int) -> list[int]:
    """Where to cut, so that the slices hold about as many characters each."""
    sizes = np.cumsum([len(text) if isinstance(text, str) else 0 for text in texts])
    inner = np.searchsorted(sizes, sizes[-1] * np.arange(1, count) / count)
    return [0, *inner.tolist(), len(texts)]
