"""Find the prompt that is put before each text."""

from __future__ import annotations

from ..errors import ConfigError, ModelError
from .card import ModelCard

# Default prompt names that need no prompt in the model's files: None is no default, and sentence-transformers
# uses an empty text for the others.
_EMPTY_PROMPTS = (None, "query", "document")


def find_prompt(card: ModelCard, prompt: str | None, prompt_name: str | None) -> str:
    """Return the text to put before every text: ``prompt``, the model's of that name, or its default one.

    Raises
    ------
    ConfigError
        The model has no prompt of that name.
    ModelError
        The model does not have the prompt that it names as its default, or its prompt is not a string.
    """
    if prompt is not None:
        return prompt
    if prompt_name is None:
        return _default_prompt(card)
    if prompt_name not in card.prompts:
        raise ConfigError(
            f"prompt_name={prompt_name!r}: model {card.name!r} has the prompts {sorted(card.prompts)}; "
            "name one of them, or pass prompt= with the text itself"
        )
    return _prompt_text(card, prompt_name)


def _default_prompt(card: ModelCard) -> str:
    if card.default_prompt not in _EMPTY_PROMPTS and card.default_prompt not in card.prompts:
        raise ModelError(
            f"model {card.name!r} has no prompt {card.default_prompt!r}, which it names as its default; "
            "pass prompt= with the text, or prompt='' for none"
        )
    return _prompt_text(card, card.default_prompt or "")


def _prompt_text(card: ModelCard, name: str) -> str:
    text: object = card.prompts.get(name, "")
    if not isinstance(text, str):
        raise ModelError(
            f"prompt {name!r} of model {card.name!r} is a value of type {type(text).__name__}, not a "
            "string; pass prompt= with the text, or prompt='' for none"
        )
    return text
