"""The card of a model: what the files in its directory say about it. No weights are loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError
from .files import Stamp, load_once, stamp_model
from .sentence_transformers import HeadConfig, Layer, read_head, read_json, read_modules, read_transformer

# Model types whose first position id is the padding id + 1, as in RoBERTa. Their position tables hold that many
# tokens fewer than they have rows.
_POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
# Model types with relative positions, whose configuration has a table size that is not used.
_RELATIVE_POSITIONS = {"t5", "mt5", "umt5"}
# Default prompt names that need no prompt in the model's files: None is no default, and sentence-transformers
# uses an empty text for the others.
_EMPTY_PROMPTS = (None, "query", "document")
# Greater token limits mean "no limit"; transformers writes 1e30.
_NO_LIMIT = 1e6


@dataclass(frozen=True)
class ModelCard:
    """What the files in a model's directory say about the model.

    Attributes
    ----------
    path : Path
        Where the transformer's files are.
    max_seq_length : int or None
        Most tokens per row, special tokens included; None if the files do not say.
    max_positions : int or None
        How many tokens the model's position table holds; None if it has none.
    lowercase : bool
        Whether texts are lowercased before tokenization.
    config : dict
        The content of ``config.json``.
    has_modules : bool
        Whether ``modules.json`` lists modules besides the transformer.
    has_chat_template : bool
    pooling : str
        A name that `pooling.pool` accepts. Without modules it is sentence-transformers' default.
    include_prompt : bool
        Whether the prompt's tokens are pooled.
    layers : tuple of Layer
        The modules after the pooling.
    prompts : dict
        Prompts by name.
    default_prompt : str or None
        A key of ``prompts``.
    truncate_dim : int or None
        How many leading dimensions of a vector the model keeps; None for all.
    stamp : Stamp
        Names, sizes and times of the model's files. It differs after the model was saved again.
    """

    path: Path
    max_seq_length: int | None
    max_positions: int | None = None
    lowercase: bool = False
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    has_modules: bool = False
    has_chat_template: bool = False
    pooling: str = "mean_pooling"
    include_prompt: bool = True
    layers: tuple[Layer, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict, repr=False)
    default_prompt: str | None = None
    truncate_dim: int | None = None
    stamp: Stamp = field(default=(), repr=False)


_cards: dict[Path, tuple[Stamp, ModelCard]] = {}


def read_card(path: Path) -> ModelCard:
    """Read the card of the model in a directory, again only if one of its files has changed.

    Raises
    ------
    ModelError
        The files name a module that is not supported, or one of them is not valid JSON.
    """
    path = path.resolve()
    stamp = stamp_model(path)
    return load_once(_cards, path, stamp, lambda: _read_card(path, stamp))


def _read_card(path: Path, stamp: Stamp) -> ModelCard:
    modules = read_modules(path)
    transformer_path = path / modules[0][1]
    config = read_json(transformer_path / "config.json")
    tokenizer = read_json(transformer_path / "tokenizer_config.json")
    transformer = read_transformer(transformer_path)
    options = read_json(path / "config_sentence_transformers.json")
    _refuse_adapter(transformer_path)
    _warn_of_custom_code(path, config, tokenizer)
    max_positions = _max_positions(config)
    head = read_head(path, modules) or HeadConfig(_default_pooling(config))
    return ModelCard(
        path=transformer_path,
        max_seq_length=_token_limit(transformer, tokenizer, max_positions),
        max_positions=max_positions,
        lowercase=bool(transformer.get("do_lower_case")),
        config=config,
        has_modules=len(modules) > 1,
        has_chat_template="chat_template" in tokenizer or any(transformer_path.glob("chat_template*")),
        pooling=head.pooling,
        include_prompt=head.include_prompt,
        layers=head.layers,
        prompts={name: text for name, text in (options.get("prompts") or {}).items() if text is not None},
        default_prompt=options.get("default_prompt_name"),
        truncate_dim=options.get("truncate_dim"),
        stamp=stamp,
    )


def _refuse_adapter(path: Path) -> None:
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} is a PEFT adapter and not a model: pass its base model as model_identifier, and "
            f"adapter={str(path)!r}"
        )


def _warn_of_custom_code(path: Path, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    custom = []
    if "AutoModel" in (config.get("auto_map") or {}):
        custom.append("model")
    auto_map = tokenizer.get("auto_map") or {}
    if isinstance(auto_map, list) or "AutoTokenizer" in auto_map:  # older files have a list of classes
        custom.append("tokenizer")
    for kind in custom:
        warnings.warn(
            f"model {path.name!r} has custom {kind} code, which is never run; transformers' own "
            f"{config.get('model_type')!r} is used instead. Compare some vectors with those of its authors",
            stacklevel=6,
        )


def _token_limit(
    transformer: dict[str, Any], tokenizer: dict[str, Any], max_positions: int | None
) -> int | None:
    """Return the first limit that the files state, but at most the number of positions."""
    for limit in (transformer.get("max_seq_length"), tokenizer.get("model_max_length"), max_positions):
        if limit is not None and limit < _NO_LIMIT:
            return min(int(limit), max_positions or int(limit))
    return None


def _default_pooling(config: dict[str, Any]) -> str:
    """Return sentence-transformers' default pooling, which depends on whether the model generates text."""
    architecture = (config.get("architectures") or [""])[0]
    is_causal = architecture.endswith("ForCausalLM") and config.get("is_causal", True)
    return "last_token" if is_causal else "mean_pooling"


def _max_positions(config: dict[str, Any]) -> int | None:
    model_type = config.get("model_type")
    table = config.get("max_position_embeddings") or config.get("n_positions")
    if table is None or table < 1 or model_type in _RELATIVE_POSITIONS:
        return None
    first_position = int(config.get("pad_token_id", 1)) + 1 if model_type in _POSITIONS_AFTER_PADDING else 0
    return int(table) - first_position


def length_limit(card: ModelCard, max_seq_length: int | None) -> int:
    """Return the most tokens that a row may have: the user's number if there is one, else the model's own.

    Raises
    ------
    ConfigError
        The number exceeds the model's position table.
    ModelError
        Neither the user nor the model states a number.
    """
    limit = max_seq_length or card.max_seq_length
    if limit is None:
        raise ModelError(f"{card.path} states no token limit; pass max_seq_length")
    if card.max_positions is not None and limit > card.max_positions:
        raise ConfigError(
            f"max_seq_length={max_seq_length} exceeds the {card.max_positions} positions of model "
            f"{card.path.name!r}; pass at most {card.max_positions}, or leave it out for the model's own "
            f"limit of {card.max_seq_length}"
        )
    return limit


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
            f"prompt_name={prompt_name!r}: model {card.path.name!r} has the prompts {sorted(card.prompts)}; "
            "name one of them, or pass prompt= with the text itself"
        )
    return _prompt_text(card, prompt_name)


def _default_prompt(card: ModelCard) -> str:
    if card.default_prompt not in _EMPTY_PROMPTS and card.default_prompt not in card.prompts:
        raise ModelError(
            f"model {card.path.name!r} has no prompt {card.default_prompt!r}, which it names as its default; "
            "pass prompt= with the text, or prompt='' for none"
        )
    return _prompt_text(card, card.default_prompt or "")


def _prompt_text(card: ModelCard, name: str) -> str:
    text: object = card.prompts.get(name, "")
    if not isinstance(text, str):
        raise ModelError(
            f"prompt {name!r} of model {card.path.name!r} is a value of type {type(text).__name__}, not a "
            "string; pass prompt= with the text, or prompt='' for none"
        )
    return text
