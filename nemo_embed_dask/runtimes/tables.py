"""The sizes of a model's tables: how many token ids and positions it has, and where its positions change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

# Names of tables with one row per position of a text, in transformers' models. GPT-J's and CTRL's are tensors.
_POSITION_TABLE = re.compile(
    r"(embed_positions|pos_encoding|position_embed(ding)?s?|positions_embed|pos_embed(ding)?s?|wpe)$"
)
_NO_TEXT = re.compile(r"vision|visual|image|audio|patch|video")
# Keys of a configuration whose values are lengths at which a model may compute something else.
_LENGTH_KEY = re.compile(r"window|chunk|block|local|radius")
_LONGEST_HINT = 1 << 17


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the part that reads texts; most models have no other part."""
    config: Any = model.config
    part = getattr(config, "text_config", None)
    return part if hasattr(part, "vocab_size") else config


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """Return what `text_config` returns of a config.json."""
    return config.get("text_config") or config


def vocabulary_size(model: nn.Module) -> int:
    """Return the number of token ids that the model has an embedding for."""
    try:
        weight = cast("Any", model).get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        weight = None
    if isinstance(weight, Tensor) and weight.dim() == 2:
        return len(weight)
    return int(text_config(model).vocab_size)


def position_count(model: nn.Module) -> int | None:
    """Return the most tokens of a row that the model has positions for; None if it has no such table."""
    counts = [_rows_for_tokens(table) for table in _position_tables(model)]
    return min(counts, default=None)


def counted_positions(model: nn.Module) -> int:
    """Return the most tokens of a batch, if the model counts them all; 0 if it counts none."""
    buffers = [len(buffer[0]) for name, buffer in model.named_buffers() if name.endswith("position_ids")]
    return max([*buffers, position_count(model) or 0])


def _position_tables(model: nn.Module) -> Iterator[nn.Embedding | Tensor]:
    for path, module in model.named_modules():
        if _NO_TEXT.search(path):
            continue
        if isinstance(module, nn.Embedding) and _POSITION_TABLE.match(path.rpartition(".")[2]):
            yield module
        for name in ("embed_positions", "pos_encoding"):
            if isinstance(table := getattr(module, name, None), Tensor) and table.dim() == 2:
                yield table


def _rows_for_tokens(table: nn.Embedding | Tensor) -> int:
    """Return the rows of a table without those before the first token's position."""
    if isinstance(table, Tensor):
        return len(table)
    offset = int(getattr(table, "offset", 0))
    return table.num_embeddings - (offset if table.padding_idx is None or offset else table.padding_idx + 1)


def rope_limit(model: nn.Module) -> int | None:
    """Return the length above which rotary positions depend on the longest row of the batch, or None.

    "longrope" has other frequencies if any row is longer. "dynamic" computes them from the longest row, and
    keeps them for the next batch.
    """
    limits = [limit for module in model.modules() for limit in _rope_limits(module)]
    return min(limits, default=None)


def _rope_limits(module: nn.Module) -> Iterator[int]:
    types, config = getattr(module, "rope_type", None), getattr(module, "config", None)
    by_layer = types if isinstance(types, dict) else {None: types}
    for layer, rope_type in by_layer.items():
        parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
        parameters = parameters if layer is None else parameters[layer]
        if rope_type == "longrope":
            yield int(parameters["original_max_position_embeddings"])
        elif "dynamic" in str(rope_type):
            yield int(cast("Any", module).original_max_seq_len)


def configured_rope_limit(config: dict[str, Any]) -> int | None:
    """Return the limit of `rope_limit` as config.json states it; None if it has none."""
    config = text_part(config)
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    limits = []
    for rope in nested or [parameters]:
        rope_type = str(rope.get("rope_type") or rope.get("type"))
        if rope_type in ("longrope", "su") or "dynamic" in rope_type:
            original = rope.get("original_max_position_embeddings")
            limits.append(
                original
                or config.get("original_max_position_embeddings")
                or config.get("max_position_embeddings")
            )
    return min((int(limit) for limit in limits if limit), default=None)


def length_hints(config: dict[str, Any]) -> list[int]:
    """Return the lengths at which the model may change its computation, and multiples of them."""
    named = set(named_lengths(config))
    halves = {length // 2 for length in named}  # a window may reach half as far to each side
    doublings = range(_LONGEST_HINT.bit_length())
    multiples = {length << power for length in named | halves if length for power in doublings}
    return sorted(length for length in multiples if length < _LONGEST_HINT)


def named_lengths(config: dict[str, Any]) -> list[int]:
    """Return the windows, sizes of blocks and chunks in a configuration."""
    return [length for length in _integers(config) if 1 < length < _LONGEST_HINT]


def _integers(config: dict[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _integers(value)
        elif _LENGTH_KEY.search(str(key)):
            values = value if isinstance(value, list | tuple) else [value]
            yield from (item for item in values if type(item) is int)
