"""The Hugging Face hub and its cache: which cached snapshots are complete, and the download of a model."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .code_files import missing_code
from .files import ADAPTER_CONFIG, missing_files, missing_options, model_files
from .modules import STATIC, Module, all_modules, router_folders
from .routers import ROUTER_FILES, Task
from .stamps import Stamp, stamp_model

# Files by which a snapshot is found in the cache: every loader asks for one of them.
ASKED_FIRST = ("config.json", "modules.json", "tokenizer_config.json", "tokenizer.json", ADAPTER_CONFIG)
# Seconds to wait for the hub's first answer; without a limit its client waits forever, for example for a proxy
# that does not answer.
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ModelRef:
    """The name of a model: everything that decides which weights and which tokenizer are loaded."""

    identifier: str
    revision: str | None = None
    cache_dir: str | None = None
    task: Task = "document"
    trust_remote_code: bool = False
    code_revision: str | None = None

    @property
    def hub_arguments(self) -> dict[str, Any]:
        """Return the arguments that name this model and its cache in functions of huggingface_hub."""
        cache = None if self.cache_dir is None else str(Path(self.cache_dir).expanduser().resolve())
        return {"repo_id": self.identifier, "revision": self.revision, "cache_dir": cache}


def find_snapshot(ref: ModelRef) -> Path | None:
    """Return the model's snapshot in the Hugging Face cache, which may be incomplete; None if there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        for name in ASKED_FIRST:
            found = try_to_load_from_cache(filename=name, **ref.hub_arguments)
            if isinstance(found, str):
                return Path(found).parent
    except HFValidationError:  # not a name that the hub could have
        return None
    return None


# The stamps of the snapshots that were found to be complete.
_complete: dict[tuple[Path, bool], Stamp] = {}


def is_complete(ref: ModelRef, snapshot: Path) -> bool:
    """Return whether a snapshot has all files that the model needs, and is known to have all that it may have.

    Other programs fetch only some of a model's files into the cache; without the others, its vectors differ.
    """
    stamp, key = stamp_model(snapshot), (snapshot, ref.trust_remote_code)
    if _complete.get(key) != stamp and not (needed_files(ref, snapshot) or unknown_files(ref, snapshot)):
        _complete[key] = stamp
    return _complete.get(key) == stamp


def needed_files(ref: ModelRef, snapshot: Path) -> list[str]:
    """Return the files that the model needs and its snapshot lacks; those of its code only if it is trusted."""
    missing = missing_files(snapshot)
    if not ref.trust_remote_code:
        return missing
    folders = {folder for _, folder in all_modules(snapshot)}
    return missing + [
        f"{folder}/{name}".lstrip("/") for folder in folders for name in missing_code(snapshot / folder)
    ]


def unknown_files(ref: ModelRef, snapshot: Path) -> list[str]:
    """Return the files that would change the vectors, are not in a snapshot, and may be in the repository."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    absent = missing_options(snapshot)
    listing = cached_listing(ref, snapshot)
    if listing is not None:
        return [name for name in absent if name in listing]
    known = ref.hub_arguments | {"revision": snapshot.name}
    return [name for name in absent if try_to_load_from_cache(filename=name, **known) is not _CACHED_NO_EXIST]


def cached_listing(ref: ModelRef, snapshot: Path) -> set[str] | None:
    """Return the names of the files in the repository, if they are cached."""
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # older versions do not cache them
        return None
    try:
        return {file.path for file in get_cached_repo_tree(**ref.hub_arguments | {"revision": snapshot.name})}
    except CachedRepoTreeNotFoundError:
        return None


def download(ref: ModelRef, token: str | None) -> Path:
    """Download the files of a model that are read and not cached yet, and return its snapshot.

    Raises
    ------
    Exception
        Whatever the hub's client and the network raise.
    """
    from huggingface_hub import snapshot_download

    token = token or None  # an empty string is not a token
    names = list_files(ref, token)
    modules = _modules(ref, names, token)
    tables = [folder for kind, folder in modules if kind == STATIC]
    wanted = model_files(names, [folder for _, folder in modules], tables)
    wanted += [name for name in names if name.endswith(".py") and ref.trust_remote_code]
    patterns = [glob.escape(name) for name in wanted]
    snapshot = Path(snapshot_download(**ref.hub_arguments, token=token, allow_patterns=patterns))
    _record_absences(ref, snapshot, token)
    return snapshot


def list_files(ref: ModelRef, token: str | None) -> list[str]:
    """Ask the hub for the names of a repository's files.

    Raises whatever its client and the network raise: at once without a connection, and after `_TIMEOUT_S` if
    there is no answer.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token or None)
    info = api.model_info(ref.identifier, revision=ref.revision, timeout=_TIMEOUT_S)
    return [file.rfilename for file in info.siblings or ()]


def find_files(ref: ModelRef, names: list[str]) -> Path | None:
    """Return the snapshot in the cache if it has all of these files."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(filename=name, **ref.hub_arguments) for name in names]
    except HFValidationError:  # not a name that the hub could have
        return None
    return _snapshot(found[0], names[0]) if all(isinstance(file, str) for file in found) else None


def is_absent(ref: ModelRef, name: str) -> bool:
    """Return whether the cache says that a repository lacks a file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return try_to_load_from_cache(filename=name, **ref.hub_arguments) is _CACHED_NO_EXIST
    except HFValidationError:  # not a name that the hub could have
        return False


def download_files(ref: ModelRef, names: list[str], token: str | None, others: Sequence[str] = ()) -> Path:
    """Download these files of one commit, or ``others`` if it lacks one of them, and return its snapshot.

    The hub's client records which file does not exist. Raises as `list_files` does.
    """
    from huggingface_hub.errors import EntryNotFoundError

    list_files(ref, token)  # fails at once without a connection
    try:
        return _download_all(ref, names, token)
    except EntryNotFoundError as error:
        with suppress(EntryNotFoundError):
            if others:
                return _download_all(ref, others, token)
        raise error from None


def _download_all(ref: ModelRef, names: Sequence[str], token: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    known = {**ref.hub_arguments, "token": token or None}
    for name in names:
        snapshot = _snapshot(hf_hub_download(filename=name, **known), name)
        known["revision"] = snapshot.name
    return snapshot


def _snapshot(file: Any, name: str) -> Path:
    return Path(file).parents[name.count("/")]


def _modules(ref: ModelRef, names: list[str], token: str | None) -> list[Module]:
    """Return the kinds and the folders of a repository's modules, with its Routers."""
    from huggingface_hub import hf_hub_download

    if "modules.json" not in names:
        return [("Transformer", "")]
    listed = Path(hf_hub_download(filename="modules.json", **ref.hub_arguments, token=token)).parent
    for folder in router_folders(listed):
        file = next((name for name in ROUTER_FILES if _join(folder, name) in names), None)
        if file is not None:
            hf_hub_download(filename=_join(folder, file), **ref.hub_arguments, token=token)
    return all_modules(listed) + [("Router", folder) for folder in router_folders(listed)]


def _join(folder: str, name: str) -> str:
    return (PurePosixPath(folder) / name).as_posix()


def _record_absences(ref: ModelRef, snapshot: Path, token: str | None) -> None:
    """Ask the hub for files that may be missing from the snapshot; its client records which do not exist."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in unknown_files(ref, snapshot):
        try:
            hf_hub_download(filename=name, **ref.hub_arguments, token=token)
        except EntryNotFoundError:
            continue
