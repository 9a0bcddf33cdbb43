"""The head of a model: pooling, the layers after it, and normalization.

The model's card says what they are; ``pooling`` and ``normalize`` are what the user wants instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError, ModelError
from ..models.card import ModelCard
from ..models.sentence_transformers import Layer
from ..runtimes.cpu_linear import pack_linears
from .pooling import pool

VectorFunction = Callable[[Tensor], Tensor]
# Activations without parameters. A model's file can only choose one of these, so none is imported by name.
_ACTIVATIONS = (
    "Identity",
    "Tanh",
    "ReLU",
    "GELU",
    "Sigmoid",
    "SiLU",
    "Mish",
    "ELU",
    "SELU",
    "LeakyReLU",
    "ReLU6",
    "Softplus",
    "Softsign",
    "Hardswish",
)


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
        if auto:
            _check_own_pooling(card)
        self.pooling = card.pooling if auto else pooling
        layers, ends_with_normalize = _split_last_normalize(card.layers)
        self.normalize = (ends_with_normalize or not auto) if normalize is None else normalize
        self._layers = [_LAYERS[layer.kind](layer, device) for layer in layers]
        self.dimension = self._find_dimension(card, state_dimension, device)
        self.default_dim = (auto and card.truncate_dim) or self.dimension
        if card.has_modules and self.pooling != card.pooling:
            _warn_once(card, pooling)

    def __call__(self, states: Tensor, offsets: Tensor, *, prompt_tokens: int = 0) -> Tensor:
        """Return one vector per row, float32 ``[n, dimension]``. Parameters are those of `pooling.pool`."""
        with torch.inference_mode():
            pooled = pool(self.pooling, states, offsets, normalize=False, prompt_tokens=prompt_tokens)
            vectors = self._run_layers(pooled)
            return functional.normalize(vectors, dim=1) if self.normalize else vectors

    def _run_layers(self, vectors: Tensor) -> Tensor:
        for layer in self._layers:
            vectors = layer(vectors)
        return vectors

    def _find_dimension(self, card: ModelCard, state_dimension: int, device: torch.device) -> int:
        """Run the layers on one row of ones, and return the size of the result."""
        pooled = torch.ones(1, state_dimension * len(self.pooling.split("+")), device=device)
        try:
            return int(self._run_layers(pooled).shape[1])
        except RuntimeError as error:
            raise ConfigError(
                f"embedding_pooling={self.pooling!r} gives vectors that a layer of {card.path.name!r} cannot "
                f"take ({error}); pass embedding_pooling='auto'"
            ) from error


def _check_own_pooling(card: ModelCard) -> None:
    if card.has_chat_template and not card.has_modules:
        raise ModelError(
            f"{card.path.name!r} has a chat template and no modules.json: sentence-transformers would put "
            "texts into the template, and this package does not. Pass the name of a pooling instead of 'auto'"
        )


def _split_last_normalize(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], bool]:
    """Return the layers without a Normalize layer at the end, and whether there was one."""
    ends_with_normalize = bool(layers) and layers[-1].kind == "Normalize"
    return (layers[:-1] if ends_with_normalize else layers), ends_with_normalize


_warned: set[tuple[Path, str, str]] = set()


def _warn_once(card: ModelCard, pooling: str) -> None:
    key = (card.path, card.pooling, pooling)
    if key in _warned:
        return
    _warned.add(key)
    warnings.warn(
        f"embedding_pooling={pooling!r}, but model {card.path.name!r} was made with {card.pooling!r}: vectors "
        "will differ from those of its authors. Pass embedding_pooling='auto' to use the model's own pooling",
        stacklevel=2,
    )


class _Dense:
    """A Dense layer of sentence-transformers: ``activation(linear(x))``, or that plus a residual."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        weights = _load_layer_weights(layer, device)
        self._activation = _activation(layer)
        self._linear = _linear("linear", weights)
        self._residual: nn.Module | None = None
        if layer.config.get("use_residual"):
            # Without weights for it, input and output have the same size and the residual is the input.
            has_weights = "residual.weight" in weights
            self._residual = _linear("residual", weights) if has_weights else nn.Identity()

    def __call__(self, x: Tensor) -> Tensor:
        out = self._activation(self._linear(x))
        return out if self._residual is None else out + self._residual(x)


class _LayerNorm:
    """A LayerNorm layer of sentence-transformers."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        weights = _load_layer_weights(layer, device)
        self._weight, self._bias = weights["norm.weight"], weights["norm.bias"]

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self._weight.shape, self._weight, self._bias)


def _normalize(_layer: Layer, _device: torch.device) -> VectorFunction:
    return lambda x: functional.normalize(x, dim=1)


_LAYERS: dict[str, Callable[[Layer, torch.device], VectorFunction]] = {
    "Dense": _Dense,
    "LayerNorm": _LayerNorm,
    "Normalize": _normalize,
}


def _load_layer_weights(layer: Layer, device: torch.device) -> dict[str, Tensor]:
    file = layer.path / "model.safetensors"
    if not file.is_file():
        raise ModelError(
            f"{layer.path} has no model.safetensors, and pickled weights are never loaded: load the model with "
            "sentence-transformers, save it (model.save_pretrained), and pass that directory"
        )
    return {name: tensor.float() for name, tensor in load_file(file, device=str(device)).items()}


def _linear(name: str, weights: dict[str, Tensor]) -> nn.Module:
    """Return the linear layer of that name; on a CPU it is packed.

    The plain layer rounds a row differently in small and in large batches; the packed one does not.
    """
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    holder = nn.Sequential(layer.requires_grad_(False))
    return pack_linears(holder, torch.float32) if weight.device.type == "cpu" else holder


def _activation(layer: Layer) -> VectorFunction:
    path = layer.config.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = path.rpartition(".")[2]
    if name not in _ACTIVATIONS or not path.startswith("torch.nn."):
        raise ModelError(
            f"{layer.path} has the activation {path!r}, which is not supported; "
            f"use a model with one of {', '.join(_ACTIVATIONS)}"
        )
    module: VectorFunction = getattr(torch.nn, name)()
    return module
