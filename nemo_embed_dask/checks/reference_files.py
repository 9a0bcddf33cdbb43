"""Read a model's tokenizer and weights for the reference, in another way than the engine does.

What the engine loses while it reads a file must not be missing here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from torch import Tensor, nn

from ..models.card import ModelCard
from ..models.json_files import read_json
from ..models.pickled import load_pickled
from ..models.weight_files import is_pickled, weight_files
from ..models.weights import find_classes, load_config, load_weights
from ..tokens import class_options
from ..tokens.loading import class_name, find_markers, load_with_transformers
from .reference_static import StaticReference, static_tokenizer

# From a text to its token ids, special tokens included.
Tokenize = Callable[[str], list[int]]


def load_tokenizer(card: ModelCard, limit: int) -> tuple[Tokenize, list[int]]:
    """Return a function from a text to at most ``limit`` ids, and the ids of the special tokens.

    It tokenizes whole texts by ``tokenizer.json``, or by transformers' tokenizer if there is no such file.
    """
    if card.static is not None:
        return static_tokenizer(card, limit), []
    loaded = load_with_transformers(card.path, card.code)
    file = card.path / "tokenizer.json"
    if not file.is_file():
        prepare = str.lower if card.lowercase else str
        special_ids = list(loaded.all_special_ids)
        return lambda text: list(
            loaded(prepare(text), truncation=True, max_length=limit)["input_ids"]
        ), special_ids
    tokenizer = Tokenizer.from_file(str(file))
    options = read_json(card.path / "tokenizer_config.json")
    name = class_name(card.path, options, loaded)
    _add_tokens(tokenizer, options, read_json(card.path / "added_tokens.json"))
    _apply_options(tokenizer, options, name, lowercase=card.lowercase)
    tokenizer.add_special_tokens(find_markers(tokenizer, card.colbert.markers if card.colbert else ()))
    special = [tokenizer.token_to_id(token) for token in loaded.all_special_tokens]
    tokenize = _tokenize_whole(tokenizer, options, name, loaded, limit)
    return tokenize, [index for index in special if index is not None]


def _add_tokens(tokenizer: Tokenizer, options: dict[str, Any], added: dict[str, int]) -> None:
    """Add the tokens of tokenizer_config.json, which may change known ones, or else of added_tokens.json."""
    declared = options.get("added_tokens_decoder") or {}
    for index, properties in sorted(((int(i), kind) for i, kind in declared.items()), key=lambda item: item[0]):
        token = AddedToken(**properties)
        if tokenizer.token_to_id(token.content) is not None or index == tokenizer.get_vocab_size():
            tokenizer.add_tokens([token])
    for text, index in () if declared else sorted(added.items(), key=lambda item: item[1]):
        if tokenizer.token_to_id(text) is None and index == tokenizer.get_vocab_size():
            tokenizer.add_tokens([text])


def _apply_options(tokenizer: Tokenizer, options: dict[str, Any], name: str, *, lowercase: bool) -> None:
    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer) and name in class_options.LETTERS:
        tokenizer.normalizer.lowercase = options.get("do_lower_case", True)
        tokenizer.normalizer.strip_accents = options.get("strip_accents")
        if name not in class_options.KEEP_CHINESE:
            tokenizer.normalizer.handle_chinese_chars = options.get("tokenize_chinese_chars", True)
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        unchanged = tokenizer.pre_tokenizer.add_prefix_space
        default = False if name in class_options.PREFIX_SPACE else unchanged
        tokenizer.pre_tokenizer.add_prefix_space = options.get("add_prefix_space", default)
    if lowercase:
        rest = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    tokenizer.encode_special_tokens = bool(options.get("split_special_tokens"))
    tokenizer.no_padding()


def _tokenize_whole(
    tokenizer: Tokenizer, options: dict[str, Any], name: str, loaded: Any, limit: int
) -> Tokenize:
    tokenizer.no_truncation()
    ids = tokenizer.encode("a").ids
    bos, eos = (tokenizer.token_to_id(token or "") for token in (loaded.bos_token, loaded.eos_token))
    with_bos, with_eos = options.get("add_bos_token"), options.get("add_eos_token")
    has_switches = name in class_options.SWITCHES
    if has_switches and (with_bos, with_eos) != (None, None):
        with_bos = name not in class_options.NO_BOS_BY_DEFAULT if with_bos is None else with_bos
        with_eos = bool(with_eos)
    first = _change(with_bos, bos, ids[:1], has_switches)
    last = _change(with_eos, eos, ids[-1:], has_switches)
    tokenizer.enable_truncation(limit - first - last, direction=loaded.truncation_side)

    def tokenize(text: str) -> list[int]:
        found = tokenizer.encode(text).ids
        found = [bos, *found] if bos is not None and first > 0 else found[-first:]
        return [*found, eos] if eos is not None and last > 0 else found[: len(found) + last]

    return tokenize


def _change(wanted: bool | None, token: int | None, outermost: list[int], has_switches: bool) -> int:
    """Return 1 if a special token must be added to every text, -1 if it must be removed, else 0."""
    if wanted is None or token is None or wanted == (outermost == [token]):
        return 0
    return 1 if wanted else -int(has_switches)


def load_model(card: ModelCard) -> nn.Module:
    """Return the model in float32, with its weights assigned by name from its files.

    If the names in the files are not those of the model, or there is an adapter, transformers loads it. The
    table of a static model is in float64.
    """
    if card.static is not None:
        return StaticReference(card)
    config = load_config(card.weights_path, card.code)
    _, model_class = find_classes(card.weights_path, config, card.code)
    if card.adapter is None:
        model = model_class._from_config(config, dtype=torch.float32)
        tensors = read_weights(card.weights_path)
        weights = {name: _find(name, tensors, model.base_model_prefix) for name, _ in model.named_parameters()}
        missing = [name for name, tensor in weights.items() if tensor is None and "pooler" not in name]
        if not missing:
            found = {name: tensor.float() for name, tensor in weights.items() if tensor is not None}
            model.load_state_dict(found, strict=False)
            return cast("nn.Module", model.eval())
    return load_weights(card.weights_path, torch.float32, card.adapter, code=card.code)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights in the files of a module, by name."""
    if is_pickled(folder):
        return load_pickled(folder)
    tensors: dict[str, Tensor] = {}
    for name in weight_files(folder):
        tensors |= load_file(folder / name)
    return tensors


def _find(name: str, tensors: Mapping[str, Tensor], prefix: str) -> Tensor | None:
    """Return the tensor of that name, with or without the prefix of a model with a head."""
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    names = (name, f"{prefix}.{name}", old, f"{prefix}.{old}")
    return next((tensors[known] for known in names if known in tensors), None)
