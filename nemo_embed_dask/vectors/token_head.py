"""Token vectors: one list per row instead of one vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..device import to_device
from ..errors import ModelError
from ..lists import Lists
from ..models.card import ModelCard
from ..ragged import Bools, Ints, Ragged
from .head import split_last_normalize
from .layers import load_layer, run_layers, unit


class TokenHead:
    """From token states to the list of each row's token vectors (``embedding_pooling="none"``).

    Parameters
    ----------
    card : ModelCard
    state_dimension : int
        Size of one token state.
    device : torch.device
    normalize : bool or None
        Whether vectors are scaled to unit length. None: as a late interaction model does, else True.
    skip_ids : ndarray of int64
        Ids of the tokens whose vectors are left out.

    Attributes
    ----------
    dimension, default_dim : int
        Number of dimensions of a token's vector.
    normalize : bool
        Whether its vectors have unit length.

    Raises
    ------
    ModelError
        A layer cannot be loaded, or cannot take the vectors before it.
    """

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
        # Other models have layers for the vectors of texts only.
        layers, ends_with_normalize = split_last_normalize(card.colbert.layers) if card.colbert else ((), True)
        self.normalize = ends_with_normalize if normalize is None else normalize
        self._layers = [load_layer(layer, device) for layer in layers]
        self._skip_ids = skip_ids
        self.dimension = self.default_dim = self._find_dimension(card, state_dimension, device)

    def __call__(self, states: Tensor, offsets: Tensor, ids: Ragged, *, prompt_tokens: int = 0) -> Lists:
        """Return the token vectors of each row; ``ids`` are the token ids of the states."""
        kept = np.flatnonzero(self._is_kept(ids, prompt_tokens))
        with torch.no_grad():
            vectors = run_layers(self._layers, states.index_select(0, to_device(kept, states.device)).float())
            vectors = unit(vectors) if self.normalize else vectors
        return Lists({"": vectors}, np.searchsorted(kept, ids.offsets))

    def _is_kept(self, ids: Ragged, prompt_tokens: int) -> Bools:
        kept = ~np.isin(ids.values, self._skip_ids)
        if prompt_tokens:
            after_prompt, _ = ids.drop_first(prompt_tokens)
            kept[np.setdiff1d(np.arange(len(kept)), after_prompt, assume_unique=True)] = False
        return kept

    def _find_dimension(self, card: ModelCard, state_dimension: int, device: torch.device) -> int:
        """Run the layers on one row of ones, and return the size of the result."""
        try:
            return int(run_layers(self._layers, torch.ones(1, state_dimension, device=device)).shape[1])
        except RuntimeError as error:
            raise ModelError(
                f"a layer of {card.name!r} cannot take the vectors of the module before it ({error}); "
                "fetch the model again"
            ) from error


def skip_ids(card: ModelCard, token_to_id: Callable[[str], int | None]) -> Ints:
    """Return the ids of the tokens whose vectors the model leaves out; words that are no token have none."""
    words = card.colbert.skip_words if card.colbert else ()
    found = [index for index in map(token_to_id, words) if index is not None]
    if card.static is not None:  # a text without tokens has no vectors
        found.append(card.static.empty_id)
    return np.array(found, np.int64)
