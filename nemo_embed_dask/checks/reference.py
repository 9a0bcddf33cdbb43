"""A slow and simple reference for the engine's vectors: one text at a time, in float32, the head in float64.

It is written independently of the engine, in order to check it. Both share the model's card, and not what reads
tokenizer and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..models.card import ModelCard, find_card
from ..models.limits import length_limit
from ..models.prompts import find_prompt
from ..models.remote_code import is_custom
from ..models.sentence_transformers import Layer
from ..models.token_states import token_states
from ..runtimes.model_state import ModelState
from ..settings import Settings
from .reference_files import load_model, load_tokenizer, read_weights

Matrix = npt.NDArray[np.float64]


def _weighted_mean(states: Matrix, prompt_tokens: int) -> Matrix:
    weights = np.arange(prompt_tokens + 1, prompt_tokens + len(states) + 1)
    return np.asarray((states * weights[:, None]).sum(0) / weights.sum())


# From the states of one row, ``[tokens, h]``, and the number of prompt tokens removed before them, to ``[h]``.
_POOLINGS: dict[str, Callable[[Matrix, int], Matrix]] = {
    "mean_pooling": lambda states, _: states.mean(0),
    "cls": lambda states, _: states[0],
    "last_token": lambda states, _: states[-1],
    "max": lambda states, _: states.max(0),
    "weighted_mean": _weighted_mean,
    "mean_sqrt_len": lambda states, _: states.sum(0) / np.sqrt(len(states)),
}


def reference(texts: Sequence[str], settings: Settings) -> Matrix:
    """Return the vectors of texts, float64 ``[n, d]``: shortened to ``truncate_dim``, but not quantized.

    A text without tokens has a vector of zeros.
    """
    card = find_card(settings.model, settings.adapter)
    tokenize, special_ids = load_tokenizer(card, length_limit(card, settings.max_seq_length))
    model = load_model(card)
    state = ModelState(model)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    prompt_tokens = 0
    if prompt and not card.include_prompt:
        prompt_ids = tokenize(prompt)
        prompt_tokens = len(prompt_ids) - any(index in special_ids for index in prompt_ids[-1:])
    vectors = []
    for text in texts:
        ids = tokenize(prompt + text[: settings.max_chars])
        vectors.append(_vector(_states(model, ids), prompt_tokens, card, settings) if ids else np.empty(0))
        state.restore()  # so that no text depends on those before it
    width = max(1, *map(len, vectors))
    return np.stack([vector if len(vector) else np.zeros(width) for vector in vectors])


def _states(model: torch.nn.Module, ids: list[int]) -> Matrix:
    with torch.inference_mode():
        inputs = {"input_ids": torch.tensor([ids])}
        if is_custom(model):
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return token_states(model(**inputs))[0].double().numpy()


def _vector(states: Matrix, prompt_tokens: int, card: ModelCard, settings: Settings) -> Matrix:
    """Return one row's vector: pool its states, run the layers, shorten and normalize.

    A text that is nothing but the prompt keeps its last token.
    """
    prompt_tokens = min(prompt_tokens, len(states) - 1)
    auto = settings.pooling == "auto"
    pooling = card.pooling if auto else settings.pooling
    pooled = [_POOLINGS[name](states[prompt_tokens:], prompt_tokens) for name in pooling.split("+")]
    vector = np.concatenate(pooled)
    ends_with_normalize = bool(card.layers) and card.layers[-1].kind == "Normalize"
    for layer in card.layers[:-1] if ends_with_normalize else card.layers:
        vector = _LAYERS[layer.kind](vector, layer)
    vector = vector[: settings.truncate_dim or (card.truncate_dim if auto else None)]
    normalize = settings.normalize
    if normalize is None:
        normalize = ends_with_normalize or not auto
    return _unit(vector) if normalize else vector


def _unit(vector: Matrix) -> Matrix:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _normalize(vector: Matrix, _layer: Layer) -> Matrix:
    return _unit(vector)


def _read_layer(layer: Layer) -> dict[str, Matrix]:
    return {name: tensor.double().numpy() for name, tensor in read_weights(layer.path).items()}


def _dense(vector: Matrix, layer: Layer) -> Matrix:
    weights = _read_layer(layer)
    linear = weights["linear.weight"] @ vector + weights.get("linear.bias", 0.0)
    activation = layer.config.get("activation_function", "torch.nn.modules.activation.Tanh")
    module = getattr(torch.nn, activation.rpartition(".")[2])()
    out = np.asarray(module(torch.from_numpy(linear)).numpy())
    if not layer.config.get("use_residual"):
        return out
    residual = weights["residual.weight"] @ vector if "residual.weight" in weights else vector
    return np.asarray(out + residual)


def _layer_norm(vector: Matrix, layer: Layer) -> Matrix:
    weights = _read_layer(layer)
    scaled = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
    return np.asarray(scaled * weights["norm.weight"] + weights["norm.bias"])


_LAYERS: dict[str, Callable[[Matrix, Layer], Matrix]] = {
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
}


def cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each pair of rows; that of two zero vectors is 1."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: Matrix = (a * b).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    return np.where((a == 0).all(axis=1) & (b == 0).all(axis=1), 1.0, found)


def least(values: Matrix) -> float:
    """Return the smallest of some cosines; rounding can make all of them greater than 1."""
    return float(values.min(initial=1.0))
