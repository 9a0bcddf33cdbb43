"""Several copies of one tokenizer that work in parallel, so that tokenizing keeps up with a GPU.

One tokenizer that several threads call does not scale, because the threads contend for its cache
(tokenizers#1900); a copy per thread does. All copies use the threads of one rayon pool
(``RAYON_NUM_THREADS``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..ragged import Ragged
from .huggingface import Tokenizer, Tokens

# With fewer rows per copy, starting its thread costs more time than it saves.
_MIN_ROWS_PER_COPY = 256


class TokenizerCopies:
    """Copies of a `Tokenizer` with the same methods.

    Parameters
    ----------
    make : callable
        Makes the first one.
    count : int
        The number of copies.
    """

    def __init__(self, make: Callable[[], Tokenizer], count: int) -> None:
        first = make()
        self._copies = [first, *(first.copy() for _ in range(count - 1))]
        self.prefix, self.suffix, self.n_special_tokens = first.prefix, first.suffix, first.n_special_tokens
        self.special_tokens, self.token_to_id = first.special_tokens, first.token_to_id
        self.keep_end = first.keep_end
        # Only used for windows of long documents, for which one copy is fast enough.
        self.encode_with_offsets = first.encode_with_offsets

    @property
    def state(self) -> dict[str, Any]:
        """See `Tokenizer.state`."""
        return self._copies[0].state

    def encode(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Tokenize texts as `Tokenizer.encode` does: the result does not depend on the number of copies."""
        count = min(len(self._copies), len(texts) // _MIN_ROWS_PER_COPY)
        if count < 2:
            return self._copies[0].encode(texts, max_length)
        edges = _edges(texts, count)
        copies = self._copies[:count]
        with ThreadPoolExecutor(count, "tokenizer-copy") as pool:
            jobs = [
                pool.submit(copy.encode, texts[start:stop], max_length)
                for copy, start, stop in zip(copies, edges[:-1], edges[1:], strict=True)
            ]
            parts = [job.result() for job in jobs]
        return Tokens(Ragged.concat(p.ids for p in parts), np.concatenate([p.truncated for p in parts]))


def _edges(texts: Sequence[str], count: int) -> list[int]:
    """Return the edges of ``count`` consecutive slices that have about equally many characters.

    Slice ``i`` is ``texts[edges[i]:edges[i + 1]]``.
    """
    sizes = np.cumsum([len(text) if isinstance(text, str) else 0 for text in texts])
    inner = np.searchsorted(sizes, sizes[-1] * np.arange(1, count) / count)
    return [0, *inner.tolist(), len(texts)]
