"""Compare vectors with those of sentence-transformers, the third opinion beside engine and reference."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch

from ..errors import type_and_message
from ..models.card import find_prompt, length_limit, read_card
from ..models.locate import find_model
from ..settings import Settings
from .reference import Matrix, cosines, least
from .reference_files import load_tokenizer


def compare_sentence_transformers(
    vectors: Matrix, texts: list[str], settings: Settings
) -> tuple[float | None, str]:
    """Return the least cosine to sentence-transformers' vectors and "", or None and why there is none."""
    if settings.pooling != "auto" or settings.adapter is not None:
        return None, "not compared: another pooling or an adapter is configured"
    if importlib.util.find_spec("sentence_transformers") is None:
        return None, "not installed"
    try:
        model = _load(settings)
        n_other = _count_other_tokens(model, texts, settings)
        if n_other:
            return (
                None,
                f"not compared: it tokenizes {n_other} of {len(texts)} texts differently from tokenizer.json",
            )
        theirs = _embed(model, texts, settings)
    except Exception as error:  # noqa: BLE001 - files that it cannot load raise any type
        return None, f"failed: {type_and_message(error)}"
    if theirs.shape != vectors.shape:
        return 0.0, ""
    # It has no vector for a text without tokens, or that is nothing but a prompt that is not pooled.
    has_vector = np.isfinite(theirs).all(axis=1) & theirs.any(axis=1)
    return least(cosines(vectors[has_vector], theirs[has_vector])), ""


def _load(settings: Settings) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(find_model(settings.model)),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32},
        trust_remote_code=False,
    )
    if settings.max_seq_length is not None:
        model.max_seq_length = settings.max_seq_length
    return model


def _count_other_tokens(model: Any, texts: list[str], settings: Settings) -> int:
    """Return how many texts the tokenizer of transformers, which the model uses, tokenizes in another way."""
    card = read_card(find_model(settings.model))
    limit = length_limit(card, settings.max_seq_length)
    tokenize, _ = load_tokenizer(card, limit)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    read = [prompt + text[: settings.max_chars] for text in texts]
    theirs = [model.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in read]
    return sum(list(ids) != tokenize(text) for ids, text in zip(theirs, read, strict=True))


def _embed(model: Any, texts: list[str], settings: Settings) -> Matrix:
    """Return the model's vectors, one text per batch, because its padding can harm."""
    vectors = model.encode(
        [text[: settings.max_chars] for text in texts],
        prompt=settings.prompt,
        prompt_name=None if settings.prompt is not None else settings.prompt_name,
        batch_size=1,
        truncate_dim=settings.truncate_dim,
        show_progress_bar=False,
    )
    return np.asarray(vectors, dtype=np.float64)
