"""Find weights that decide token states among those that the loaded transformer does not use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open
from torch import nn

from .pickled import load_pickled
from .weight_files import is_pickled, weight_files

# First names of heads, for files that hold a head beside a transformer without a prefix, such as T5's.
_HEADS = ("pooler", "head", "lm_head", "cls", "classifier", "classification_head", "score", "qa_outputs")
# Last names of tensors that older files hold, and that models compute: positions, rotary frequencies, masks.
_COMPUTED = ("position_ids", "inv_freq", "masked_bias", "causal_mask", "_float_tensor", "version")


def unused_weights(path: Path, model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return the unused weights that decide token states: those of heads, and values that are computed, do not.

    A file of a model with a head has the transformer's weights below a prefix, such as "bert."; all others are
    the head's.
    """
    names = sorted(names)
    if not names:
        return []
    shapes = _read_shapes(path)
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in shapes):
        names = [name for name in names if name.startswith(prefix)]
    return [name for name in names if not _is_harmless(model, name.removeprefix(prefix), shapes.get(name, []))]


def is_head(model: nn.Module, name: str) -> bool:
    """Return whether a weight, named without a prefix, is of a pooler, a head, or a decoder left out."""
    first = name.partition(".")[0]
    return first in _HEADS or (first == "decoder" and not hasattr(model, "decoder"))


def _is_harmless(model: nn.Module, name: str, shape: list[int]) -> bool:
    last = name.rpartition(".")[2]
    is_mask = last == "bias" and len(shape) == 4 and shape[:2] == [1, 1]  # the causal mask of GPT-2 and its kin
    return is_head(model, name) or last in _COMPUTED or is_mask or name in dict(model.named_buffers())


def _read_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor in a model's files."""
    shapes: dict[str, list[int]] = {}
    if is_pickled(path):
        return {name: list(tensor.shape) for name, tensor in load_pickled(path).items()}
    for name in weight_files(path):
        with safe_open(path / name, framework="pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    return shapes
