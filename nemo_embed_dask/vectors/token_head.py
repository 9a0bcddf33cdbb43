"""Token vectors: one list per row instead of one vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..lists import Lists
from ..models.card import ModelCard
from ..ragged import Ints, Ragged


class TokenHead:
    """From token states to the list of each row's token vectors (``embedding_pooling="none"``)."""

    pooling = "none"

    def __init__(
        self,
        card: ModelCard,
        state_dimension: int,
        device: torch.device,
        *,
        normalize: bool | None,
        skip_ids: Ints,
    ) -> None:
        self.dimension = self.default_dim = state_dimension
        self.normalize = normalize is not False

    def __call__(self, states: Tensor, offsets: Tensor, ids: Ragged, *, prompt_tokens: int = 0) -> Lists:
        """Return the token vectors of each row; ``ids`` are the token ids of the states."""
        vectors = states.float()
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return Lists({"": vectors}, ids.offsets)


def skip_ids(card: ModelCard, token_to_id: Callable[[str], int | None]) -> Ints:
    """Return the ids of the tokens whose vectors the model leaves out."""
    return np.empty(0, np.int64)
