"""What a model directory says of itself. Reads small files of names and numbers; loads no weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError
from .sentence_transformers import Layer, read_behind, read_json, read_modules, read_transformer

# Model types whose position ids start behind the padding id (RoBERTa and its kin), so that their
# position table holds that many fewer tokens than it has rows.
_SHIFTED = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm",
            "data2vec-text", "longformer", "luke", "ibert", "xmod", "esm"}  # fmt: skip


# Default prompts that a model may name without stating them: sentence-transformers has these two, empty.
_NO_PROMPT = (None, "query", "document")


@dataclass(frozen=True)
class ModelCard:
    """What a model directory says of itself.

    ``path``: where the transformer's files are. ``max_seq_length``: tokens a row, special tokens among
    them; None where nothing states it. ``lowercase``: whether texts are lower-cased before tokenizing.
    ``pooling``: a name that `pooling.pool` takes; sentence-transformers' default where the directory does
    not state its modules (``has_modules``). ``include_prompt``: whether a prompt's tokens are pooled.
    ``default_prompt``: a key of ``prompts``.
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


@lru_cache(maxsize=64)
def read_card(path: Path) -> ModelCard:
    """Read what a model directory says of itself.

    Raises
    ------
    ModelError
        It names a module that this package does not know, or a file of it is not valid JSON.
    """
    modules = read_modules(path)
    home = path / modules[0][1]
    config, tokenizer = read_json(home / "config.json"), read_json(home / "tokenizer_config.json")
    positions, transformer = _positions(config), read_transformer(home)
    said = read_json(path / "config_sentence_transformers.json")
    _check_files(path, home, config, tokenizer)
    return ModelCard(
        path=home,
        max_seq_length=_limit(transformer, tokenizer, positions),
        max_positions=positions,
        lowercase=bool(transformer.get("do_lower_case")),
        config=config,
        has_modules=len(modules) > 1,
        has_chat_template="chat_template" in tokenizer or any(home.glob("chat_template*")),
        **{"pooling": _default_pooling(config), **read_behind(path, modules)},
        prompts={name: text for name, text in (said.get("prompts") or {}).items() if text is not None},
        default_prompt=said.get("default_prompt_name"),
        truncate_dim=said.get("truncate_dim"),
    )


def _check_files(path: Path, home: Path, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    if (home / "adapter_config.json").is_file():
        raise ModelError(
            f"{home} is a PEFT adapter: pass the model that it adapts as model_identifier, and "
            f"adapter={str(home)!r}"
        )
    auto_map = tokenizer.get("auto_map") or {}  # older files have a list of classes
    tokenizes = isinstance(auto_map, list) or "AutoTokenizer" in auto_map
    brings = ["model"] * ("AutoModel" in (config.get("auto_map") or {})) + ["tokenizer"] * tokenizes
    for what in brings:
        warnings.warn(
            f"model {path.name!r} brings {what} code of its own, which is never run: transformers' own "
            f"{config.get('model_type')!r} stands in for it. Compare some vectors with those of its authors",
            stacklevel=3,
        )


def _limit(said: dict[str, Any], tokenizer: dict[str, Any], positions: int | None) -> int | None:
    limits = (said.get("max_seq_length"), tokenizer.get("model_max_length"), positions)
    limit = next((int(n) for n in limits if n is not None and n < 1e6), None)
    return None if limit is None else min(limit, positions or limit)


def _default_pooling(config: dict[str, Any]) -> str:
    """Of a model that states none: as sentence-transformers does, by whether it was made to generate."""
    architecture = (config.get("architectures") or [""])[0]
    causal = architecture.endswith("ForCausalLM") and config.get("is_causal", True)
    return "last_token" if causal else "mean_pooling"


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model's position table holds; None where there is none."""
    table = config.get("max_position_embeddings") or config.get("n_positions")
    if table is None or table < 1 or config.get("model_type") in {"t5", "mt5", "umt5"}:
        return None
    shift = int(config.get("pad_token_id", 1)) + 1 if config.get("model_type") in _SHIFTED else 0
    return int(table) - shift


def length_limit(card: ModelCard, max_seq_length: int | None) -> int:
    """Tokens a row may have: the user's number where given, else the model's own.

    Raises
    ------
    ConfigError
        The number exceeds the model's position table.
    ModelError
        Neither states a number.
    """
    limit = max_seq_length or card.max_seq_length
    if limit is None:
        raise ModelError(f"{card.path} states no length limit; pass max_seq_length")
    if card.max_positions is not None and limit > card.max_positions:
        raise ConfigError(
            f"max_seq_length={max_seq_length} exceeds the {card.max_positions} positions that "
            f"{card.path.name!r} has; pass at most that, or nothing for its own {card.max_seq_length}"
        )
    return limit


def find_prompt(card: ModelCard, prompt: str | None, prompt_name: str | None) -> str:
    """The text put before every text: ``prompt``, or the model's of that name, or its default one.

    Raises
    ------
    ConfigError
        The model has no prompt of that name.
    ModelError
        It has not the prompt that it names as its default, or its prompt is not a string.
    """
    if prompt is not None:
        return prompt
    if prompt_name is None:
        if card.default_prompt in _NO_PROMPT or card.default_prompt in card.prompts:
            return _prompt_of(card, card.default_prompt or "")
        raise ModelError(
            f"model {card.path.name!r} has no prompt {card.default_prompt!r}, which it names as its default; "
            "pass prompt= with the text, or prompt='' for none"
        )
    if prompt_name not in card.prompts:
        raise ConfigError(
            f"prompt_name={prompt_name!r}: model {card.path.name!r} has the prompts {sorted(card.prompts)}; "
            "name one of them, or pass prompt= with the text itself"
        )
    return _prompt_of(card, prompt_name)


def _prompt_of(card: ModelCard, name: str) -> str:
    found: object = card.prompts.get(name, "")
    if not isinstance(found, str):
        raise ModelError(
            f"prompt {name!r} of model {card.path.name!r} is not a string but a value of type "
            f"{type(found).__name__}; pass prompt= with the text, or prompt='' for none"
        )
    return found
