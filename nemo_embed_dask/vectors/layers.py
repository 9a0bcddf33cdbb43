"""The layers of sentence-transformers (Dense, LayerNorm, Normalize), and Stanford's projection (ColBERT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from ..models.names import model_file, model_name
from ..models.pickled import load_pickled
from ..models.sentence_transformers import Layer
from ..models.weight_files import PICKLED, WEIGHTS, is_pickled, weight_files
from ..runtimes.cpu_linear import pack_linears

VectorFunction = Callable[[Tensor], Tensor]
Shapes = dict[str, tuple[int | None, ...]]
# The name of the projection's weight in a model of Stanford's ColBERT.
_PROJECTION = "linear.weight"
# Activations without parameters. A model's file can only choose one of these, so none is imported by name.
ACTIVATIONS = (
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


def load_layer(layer: Layer, device: torch.device) -> VectorFunction:
    """Load a layer of a model as a function from vectors to vectors.

    Raises
    ------
    ModelError
        The layer has no weights, others than its config.json describes, or an unknown activation.
    """
    return _LAYERS[layer.kind](layer, device)


def run_layers(layers: Sequence[VectorFunction], vectors: Tensor) -> Tensor:
    """Run layers one after the other; a row with NaN or infinite values becomes NaN.

    A Tanh gives 1 for an infinite value, so that the row would look finite.
    """
    out = vectors
    for layer in layers:
        out = layer(out)
    return out + 0 * vectors.sum(dim=1, keepdim=True) if layers else out


class _Dense:
    """A Dense layer of sentence-transformers: ``activation(linear(x))``, or that plus a residual."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        self._activation = _activation(layer)
        size_in, size_out = layer.config.count("in_features"), layer.config.count("out_features")
        shapes: Shapes = {"linear.weight": (size_out, size_in)}
        if layer.config.flag("bias", True):
            shapes["linear.bias"] = (size_out,)
        has_residual = layer.config.flag("use_residual", False)
        # If input and output have the same size, the residual is the input and has no weights.
        if has_residual and size_in != size_out:
            shapes["residual.weight"] = (size_out, size_in)
        weights = _load_weights(layer, shapes, device)
        self._linear = _linear("linear", weights)
        self._residual: nn.Module | None = None
        if has_residual:
            self._residual = _linear("residual", weights) if "residual.weight" in shapes else nn.Identity()

    def __call__(self, x: Tensor) -> Tensor:
        out = self._activation(self._linear(x))
        return out if self._residual is None else out + self._residual(x)


class _LayerNorm:
    """A LayerNorm layer of sentence-transformers."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        shape = (layer.config.count("dimension"),)
        weights = _load_weights(layer, {"norm.weight": shape, "norm.bias": shape}, device)
        self._weight, self._bias = weights["norm.weight"], weights["norm.bias"]

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self._weight.shape, self._weight, self._bias)


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors to unit length; one whose length overflows float32 becomes NaN, and not zeros."""
    lengths = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(lengths.isinf(), torch.nan, lengths.clamp_min(1e-12))


def _projection(layer: Layer, device: torch.device) -> VectorFunction:
    """Return the linear layer that Stanford's ColBERT saves among the weights of its transformer."""
    if is_pickled(layer.path) and _PROJECTION in (tensors := load_pickled(layer.path)):
        return _linear("linear", {_PROJECTION: tensors[_PROJECTION].to(device).float()})
    for name in () if is_pickled(layer.path) else weight_files(layer.path):
        with safe_open(layer.path / name, framework="pt", device=str(device)) as tensors:
            if _PROJECTION in tensors.keys():  # noqa: SIM118
                return _linear("linear", {_PROJECTION: tensors.get_tensor(_PROJECTION).float()})
    raise ModelError(
        f"model {model_name(layer.path)!r} has no {_PROJECTION!r} among its weights, which makes the vectors "
        "of tokens: fetch the model again"
    )


def _normalize(_layer: Layer, _device: torch.device) -> VectorFunction:
    return unit


_LAYERS: dict[str, Callable[[Layer, torch.device], VectorFunction]] = {
    "Dense": _Dense,
    "LayerNorm": _LayerNorm,
    "Normalize": _normalize,
    "Projection": _projection,
}


def _load_weights(layer: Layer, shapes: Shapes, device: torch.device) -> dict[str, Tensor]:
    """Load the weights in a layer's folder, which must have these names and shapes, no fewer and no more."""
    file = layer.path / weight_files(layer.path)[0]
    weights = _load_file(file, device)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes:
        raise ModelError(
            f"{model_file(file)} has weights of the shapes {found}, but config.json beside it describes "
            f"{shapes}: the two belong to different models; fetch the model again"
        )
    return {name: tensor.float() for name, tensor in weights.items()}


def _load_file(file: Path, device: torch.device) -> dict[str, Tensor]:
    if not file.is_file():
        raise ModelError(
            f"{model_file(file.parent)} has no {WEIGHTS} and no {PICKLED}: load the model with "
            "sentence-transformers, save it (model.save_pretrained), and pass that directory"
        )
    if file.suffix == ".bin":
        return {name: tensor.to(device) for name, tensor in load_pickled(file.parent).items()}
    try:
        return load_file(file, device=str(device))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{model_file(file)} is not a safetensors file ({error}); fetch the model again"
        ) from error


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
    # sentence-transformers' default is tanh, but null is not: it does not load such a file.
    path = layer.config.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = str(path).rpartition(".")[2]
    if name not in ACTIVATIONS or not str(path).startswith("torch.nn."):
        raise ModelError(
            f"{model_file(layer.path)} has the activation {path!r}, which is not supported; "
            f"use a model with one of {', '.join(ACTIVATIONS)}"
        )
    module: VectorFunction = getattr(torch.nn, name)()
    return module
