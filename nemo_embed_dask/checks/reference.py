"""A model's vectors by the book: a text at a time, transformers in float32, the rest in float64.

Written apart from the engine on purpose, to check it: slow and plain, sharing only what reads files (the
card, the tokenizer and the weights). Knows no batch, no padding, no runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file

from ..models.card import ModelCard, find_prompt, length_limit, read_card
from ..models.locate import find_model
from ..models.sentence_transformers import Layer
from ..models.weights import load_weights
from ..settings import Settings
from ..tokens.huggingface import load_tokenizer

Matrix = npt.NDArray[np.float64]


def _weighted(rows: Matrix, before: int) -> Matrix:
    weights = np.arange(before + 1, before + len(rows) + 1)
    return np.asarray((rows * weights[:, None]).sum(0) / weights.sum())


# From a row's states ``[tokens, h]`` and the number of tokens left out before them to ``[h]``.
_POOL: dict[str, Callable[[Matrix, int], Matrix]] = {
    "mean_pooling": lambda rows, _: rows.mean(0),
    "cls": lambda rows, _: rows[0],
    "last_token": lambda rows, _: rows[-1],
    "max": lambda rows, _: rows.max(0),
    "weighted_mean": _weighted,
    "mean_sqrt_len": lambda rows, _: rows.sum(0) / np.sqrt(len(rows)),
}


def reference(texts: Sequence[str], settings: Settings) -> Matrix:
    """Vectors of texts, float64 ``[n, d]``, after any truncation and before any narrowing of types."""
    card = read_card(find_model(settings.model))
    tokenizer = load_tokenizer(card.path)
    model = load_weights(card.path, torch.float32, settings.adapter)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    skip = 0 if card.include_prompt or not prompt else _prompt_length(tokenizer, prompt)
    limit = length_limit(card, settings.max_seq_length)
    vectors = []
    for text in texts:
        whole = prompt + text[: settings.max_chars]
        encoded = tokenizer(whole.lower() if card.lowercase else whole, truncation=True, max_length=limit)
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([encoded["input_ids"]]))[0][0].double().numpy()
        vectors.append(_vector(states, min(skip, len(states) - 1), card, settings))
    return np.stack(vectors)


def _prompt_length(tokenizer: Any, prompt: str) -> int:
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def _vector(states: Matrix, skip: int, card: ModelCard, settings: Settings) -> Matrix:
    auto = settings.pooling == "auto"
    names = (card.pooling if auto else settings.pooling).split("+")
    vector = np.concatenate([_POOL[name](states[skip:], skip) for name in names])
    layers = list(card.layers)
    ends = bool(layers) and layers[-1].kind == "Normalize"
    for layer in layers[:-1] if ends else layers:
        vector = _LAYERS[layer.kind](vector, layer)
    unit = (ends or not auto) if settings.normalize is None else settings.normalize
    vector = vector[: settings.truncate_dim or (card.truncate_dim if auto else None)]
    return _unit(vector) if unit else vector


def _unit(vector: Matrix, _layer: Layer | None = None) -> Matrix:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _dense(vector: Matrix, layer: Layer) -> Matrix:
    weights = load_file(layer.path / "model.safetensors")
    out = weights["linear.weight"].astype(np.float64) @ vector + weights.get("linear.bias", 0.0)
    activation = layer.config.get("activation_function", "torch.nn.modules.activation.Tanh")
    out = getattr(torch.nn, activation.rpartition(".")[2])()(torch.from_numpy(out)).numpy()
    if not layer.config.get("use_residual"):
        return np.asarray(out)
    return np.asarray(out + (weights["residual.weight"] @ vector if "residual.weight" in weights else vector))


def _layer_norm(vector: Matrix, layer: Layer) -> Matrix:
    weights = load_file(layer.path / "model.safetensors")
    scaled = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
    return np.asarray(scaled * weights["norm.weight"] + weights["norm.bias"])


_LAYERS: dict[str, Callable[[Matrix, Layer], Matrix]] = {
    "Dense": _dense, "LayerNorm": _layer_norm, "Normalize": _unit,
}  # fmt: skip
