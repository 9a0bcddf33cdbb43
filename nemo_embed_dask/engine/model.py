"""Load a model: its tokenizer, its runtime and its head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from .. import runtimes
from ..models.card import ModelCard, find_card
from ..models.files import Stamp, load_once
from ..settings import Settings
from ..tokens.reader import TextReader, make_reader
from ..vectors.head import Head


@dataclass(frozen=True)
class Model:
    """A loaded model with everything that a partition needs.

    It is looked up once per partition; its weights are loaded once per process.

    ``reader``: texts to token ids. ``runtime``: token ids to token states. ``head``: token states to vectors.
    """

    reader: TextReader
    runtime: runtimes.Runtime
    head: Head

    def zeros(self, rows: int) -> torch.Tensor:
        """Return a matrix of zeros that can hold the vectors of ``rows`` rows."""
        return torch.zeros((rows, self.head.dimension), dtype=torch.float32, device=self.runtime.device)


def load_runtime(settings: Settings) -> runtimes.Runtime:
    """Return the model's runtime, loaded once per process."""
    return _load_runtime(find_card(settings.model, settings.adapter), settings)


def _load_runtime(card: ModelCard, settings: Settings) -> runtimes.Runtime:
    return runtimes.load(card, runtime=settings.runtime, autocast=settings.autocast)


def load_model(settings: Settings) -> Model:
    """Return the model of these settings: its weights are loaded once per process."""
    card = find_card(settings.model, settings.adapter)
    runtime = _load_runtime(card, settings)
    head = _load_head(card, settings.pooling, settings.normalize, runtime.dimension, runtime.device)
    return Model(make_reader(card, settings), runtime, head)


_heads: dict[tuple[object, ...], tuple[Stamp, Head]] = {}


def _load_head(
    card: ModelCard, pooling: str, normalize: bool | None, dimension: int, device: torch.device
) -> Head:
    key = (card.path, pooling, normalize, dimension, device)
    make = partial(Head, card, dimension, device, pooling=pooling, normalize=normalize)
    return load_once(_heads, key, card.stamp, make)
