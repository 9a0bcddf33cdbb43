"""Tokenize strings to ragged token ids by the Hugging Face tokenizers library, in bulk and without padding.

The library tokenizes a whole text before it truncates it. This module passes only the beginning of a long text,
cut at a place where the cut cannot change the tokens that are kept. Special tokens are added as arrays.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import normalizers

from ..errors import EmbedError, ModelError
from ..models.kinds import load_failure
from ..models.names import model_name
from ..models.remote_code import CustomCode
from ..ragged import Bools, Ints, Ragged
from .boundaries import find_boundaries
from .class_options import special_ids
from .loading import check_own_class, copy_tokenizer, find_markers, load_backend, load_with_transformers

# What `Tokenizer.encode` raises for values that are not valid text, or that have no tokens.
BAD_TEXT = (TypeError, ValueError, AttributeError)
# The first pass reads this many characters for each token of the limit. English has 4 to 5 characters per
# token, so one pass is enough for most texts. Each further pass reads `_GROWTH` times as many. These values
# took the least time, second passes included (benchmarks/LOG.md).
_CHARS_PER_TOKEN = 6
_GROWTH = 2


@dataclass(frozen=True)
class Tokens:
    """Tokens of texts.

    ``ids``: Ragged int32, one row per text. ``truncated``: bool, shape (n,), whether tokens were cut off.
    """

    ids: Ragged
    truncated: Bools


class Tokenizer:
    """A Hugging Face tokenizer that returns ragged ids and whose work per text is bounded by the token limit.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        A copy is used, without its padding and truncation.
    keep_end : bool
        Whether texts over the limit keep their last tokens (``truncation_side="left"``) instead of their first.
    special_tokens : frozenset of int
        Ids of the tokens that the model's files name as special, such as "[SEP]", "[PAD]" and "[UNK]".
    """

    def __init__(
        self, backend: HfTokenizer, *, keep_end: bool = False, special_tokens: frozenset[int] = frozenset()
    ) -> None:
        self.keep_end = keep_end
        self._backend = copy_tokenizer(backend)
        self.special_tokens = special_tokens
        self.prefix, self.suffix = special_ids(self._backend)
        self._boundary = None if keep_end else find_boundaries(self._backend)

    @classmethod
    def from_directory(
        cls, path: Path, *, lowercase: bool = False, markers: Sequence[str] = (), code: CustomCode = ()
    ) -> Tokenizer:
        """Load the tokenizer of a model directory as its authors used it; see `loading`.

        ``markers`` are texts whose first word is one token; see `loading.find_markers`.

        Raises
        ------
        ModelError
            Its files are missing, damaged, or describe a tokenizer that this package cannot run.
        """
        with readable(path):
            return cls._load(path, lowercase=lowercase, markers=markers, code=code)

    @classmethod
    def _load(cls, path: Path, *, lowercase: bool, markers: Sequence[str], code: CustomCode) -> Tokenizer:
        loaded = load_with_transformers(path, code)
        if not loaded.is_fast:
            raise ModelError(
                f"model {model_name(path)!r} has a {type(loaded).__name__}, which the tokenizers library "
                "cannot run; use a model with a fast tokenizer (tokenizer.json)"
            )
        backend = load_backend(path, loaded)
        check_own_class(path, backend, loaded)
        if "token_type_ids" in loaded.model_input_names and any(backend.encode("a").type_ids):
            raise ModelError(
                f"the tokenizer of model {model_name(path)!r} gives token types, which this package does not "
                "pass to a model; use another model"
            )
        if lowercase:
            rest = [backend.normalizer] if backend.normalizer else []
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
        backend.add_special_tokens(find_markers(backend, markers))
        special = map(backend.token_to_id, loaded.all_special_tokens)
        return cls(
            backend,
            keep_end=loaded.truncation_side == "left",
            special_tokens=frozenset(index for index in special if index is not None),
        )

    def copy(self) -> Tokenizer:
        """Return a copy, which another thread can use at the same time."""
        return Tokenizer(self._backend, keep_end=self.keep_end, special_tokens=self.special_tokens)

    @property
    def state(self) -> dict[str, Any]:
        """The parts of the tokenizer, as in its ``tokenizer.json``."""
        state: dict[str, Any] = json.loads(self._backend.to_str())
        return state

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token; None if there is no such token."""
        index: int | None = self._backend.token_to_id(token)
        return index

    @property
    def n_special_tokens(self) -> int:
        """The number of special tokens that are added to every row."""
        return len(self.prefix) + len(self.suffix)

    def encode(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Tokenize and truncate texts, and add special tokens.

        Parameters
        ----------
        texts : sequence of str
        max_length : int
            Most tokens of a row, special tokens included. Special tokens are never cut.

        Returns
        -------
        Tokens
        """
        room = max(0, max_length - self.n_special_tokens)
        encodings = self._encode_heads(texts, room)
        # One array for all rows: copying ids out of the library holds the GIL, and this is the fastest way.
        values, prefix, suffix = array("I"), array("I", self.prefix), array("I", self.suffix)
        for encoding in encodings:
            found = encoding.ids
            first = max(0, len(found) - room) if self.keep_end else 0
            values.extend(prefix)
            values.fromlist(found[first : first + room])
            values.extend(suffix)
        counts = np.fromiter(map(len, encodings), np.int64, len(encodings))
        lengths = np.minimum(counts, room) + self.n_special_tokens
        return Tokens(Ragged.from_lengths(np.asarray(values).view(np.int32), lengths), counts > room)

    def encode_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ints, Ints]:
        """Tokenize texts without a limit, and find the characters that each token comes from.

        Returns
        -------
        ids : Ragged
            One row per text, special tokens included.
        starts, ends : ndarray of int64
            Token ``k`` comes from ``text[starts[k]:ends[k]]``. Special tokens are not counted: the two arrays
            have one value per text token of all texts, in order.

        Examples
        --------
        The texts "ab cd" and "ef", with one token per word, have the rows ``[CLS] ab cd [SEP]`` and
        ``[CLS] ef [SEP]``, starts [0, 3, 0] and ends [2, 5, 2].
        """
        encodings = _encode(self._backend.encode_batch, list(texts))
        text_ids = Ragged.from_rows([encoding.ids for encoding in encodings])
        pairs = [pair for encoding in encodings for pair in encoding.offsets]
        starts, ends = np.array(pairs, np.int64).reshape(-1, 2).T
        return text_ids.surround(self.prefix, self.suffix), starts, ends

    def _encode_heads(self, texts: Sequence[str], room: int) -> list[Any]:
        """Tokenize the beginning of each text, or all of it if no more than ``room`` tokens are found.

        The first pass reads the beginning of each text. A text whose beginning has too few tokens is read
        again, `_GROWTH` times as far, until it has enough tokens or is read to its end.
        """
        encodings: list[Any] = [None] * len(texts)
        pending = list(range(len(texts)))
        chars = max(256, room * _CHARS_PER_TOKEN)
        while pending:
            some = [texts[i] for i in pending]
            heads = [text if len(text) <= chars else self._head(text, chars) for text in some]
            found = _encode(self._backend.encode_batch_fast, heads)
            too_short = []
            for i, text, head, encoding in zip(pending, some, heads, found, strict=True):
                encodings[i] = encoding
                if len(head) < len(text) and len(encoding) <= room:
                    too_short.append(i)
            pending, chars = too_short, chars * _GROWTH
        return encodings

    def _head(self, text: str, chars: int) -> str:
        """Return the text up to the first boundary at or after ``chars``, or all of it if there is none.

        With ``chars=6``, "one two three" becomes "one two": the cut is at the blank after "two".
        """
        if self._boundary is None:
            return text
        boundary = self._boundary.search(text, chars)
        return text[: boundary.start()] if boundary else text


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ModelError for whatever the tokenizers library raises while a model's tokenizer is read."""
    try:
        yield
    except (EmbedError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is not an Exception
        raise ModelError(
            f"the tokenizer of model {model_name(path)!r} cannot be used ({load_failure(error)}): fetch "
            "the model again, or correct tokenizer.json and tokenizer_config.json"
        ) from error


def _encode(encode: Callable[..., list[Any]], texts: list[str]) -> list[Any]:
    """Tokenize texts.

    Raises
    ------
    ValueError
        The tokenizer has no token for a part of a text, and none for what is unknown.
    """
    try:
        return encode(texts, add_special_tokens=False)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ValueError(f"the tokenizer fails with {error}") from error
