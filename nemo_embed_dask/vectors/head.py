"""The head of a model: pooling, the layers after it, and normalization.

The model's card says what they are; ``pooling`` and ``normalize`` are what the user wants instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError, ModelError
from ..models.card import ModelCard
from ..models.sentence_transformers import Layer
from .layers import load_layer, run_layers, unit
from .own_pooling import check_pooling, warn_of_pooling
from .pooling import pool


class Head:
    """Pooling and the layers after it, as one function from token states to vectors.

    Parameters
    ----------
    card : ModelCard
    state_dimension : int
        Size of one token state.
    device : torch.device
    pooling : str
        "auto" for the model's own, else a name that `pooling.pool` accepts. The layers after the pooling run in
        both cases.
    normalize : bool or None
        Whether vectors are scaled to unit length, in place of a Normalize layer at the model's end. None: as in
        the model if ``pooling`` is "auto", else True, as in Curator.

    Attributes
    ----------
    dimension : int
        Number of dimensions of its vectors.
    default_dim : int
        How many leading dimensions are kept if the user does not say: ``dimension``, or the card's
        ``truncate_dim`` if ``pooling`` is "auto".
    normalize : bool
        Whether its vectors have unit length.

    Raises
    ------
    ConfigError
        The model's layers cannot take the vectors of this pooling.
    ModelError
        The model's own pooling is not known, or a layer cannot be loaded.
    """

    def __init__(
        self,
        card: ModelCard,
        state_dimension: int,
        device: torch.device,
        *,
        pooling: str,
        normalize: bool | None,
    ) -> None:
        auto = pooling == "auto"
        check_pooling(card, pooling)
        self.pooling = card.pooling if auto else pooling
        layers, ends_with_normalize = split_last_normalize(card.layers)
        self.normalize = (ends_with_normalize or not auto) if normalize is None else normalize
        _check_width(card, state_dimension)
        self._layers = [load_layer(layer, device) for layer in layers]
        self.dimension = self._find_dimension(card, state_dimension, device)
        self.default_dim = (auto and card.truncate_dim) or self.dimension
        warn_of_pooling(card, pooling)

    def __call__(self, states: Tensor, offsets: Tensor, *, prompt_tokens: int = 0) -> Tensor:
        """Return one vector per row, float32 ``[n, dimension]``. Parameters are those of `pooling.pool`."""
        with torch.inference_mode():
            pooled = pool(self.pooling, states, offsets, normalize=False, prompt_tokens=prompt_tokens)
            return self.after_pooling(pooled)

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """Return the vectors of pooled rows: run the layers, and normalize."""
        with torch.inference_mode():
            vectors = run_layers(self._layers, pooled)
            return unit(vectors) if self.normalize else vectors

    def _find_dimension(self, card: ModelCard, state_dimension: int, device: torch.device) -> int:
        """Run the layers on one row of ones, and return the size of the result."""
        pooled = torch.ones(1, state_dimension * len(self.pooling.split("+")), device=device)
        try:
            return int(run_layers(self._layers, pooled).shape[1])
        except RuntimeError as error:
            if self.pooling == card.pooling:
                raise ModelError(
                    f"a layer of {card.name!r} cannot take the vectors of the module before it ({error}); "
                    "fetch the model again"
                ) from error
            raise ConfigError(
                f"embedding_pooling={self.pooling!r} gives vectors that a layer of {card.name!r} cannot "
                f"take ({error}); pass embedding_pooling='auto'"
            ) from error


def _check_width(card: ModelCard, state_dimension: int) -> None:
    if card.state_dimension not in (None, state_dimension):
        raise ModelError(
            f"the pooling of {card.name!r} takes token states of {card.state_dimension} dimensions, but "
            f"the model's have {state_dimension}: its files belong to different models; fetch the model again"
        )


def split_last_normalize(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], bool]:
    """Return the layers without a Normalize layer at the end, and whether there was one."""
    ends_with_normalize = bool(layers) and layers[-1].kind == "Normalize"
    return (layers[:-1] if ends_with_normalize else layers), ends_with_normalize
