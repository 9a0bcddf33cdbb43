"""Compare the pooling that is asked for with what a model's files say of its own pooling."""

from __future__ import annotations

from contextlib import suppress

from ..errors import ModelError
from ..lists import LIST_COLUMNS
from ..models.card import ModelCard, read_card
from ..models.notices import warn_once
from ..stage_settings import DefaultPooling


def check_pooling(card: ModelCard, pooling: str) -> None:
    """Refuse a model that was not made for one vector per text, or whose own pooling is wanted and not known.

    Parameters
    ----------
    card : ModelCard
    pooling : str
        "auto"; a name of a pooling; or a `DefaultPooling`, if the user has named none.

    Raises
    ------
    ModelError
        The model was made for something else, and no pooling was named; or "auto" cannot be known.
    """
    if not _is_named(pooling):
        _refuse_other_kinds(card)
    if pooling == "auto":
        _check_own_pooling(card)


def check_lists(card: ModelCard, pooling: str) -> None:
    """Refuse token vectors or weights of a model that was made for them, but whose modules are not known.

    Parameters
    ----------
    card : ModelCard
    pooling : str
        "none" or "splade".

    Raises
    ------
    ModelError
        The modules are not known.
    """
    if card.list_pooling == pooling and _has_lost_modules(card):
        raise ModelError(
            f"model {card.name!r} is {card.other_kind}, and embedding_pooling={pooling!r} cannot run its "
            f"modules: {_lost_modules(card)}: fetch the model again"
        )


def _has_lost_modules(card: ModelCard) -> bool:
    return bool(card.list_pooling) and card.colbert is None and card.splade is None


def _lost_modules(card: ModelCard) -> str:
    if _has_modules_file(card):
        return "modules.json does not list them"
    return f"modules.json is missing, which lists the modules of {card.other_kind}"


def _has_modules_file(card: ModelCard) -> bool:
    return ((card.root or card.path) / "modules.json").is_file()


def warn_of_pooling(card: ModelCard, pooling: str) -> None:
    """Warn if a pooling is assumed, or is not the model's own."""
    if card.has_modules and pooling not in ("auto", card.pooling):
        _warn_of_other_pooling(card, pooling)
    elif not card.has_modules and not _is_named(pooling):
        _warn_of_assumption(card, pooling)


def _is_named(pooling: str) -> bool:
    return pooling != "auto" and not isinstance(pooling, DefaultPooling)


def _refuse_other_kinds(card: ModelCard) -> None:
    if card.pooling in LIST_COLUMNS:
        what = "vectors of tokens" if card.pooling == "none" else "weights of tokens"
        raise ModelError(
            f"model {card.name!r} was made for {what} and not for one vector per text: pass embedding_pooling="
            f"{card.pooling!r}; or name another pooling, such as 'cls', to use its transformer"
        )
    if _has_lost_modules(card):
        raise ModelError(
            f"model {card.name!r} is {card.other_kind}, which was not made for embeddings, and "
            f"{_lost_modules(card)}: fetch the model again, and pass embedding_pooling={card.list_pooling!r}; "
            "or name another pooling, such as 'cls', to use its transformer"
        )
    if card.other_kind:
        raise ModelError(
            f"model {card.name!r} is {card.other_kind}, which was not made for embeddings: use an embedding "
            "model; or name a pooling, such as embedding_pooling='cls', to use its transformer all the same"
        )


def _check_own_pooling(card: ModelCard) -> None:
    if card.has_chat_template and not card.has_modules:
        raise ModelError(
            f"{card.name!r} has a chat template and no modules.json: sentence-transformers would put "
            "texts into the template, and this package does not. Pass the name of a pooling instead of 'auto'"
        )
    options, modules = (
        (card.root or card.path) / name for name in ("config_sentence_transformers.json", "modules.json")
    )
    if options.exists() and not modules.exists():  # sentence-transformers always writes both
        raise ModelError(
            f"model {card.name!r} has a {options.name} but no {modules.name}, which names its pooling: fetch "
            "the model again, or pass the name of a pooling instead of 'auto'"
        )


def _warn_of_other_pooling(card: ModelCard, pooling: str) -> None:
    own = card.pooling if card.pooling in LIST_COLUMNS else "auto"
    message = (
        f"embedding_pooling={pooling!r}, but model {card.name!r} was made with {card.pooling!r}: vectors will "
        f"differ from those of its authors. Pass embedding_pooling={own!r} to use the model's own pooling"
    )
    warn_once(card.path, card.pooling, pooling, message=message)


def _warn_of_assumption(card: ModelCard, pooling: str) -> None:
    used = card.pooling if pooling == "auto" else pooling
    lacks = "its modules.json lists no pooling" if _has_modules_file(card) else "it has no modules.json"
    why = "sentence-transformers' default for its architecture" if pooling == "auto" else "Curator's default"
    advice = "" if used == card.pooling else f", and sentence-transformers would take {card.pooling!r}"
    base = _base_pooling(card)
    advice += f". Its base model has {base!r}" if base else ""
    message = (
        f"model {card.name!r} does not say how its vectors are pooled ({lacks}): {str(used)!r} "
        f"is used, {why}{advice}. Look at its model card, and name the pooling: embedding_pooling={str(used)!r}"
    )
    warn_once(card.path, "assumed pooling", used, message=message)


def _base_pooling(card: ModelCard) -> str:
    """Return the pooling that the base model of an adapter names in its modules; empty if there is none."""
    folder = card.base_path
    if folder is None:
        return ""
    with suppress(ModelError):  # only the base's transformer is used, and other parts may not be supported
        base = read_card(folder.parent if (folder.parent / "modules.json").is_file() else folder)
        return base.pooling if base.has_modules else ""
    return ""
