"""The tokenizer of a model with the token limit and the prompt of given settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import runtimes
from ..device import tokenizer_copy_count
from ..errors import ConfigError
from ..models.card import ModelCard, find_card
from ..models.limits import NO_LIMIT, length_limit
from ..models.prompts import find_prompt
from ..models.stamps import Stamp, load_once
from ..ragged import Ints, Ragged
from ..settings import Settings
from .copies import TokenizerCopies
from .huggingface import BAD_TEXT, Tokenizer
from .static import load_static
from .windows import Windows, split


@dataclass(frozen=True)
class TextReader:
    """A model's tokenizer with the token limit and the prompt of given settings.

    ``limit``: tokens per row, prefix and suffix included. ``prompt``: the text that is put before each text and
    counts towards the limit. ``n_prefix``, ``n_suffix``: number of special tokens and prompt tokens before and
    after the text in every row. ``prompt_tokens``: number of tokens at a row's start that pooling leaves out.
    """

    tokenizer: TokenizerCopies
    limit: int
    prompt: str
    n_prefix: int
    n_suffix: int
    prompt_tokens: int

    def split(self, ids: Ragged, overlap: int) -> Windows:
        """Split rows of any length into windows of at most ``limit`` tokens."""
        return split(ids, limit=self.limit, overlap=overlap, n_prefix=self.n_prefix, n_suffix=self.n_suffix)


_tokenizers: dict[tuple[object, ...], tuple[Stamp, TokenizerCopies]] = {}
_tokenizer_lock = threading.Lock()


def load_tokenizer(card: ModelCard) -> TokenizerCopies:
    """Return the model's tokenizer, loaded once per process, and again if its files have changed."""
    markers = card.colbert.markers if card.colbert else ()
    key = (str(card.path), card.lowercase, markers, card.code)
    if card.static is not None:
        make: Callable[[], Tokenizer] = partial(load_static, card.path, card.static)
    else:
        options: dict[str, Any] = {"lowercase": card.lowercase, "markers": markers, "code": card.code}
        make = partial(Tokenizer.from_directory, card.path, **options)
    with runtimes.loading_lock, _tokenizer_lock:
        return load_once(_tokenizers, key, card.stamp, lambda: TokenizerCopies(make, tokenizer_copy_count()))


def unload_tokenizers() -> None:
    """Drop every loaded tokenizer of this process."""
    with _tokenizer_lock:
        _tokenizers.clear()


def find_reader(settings: Settings) -> TextReader:
    """Find the model and make its `TextReader`; raises the same errors as `make_reader`."""
    return make_reader(find_card(settings.model), settings)


def make_reader(card: ModelCard, settings: Settings) -> TextReader:
    """Return the `TextReader` of a model for these settings.

    Raises
    ------
    ConfigError
        The prompt cannot be tokenized, or leaves no room for text together with the overlap.
    """
    tokenizer, limit = load_tokenizer(card), length_limit(card, settings.max_seq_length)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    n_prefix, n_suffix, prompt_tokens = len(tokenizer.prefix), len(tokenizer.suffix), 0
    if prompt:
        prompt_ids = _encode_prompt(card, tokenizer, prompt)
        n_prefix = _constant_prefix(tokenizer, prompt, prompt_ids)
        if not card.include_prompt:
            # As in sentence-transformers, a special token at the end is not counted, whether it is part of the
            # prompt's text or was added to it.
            prompt_tokens = len(prompt_ids) - int(
                np.isin(prompt_ids[-1:], list(tokenizer.special_tokens)).sum()
            )
    overlap = settings.overlap if settings.long_documents != "truncate" else 0
    if n_prefix + n_suffix + overlap >= limit:
        raise ConfigError(
            f"{n_prefix + n_suffix} tokens of prompt and special tokens and an overlap of {overlap} leave no "
            f"room for text in the {limit} tokens of model {card.name!r}; shorten the prompt or the overlap, "
            "or raise max_seq_length"
        )
    return TextReader(tokenizer, limit, prompt, n_prefix, n_suffix, prompt_tokens)


def _encode_prompt(card: ModelCard, tokenizer: TokenizerCopies, prompt: str) -> Ints:
    try:
        ids: Ints = tokenizer.encode([prompt], NO_LIMIT).ids.values
        return ids
    except BAD_TEXT as error:
        raise ConfigError(
            f"the prompt {prompt!r:.80} cannot be tokenized for model {card.name!r} ({error}); pass another "
            "prompt, or prompt='' for none"
        ) from error


def _constant_prefix(tokenizer: TokenizerCopies, prompt: str, prompt_ids: Ints) -> int:
    """Return how many of a row's first tokens are the same for every text.

    The last tokens of a prompt may merge with the text after it, so they count as text: "query:" may be the
    tokens "query" and ":", but "query:a" the tokens "query" and ":a".
    """
    with_text = tokenizer.encode([f"{prompt}a"], NO_LIMIT).ids.values
    are_equal = prompt_ids[: len(with_text)] == with_text[: len(prompt_ids)]
    common = int(np.logical_and.accumulate(are_equal).sum())  # up to the first difference
    return min(common, len(prompt_ids) - len(tokenizer.suffix))
