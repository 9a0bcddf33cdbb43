"""The card of a model: what the files in its directory say about it. No weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError
from .files import Stamp, load_once, stamp_model
from .json_files import JsonObject, read_json
from .kinds import refuse_other_kinds, warn_of_custom_code
from .sentence_transformers import HeadConfig, Layer, read_head, read_modules, read_transformer

# Model types whose first position id is the padding id + 1, as in RoBERTa. Their position tables hold that many
# tokens fewer than they have rows.
POSITIONS_AFTER_PADDING = {
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
    state_dimension : int or None
        Size of the token states that the model's pooling takes; None without modules.
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
    state_dimension: int | None = None
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
        The files name a module that is not supported, are not valid JSON, or have a value of another type.
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
    refuse_other_kinds(transformer_path, options)
    warn_of_custom_code(path, config, tokenizer)
    max_positions = _max_positions(config)
    head = read_head(path, modules) or HeadConfig(_default_pooling(config))
    return ModelCard(
        path=transformer_path,
        max_seq_length=_token_limit(transformer, tokenizer, max_positions),
        max_positions=max_positions,
        lowercase=transformer.flag("do_lower_case", False),
        config=config,
        has_modules=len(modules) > 1,
        has_chat_template="chat_template" in tokenizer or any(transformer_path.glob("chat_template*")),
        pooling=head.pooling,
        state_dimension=head.state_dimension,
        include_prompt=head.include_prompt,
        layers=head.layers,
        prompts={name: text for name, text in options.section("prompts").items() if text is not None},
        default_prompt=options.text("default_prompt_name"),
        truncate_dim=options.count("truncate_dim"),
        stamp=stamp,
    )


def _token_limit(transformer: JsonObject, tokenizer: JsonObject, max_positions: int | None) -> int | None:
    """Return the first limit that the files state, but at most the number of positions."""
    stated = (transformer.count("max_seq_length"), tokenizer.count("model_max_length"), max_positions)
    limit = next((limit for limit in stated if limit is not None and limit < _NO_LIMIT), None)
    return limit if limit is None else min(limit, max_positions or limit)


def _default_pooling(config: JsonObject) -> str:
    """Return sentence-transformers' default pooling, which depends on whether the model generates text."""
    architecture = next(iter(config.list_of_text("architectures")), "")
    is_causal = architecture.endswith("ForCausalLM") and config.flag("is_causal", True)
    return "last_token" if is_causal else "mean_pooling"


def _max_positions(config: JsonObject) -> int | None:
    model_type = config.text("model_type")
    # Some models without a position table have the value -1 or 0.
    table = config.count("max_position_embeddings", -1) or config.count("n_positions", -1)
    if table is None or table < 1 or model_type in _RELATIVE_POSITIONS:
        return None
    if model_type not in POSITIONS_AFTER_PADDING:
        return table
    padding = config.count("pad_token_id", 0) if "pad_token_id" in config else 1
    if padding is None or padding + 1 >= table:
        raise ModelError(
            f"{config.path}: 'pad_token_id' is {padding}, but the positions of a {model_type} start after it, "
            f"in a table of {table}; correct the file"
        )
    return table - padding - 1


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
