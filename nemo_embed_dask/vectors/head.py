"""From token states to the model's vectors: pooling, then the layers behind it. Knows no text and no batch.

What a model does is on its card; ``pooling`` and ``normalize`` are what the user asks for instead.
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

Step = Callable[[Tensor], Tensor]
# Activations that take no parameters; none is imported by a name found in a file.
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "Mish", "ELU", "SELU", "LeakyReLU",
                "ReLU6", "Softplus", "Softsign", "Hardswish")  # fmt: skip


class Head:
    """Pools token states and runs the layers behind.

    ``pooling="auto"`` is the model's own, which another name replaces; the layers behind it always run,
    but for a last Normalize, which ``normalize`` decides: None is the model's way under "auto", and unit
    length, Curator's way, under any other pooling.

    ``dimension``: width of its vectors; ``width``: how many of these are kept if nothing else is asked,
    fewer where the card says so and ``pooling`` is "auto". ``unit``: whether they are scaled to unit length.
    """

    def __init__(
        self, card: ModelCard, width: int, device: torch.device, *, pooling: str, normalize: bool | None
    ) -> None:
        auto = pooling == "auto"
        if auto and card.chat and not card.declared:
            raise ModelError(
                f"{card.path.name!r} states no modules and has a chat template: sentence-transformers puts "
                "texts into it, and this package does not. Name the pooling instead of 'auto'"
            )
        ends = bool(card.layers) and card.layers[-1].kind == "Normalize"
        self.pooling = card.pooling if auto else pooling
        self.unit = (ends or not auto) if normalize is None else normalize
        layers = card.layers[:-1] if ends else card.layers
        self._steps = [_STEPS[layer.kind](layer, device) for layer in layers]
        try:
            probe = torch.ones(1, width * len(self.pooling.split("+")), device=device)
            self.dimension = int(self._project(probe).shape[1])
        except RuntimeError as error:
            raise ConfigError(
                f"embedding_pooling={self.pooling!r} gives vectors that a layer of {card.path.name!r} cannot "
                f"take ({error}); pass embedding_pooling='auto'"
            ) from error
        self.width = (auto and card.truncate_dim) or self.dimension
        if card.declared and self.pooling != card.pooling:
            _warn_once(card, pooling)

    def __call__(self, states: Tensor, offsets: Tensor, *, skip: int = 0) -> Tensor:
        """Vectors of ragged states: float32 ``[n, dimension]``; ``skip`` as in `pooling.pool`."""
        with torch.inference_mode():
            vectors = self._project(pool(self.pooling, states, offsets, normalize=False, skip=skip))
            return functional.normalize(vectors, dim=1) if self.unit else vectors

    def _project(self, vectors: Tensor) -> Tensor:
        for step in self._steps:
            vectors = step(vectors)
        return vectors


_warned: set[tuple[Path, str]] = set()


def _warn_once(card: ModelCard, pooling: str) -> None:
    if (card.path, pooling) in _warned:
        return
    _warned.add((card.path, pooling))
    warnings.warn(
        f"embedding_pooling={pooling!r}, but model {card.path.name!r} was made with {card.pooling!r}: vectors "
        "will not be those of its model card. Pass embedding_pooling='auto' for the model's own",
        stacklevel=2,
    )


def _weights(layer: Layer, device: torch.device) -> dict[str, Tensor]:
    file = layer.path / "model.safetensors"
    if not file.is_file():
        raise ModelError(
            f"{layer.path} has no model.safetensors, and pickled weights are never loaded: load the model with "
            "sentence-transformers, save it (model.save_pretrained), and pass that directory"
        )
    return {name: tensor.float() for name, tensor in load_file(file, device=str(device)).items()}


def _dense(layer: Layer, device: torch.device) -> Step:
    weights, activation = _weights(layer, device), _activation(layer)
    linear = _linear("linear", weights)
    if not layer.config.get("use_residual"):
        return lambda x: activation(linear(x))
    residual = _linear("residual", weights) if "residual.weight" in weights else nn.Identity()
    return lambda x: activation(linear(x)) + residual(x)


def _linear(name: str, weights: dict[str, Tensor]) -> nn.Module:
    """A linear layer; on a CPU packed, as a plain one rounds a row otherwise among few rows than among many."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    holder = nn.Sequential(layer.requires_grad_(False))
    return pack_linears(holder, torch.float32) if weight.device.type == "cpu" else holder


def _activation(layer: Layer) -> Step:
    path = layer.config.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = path.rpartition(".")[2]
    if name not in _ACTIVATIONS or not path.startswith("torch.nn."):
        raise ModelError(f"{layer.path} has the activation {path!r}; known are {', '.join(_ACTIVATIONS)}")
    module: Step = getattr(torch.nn, name)()
    return module


def _layer_norm(layer: Layer, device: torch.device) -> Step:
    weights = _weights(layer, device)
    weight, bias = weights["norm.weight"], weights["norm.bias"]
    return lambda x: functional.layer_norm(x, weight.shape, weight, bias)


def _normalize(_layer: Layer, _device: torch.device) -> Step:
    return lambda x: functional.normalize(x, dim=1)


_STEPS: dict[str, Callable[[Layer, torch.device], Step]] = {
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
}
