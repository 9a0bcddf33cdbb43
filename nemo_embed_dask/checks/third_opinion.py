"""Compare vectors with those of sentence-transformers, the third opinion beside engine and reference."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch

from ..errors import type_and_message
from ..models.card import find_card
from ..models.limits import length_limit
from ..models.locate import find_model
from ..models.prompts import find_prompt
from ..ragged import Bools
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
        n_other, has_text = _compare_tokens(model, texts, settings)
        why = _why_not_compared(model, n_other, len(texts), settings)
        if why:
            return None, f"not compared: {why}"
        theirs = _embed(model, texts, settings)
    except Exception as error:  # noqa: BLE001 - files that it cannot load raise any type
        return None, f"failed: {type_and_message(error)}"
    if theirs.shape != vectors.shape:
        return 0.0, ""
    return least(cosines(vectors[has_text], theirs[has_text])), ""


def _load(settings: Settings) -> Any:
    from sentence_transformers import SentenceTransformer

    ref = settings.model
    code = {} if ref.code_revision is None else {"code_revision": ref.code_revision}
    model = SentenceTransformer(
        str(find_model(ref)),
        device="cpu",
        cache_folder=ref.hub_arguments["cache_dir"],
        local_files_only=True,
        model_kwargs={"dtype": torch.float32, **code},
        config_kwargs=code,
        processor_kwargs=code,
        trust_remote_code=settings.model.trust_remote_code,
    )
    if settings.max_seq_length is not None and find_card(settings.model).static is None:
        model.max_seq_length = settings.max_seq_length
    return model


def _why_not_compared(model: Any, n_other: int, n_texts: int, settings: Settings) -> str:
    """Return why sentence-transformers' vectors are others than the authors'; empty if they are not."""
    libraries = ("torch", "transformers", "sentence_transformers")
    own = [part for part in model.modules() if type(part).__module__.partition(".")[0] not in libraries]
    if any(part._non_persistent_buffers_set for part in own):  # see `remote_code.rebuild`
        return "transformers 5 does not compute the tables of this model's own code"
    if not n_other:
        return ""
    static = find_card(settings.model).static
    right = "model2vec" if static and static.layout == "model2vec" else "tokenizer.json"
    return f"it tokenizes {n_other} of {n_texts} texts differently from {right}"


def _compare_tokens(model: Any, texts: list[str], settings: Settings) -> tuple[int, Bools]:
    """Compare the tokens of sentence-transformers' tokenizer, which is transformers', with the right ones.

    Returns
    -------
    n_other : int
        How many texts it tokenizes in another way.
    has_text : ndarray of bool, shape (n,)
        Whether tokens are left to be pooled. Without any, sentence-transformers' vector has no meaning: it is
        zero, infinite, or the state of the prompt's first token.
    """
    card = find_card(settings.model)
    limit = length_limit(card, settings.max_seq_length)
    tokenize, _ = load_tokenizer(card, limit)
    prompt = find_prompt(card, settings.prompt, settings.prompt_name)
    read = [prompt + text[: settings.max_chars] for text in texts]
    if card.static is not None:
        theirs = [list(model.tokenizer.encode(text, add_special_tokens=False).ids) for text in read]
    else:
        theirs = [list(model.tokenizer(text, truncation=True, max_length=limit)["input_ids"]) for text in read]
    ours = [tokenize(text) for text in read]
    without_text = [] if card.include_prompt and prompt else tokenize(prompt)
    has_text = [bool(ids) and ids != without_text for ids in ours]
    return sum(a != b for a, b in zip(theirs, ours, strict=True)), np.array(has_text, np.bool_)


def _embed(model: Any, texts: list[str], settings: Settings) -> Matrix:
    """Return the model's vectors, one text per batch, because its padding can harm."""
    vectors = model.encode(
        [text[: settings.max_chars] for text in texts],
        prompt=find_prompt(find_card(settings.model), settings.prompt, settings.prompt_name),
        task=settings.model.task,
        batch_size=1,
        truncate_dim=settings.truncate_dim,
        show_progress_bar=False,
    )
    return np.asarray(vectors, dtype=np.float64)
