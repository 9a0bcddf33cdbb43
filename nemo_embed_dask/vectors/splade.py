"""Weighted tokens: the vocabulary's entries that a masked language model finds in a row, largest first."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ModelError
from ..lists import Lists
from ..models.card import ModelCard
from ..ragged import Ragged


class SpladeHead:
    """From token states to the weighted tokens of each row (``embedding_pooling="splade"``)."""

    pooling = "splade"

    def __init__(self, card: ModelCard, state_dimension: int, device: torch.device) -> None:
        self.dimension = self.default_dim = state_dimension
        self.normalize = False
        raise ModelError(f"model {card.name!r}: embedding_pooling='splade' has not landed yet")

    def __call__(self, states: Tensor, offsets: Tensor, ids: Ragged, *, prompt_tokens: int = 0) -> Lists:
        """Return the ids and weights of each row's tokens."""
        raise NotImplementedError
