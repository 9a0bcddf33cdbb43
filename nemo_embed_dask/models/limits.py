"""The most tokens of a row that a model's files allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError, ModelError
from .json_files import JsonObject

if TYPE_CHECKING:
    from .card import ModelCard
from .names import model_file

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
# A token limit that no text reaches.
NO_LIMIT = 1 << 40
# Greater token limits in a file mean "no limit"; transformers writes 1e30.
_LARGEST_STATED = 1e6


def token_limit(transformer: JsonObject, tokenizer: JsonObject, max_positions: int | None) -> int | None:
    """Return the first limit that the files state, but at most the number of positions."""
    stated = (transformer.count("max_seq_length"), tokenizer.count("model_max_length"), max_positions)
    limit = next((limit for limit in stated if limit is not None and limit < _LARGEST_STATED), None)
    return limit if limit is None else min(limit, max_positions or limit)


def max_positions(config: JsonObject) -> int | None:
    """Return how many tokens the model's position table holds; None if it has none."""
    config = config.section("text_config") or config  # of a model that also reads images
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
            f"{model_file(config.path)}: 'pad_token_id' is {padding}, but the positions of a {model_type} "
            f"start after it, in a table of {table}; correct the file"
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
        raise ModelError(f"model {card.name!r} states no token limit; pass max_seq_length")
    if card.max_positions is not None and limit > card.max_positions:
        raise ConfigError(
            f"max_seq_length={max_seq_length} exceeds the {card.max_positions} positions of model "
            f"{card.name!r}; pass at most {card.max_positions}, or leave it out for the model's own "
            f"limit of {card.max_seq_length}"
        )
    return limit
