"""Find the prompt that is put before each text."""

from __future__ import annotations

import re

from ..errors import ConfigError, ModelError
from .card import ModelCard
from .notices import warn_once

# Default prompt names that need no prompt in the model's files: None is no default, and sentence-transformers
# uses an empty text for the others.
_EMPTY_PROMPTS = (None, "query", "document")
# The names of a prompt for documents, in the order in which sentence-transformers looks for them.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
# Last words of other names of such prompts: "retrieval.passage", "search_document".
_DOCUMENT_WORDS = (*_DOCUMENT_PROMPTS, "doc")


def find_prompt(card: ModelCard, prompt: str | None, prompt_name: str | None) -> str:
    """Return the text to put before every text: ``prompt``, the model's of that name, or its default one.

    ``prompt_name="auto"`` is the model's prompt for documents: "document", "passage" or "corpus", or one whose
    name ends in such a word. It is an empty text if there is none, as in ``encode_document`` of
    sentence-transformers.

    Raises
    ------
    ConfigError
        The model has no prompt of that name, or several that "auto" may mean.
    ModelError
        The model does not have the prompt that it names as its default, or its prompt is not a string.
    """
    if prompt is not None:
        return prompt
    if prompt_name == "auto":
        return _document_prompt(card)
    if prompt_name is None:
        default = _default_prompt(card)
        _warn_of_document_prompt(card, default)
        return default
    if prompt_name == "query" and card.has_routes:
        return _prompt_text(card, prompt_name)  # it chooses the modules; a prompt of this name is optional
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


def _document_prompt(card: ModelCard) -> str:
    if "auto" in card.prompts:
        raise ConfigError(
            f"prompt_name='auto' means the prompt for documents, but model {card.name!r} has a prompt of this "
            "name; pass prompt= with the text itself"
        )
    names = _document_prompt_names(card)
    texts = [_prompt_text(card, name) for name in names]
    if len({*texts} - {""}) > 1 and names[0] not in _DOCUMENT_PROMPTS:
        raise ConfigError(
            f"prompt_name='auto': model {card.name!r} has several prompts for documents, {sorted(names)}; name "
            "one of them"
        )
    if not names:
        _warn_of_no_document_prompt(card)
    return texts[0] if texts else ""


def _document_prompt_names(card: ModelCard) -> list[str]:
    """Return the names of the model's prompts for documents, that to take first.

    An empty prompt "document" does not hide a prompt "passage", because sentence-transformers adds the former
    to the files of every model that it saves.
    """
    names = [name for name in _DOCUMENT_PROMPTS if name in card.prompts]
    others = [name for name in card.prompts if re.split(r"[._-]", name.casefold())[-1] in _DOCUMENT_WORDS]
    names += [name for name in others if name not in names]
    return sorted(names, key=lambda name: not card.prompts[name])


def _warn_of_document_prompt(card: ModelCard, default: str) -> None:
    """Warn if the model has a prompt for documents which is not used."""
    name = next(iter(_document_prompt_names(card)), "")
    text = _prompt_text(card, name) if name else ""
    if not text or text == default:
        return
    message = (
        f"model {card.name!r} has a prompt for documents, {name!r} ({text!r:.60}), which is not used: vectors "
        "of documents are made with it. Pass prompt_name='auto' to use it, or prompt='' for no prompt"
    )
    warn_once(card.path, "document prompt", message=message)


def _warn_of_no_document_prompt(card: ModelCard) -> None:
    """Warn if the model has other prompts, one of which may be for documents."""
    names = sorted(name for name, text in card.prompts.items() if text)
    if not names:
        return
    message = (
        f"prompt_name='auto' found no prompt for documents in the files of model {card.name!r}, which have the "
        f"prompts {names}: none is used. If one of them is for documents, pass its name as prompt_name"
    )
    warn_once(card.path, "no document prompt", message=message)
