"""The tokenizer of a static model: texts to token ids, as in the library that wrote the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HfTokenizer

from ..errors import ModelError
from ..models.names import model_name
from ..models.static import StaticTable
from ..ragged import Ints, Ragged
from .huggingface import Tokenizer, Tokens, readable
from .loading import check_dropout


class StaticTokenizer(Tokenizer):
    """A tokenizer without special tokens; see `Tokenizer`.

    A text without tokens has one: the id whose vector is zeros. model2vec also cuts a text by characters before
    it tokenizes it, and leaves out unknown tokens after it has truncated the text.
    """

    def __init__(self, backend: HfTokenizer, table: StaticTable, *, keep_end: bool = False) -> None:
        super().__init__(backend, keep_end=keep_end)
        self.prefix, self.suffix = [], []
        self._table = table
        is_model2vec = table.layout == "model2vec"
        self._unknown = _unknown_id(self._backend) if is_model2vec else None
        self._chars_per_token = _median_token_length(self._backend) if is_model2vec else None

    def copy(self) -> StaticTokenizer:
        """Return a copy, which another thread can use at the same time."""
        return StaticTokenizer(self._backend, self._table, keep_end=self.keep_end)

    def encode(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Tokenize and truncate texts; see `Tokenizer.encode`."""
        if self._chars_per_token is None:
            found = super().encode(texts, max_length)
            return Tokens(self._known(found.ids)[0], found.truncated)
        chars = max_length * self._chars_per_token
        found = super().encode([text[:chars] for text in texts], max_length)
        is_cut = np.fromiter((len(text) > chars for text in texts), np.bool_, len(texts))
        return Tokens(self._known(found.ids)[0], found.truncated | is_cut)

    def encode_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ints, Ints]:
        """Tokenize texts without a limit, and find the characters of each token; see `Tokenizer`."""
        ids, starts, ends = super().encode_with_offsets(texts)
        known, source = self._known(ids)
        # The appended zeros are for the texts without tokens.
        return known, np.append(starts, 0)[source], np.append(ends, 0)[source]

    def _known(self, ids: Ragged) -> tuple[Ragged, Ints]:
        """Leave out unknown tokens, and give a row that then has no tokens the id of the zeros.

        Returns
        -------
        known : Ragged
        source : ndarray of int64
            The position in ``ids.values`` of each id; the number of these values for an id of the zeros.
        """
        is_known = np.ones(len(ids.values), np.bool_) if self._unknown is None else ids.values != self._unknown
        lengths = np.diff(np.append(0, np.cumsum(is_known))[ids.offsets])
        if len(lengths) == 0 or (lengths.min() > 0 and is_known.all()):
            return ids, np.arange(len(ids.values))
        source = Ragged.from_lengths(
            np.full(int(np.maximum(1, lengths).sum()), len(ids.values)), np.maximum(1, lengths)
        )
        source.values[np.repeat(lengths > 0, source.lengths)] = np.flatnonzero(is_known)
        values = np.append(ids.values, np.int32(self._table.empty_id))[source.values]
        return Ragged(values, source.offsets), source.values


def load_static(path: Path, table: StaticTable) -> StaticTokenizer:
    """Load the tokenizer of a static model from its ``tokenizer.json``.

    Raises
    ------
    ModelError
        The file is missing, damaged, or belongs to another table.
    """
    if not (path / "tokenizer.json").is_file():
        raise ModelError(
            f"model {model_name(path)!r} has no tokenizer: there is no tokenizer.json; fetch the model again"
        )
    with readable(path):
        backend = HfTokenizer.from_file(str(path / "tokenizer.json"))
        check_dropout(path, backend)
        _check_vocabulary(path, backend, table)
        cuts_start = (backend.truncation or {}).get("direction") == "left" and table.layout != "model2vec"
        return StaticTokenizer(backend, table, keep_end=cuts_start)


def _check_vocabulary(path: Path, backend: HfTokenizer, table: StaticTable) -> None:
    ids = backend.get_vocab().values()
    differs = table.layout == "model2vec" and not table.is_shared and len(ids) != table.vocabulary
    if differs or max(ids, default=-1) >= table.vocabulary:
        raise ModelError(
            f"the tokenizer of model {model_name(path)!r} has {len(ids)} tokens, the last with id "
            f"{max(ids, default=-1)}, and its table has vectors for {table.vocabulary}: the two belong to "
            "different models; fetch the model again"
        )


def _unknown_id(backend: HfTokenizer) -> int | None:
    """Return the id of the token for what the tokenizer does not know; None if there is none."""
    model = json.loads(backend.to_str())["model"]
    if "unk_id" in model:  # Unigram
        unknown: int | None = model["unk_id"]
        return unknown
    return None if model.get("unk_token") is None else backend.token_to_id(model["unk_token"])


def _median_token_length(backend: HfTokenizer) -> int:
    """Return the median number of characters of a token, rounded down."""
    return int(np.median([len(token) for token in backend.get_vocab()]))
