"""Load a model: its tokenizer, its runtime and its head."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial

import torch

from .. import runtimes
from ..device import default_device, release_memory, to_device
from ..errors import ModelError
from ..lists import LIST_COLUMNS, Lists
from ..models.adapter_files import warn_of_adapters
from ..models.card import ModelCard, find_card
from ..models.stamps import Stamp, load_once
from ..ragged import Ragged
from ..runtimes.static import StaticRuntime
from ..settings import Settings
from ..stage_settings import DefaultPooling
from ..tokens.reader import TextReader, make_reader, unload_tokenizers
from ..vectors.head import Head
from ..vectors.own_pooling import check_lists
from ..vectors.splade import SpladeHead
from ..vectors.token_head import TokenHead, skip_ids

AnyHead = Head | TokenHead | SpladeHead


@dataclass(frozen=True)
class Model:
    """A loaded model with everything that a partition needs.

    It is looked up once per partition; its weights are loaded once per process.

    ``reader``: texts to token ids. ``runtime``: token ids to token states. ``head``: token states to vectors.
    """

    reader: TextReader
    runtime: runtimes.Runtime
    head: AnyHead

    def vectors(self, batch: Ragged) -> torch.Tensor | Lists:
        """Return one vector per row of token ids, float32 ``[n, dimension]``, or one list per row."""
        head, runtime = self.head, self.runtime
        if isinstance(runtime, StaticRuntime) and isinstance(head, Head) and head.pooling == "mean_pooling":
            return head.after_pooling(runtime.means(batch))
        states, offsets = self.runtime.states(batch)
        prompt_tokens = self.reader.prompt_tokens
        if not isinstance(self.head, Head):
            return self.head(states, offsets, batch, prompt_tokens=prompt_tokens)
        if prompt_tokens:
            text_positions, text_offsets = batch.drop_first(prompt_tokens)
            states = states.index_select(0, to_device(text_positions, states.device))
            offsets = to_device(text_offsets, states.device)
        return self.head(states, offsets, prompt_tokens=prompt_tokens)

    def zeros(self, rows: int) -> torch.Tensor:
        """Return a matrix of zeros that can hold the vectors of ``rows`` rows."""
        return torch.zeros((rows, self.width), dtype=torch.float32, device=self.runtime.device)

    @property
    def width(self) -> int:
        """The dimensions of a row's vector; 0 if a row has a list."""
        return self.head.dimension if isinstance(self.head, Head) else 0


def load_runtime(settings: Settings) -> runtimes.Runtime:
    """Return the model's runtime, loaded once per process."""
    return _load_runtime(find_card(settings.model, settings.adapter), settings)


def _load_runtime(card: ModelCard, settings: Settings) -> runtimes.Runtime:
    if card.adapter is None:
        warn_of_adapters(settings.model)
    return runtimes.load(card, runtime=settings.runtime, autocast=settings.autocast, compiled=settings.compile)


def load_model(settings: Settings) -> Model:
    """Return the model of these settings: its weights are loaded once per process."""
    card = find_card(settings.model, settings.adapter)
    runtime, reader = _load_runtime(card, settings), make_reader(card, settings)
    is_default = isinstance(settings.pooling, DefaultPooling)
    what = (settings.pooling, is_default, settings.normalize, runtime.device)
    key = (card.path, card.code, settings.model.task, *what)
    make = partial(_make_head, card, settings, runtime, reader)
    with runtimes.loading_lock:  # transformers' loading is not safe in several threads
        head = load_once(_heads, key, card.stamp, make)
    return Model(reader, runtime, head)


_heads: dict[tuple[object, ...], tuple[Stamp, AnyHead]] = {}


def unload() -> None:
    """Drop every loaded model of this process: runtimes, heads and tokenizers; give their memory back."""
    runtimes.unload()
    unload_tokenizers()
    with runtimes.loading_lock:
        _heads.clear()
    gc.collect()
    release_memory(default_device())


def unload_from_gpu() -> None:
    """Drop this process's models if they are on a GPU."""
    if default_device().type == "cuda":
        unload()


def _make_head(card: ModelCard, settings: Settings, runtime: runtimes.Runtime, reader: TextReader) -> AnyHead:
    dimension, device, normalize = runtime.dimension, runtime.device, settings.normalize
    if settings.pooling in LIST_COLUMNS:
        check_lists(card, settings.pooling)
    if settings.pooling == "splade" and card.adapter is not None:
        raise ModelError(
            f"model {card.name!r}: embedding_pooling='splade' needs the language model's head, and adapters "
            "are merged only into the transformer before it: merge the adapter yourself (merge_and_unload in "
            "peft), and save the whole model"
        )
    if settings.pooling == "splade":
        return SpladeHead(card, dimension, device)
    if settings.pooling == "none":
        skipped = skip_ids(card, reader.tokenizer.token_to_id)
        return TokenHead(card, dimension, device, normalize=normalize, skip_ids=skipped)
    return Head(card, dimension, device, pooling=settings.pooling, normalize=normalize)
