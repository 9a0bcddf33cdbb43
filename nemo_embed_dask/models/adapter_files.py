"""Find an adapter's directory, and the base model of a directory that holds only an adapter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from .files import ADAPTER_CONFIG, ADAPTER_FILES, PICKLED_ADAPTER_FILES, is_adapter
from .hub import ModelRef, cached_listing, download_files, find_files, find_snapshot, is_absent, list_files
from .json_files import read_json
from .locate import access_token, download_command, failure_reason, find_model, remember_token
from .modules import read_modules
from .names import model_name
from .notices import warn_once


def find_adapter(adapter: str, ref: ModelRef, model: Path) -> Path:
    """Return the directory of an adapter, with links resolved.

    The places are tried in this order: a local directory, a folder of the model's directory or repository, the
    Hugging Face cache, and the hub. Only the adapter's two files are downloaded.

    Parameters
    ----------
    adapter : str
        A directory; a folder of the model, such as "retrieval_query", also spelled "retrieval.query"; a
        repository, as "org/name" or "org/name@revision".
    ref : ModelRef
        The model, whose cache and access token are used.
    model : Path
        The model's directory.

    Raises
    ------
    ModelError
        The adapter is in none of these places.
    """
    adapter = adapter.rstrip("/") or adapter
    local, is_path = Path(adapter).expanduser(), adapter.startswith((".", "/", "~"))
    # Any directory may have a task's name, also one in the working directory that holds something else.
    if (local / ADAPTER_CONFIG).is_file() or (is_path and local.is_dir()):
        return local.resolve()
    repository, _, revision = adapter.partition("@")
    if is_path or (repository.count("/") > 1 and not local.is_dir()):
        raise ModelError(f"adapter={adapter!r} is not a directory with an adapter in it")
    folder = _find_folder(adapter, ref, model)
    if folder is not None:
        return folder
    if local.is_dir():  # it is refused for the files that it lacks, and the hub is not asked
        return local.resolve()
    try:
        return _find_files(adapter, replace(ref, identifier=repository, revision=revision or None), "", ref)
    except ModelError:
        if not _is_snapshot(ref, model) or cached_listing(ref, model) is not None:
            raise
        # Clients of the hub before 1.23 keep no list of the model's files: the name may be one of its folders.
        found = _match(adapter, _ask_for_folders(ref, model, [])[0])
        if found is None:
            raise
        return _find_files(adapter, replace(ref, revision=model.name), found, ref)


def adapter_folders(ref: ModelRef, model: Path) -> list[str]:
    """Return the folders of a model that are known to hold an adapter, as paths relative to it.

    A folder of a repository is downloaded when it is asked for, but the cached list of files names it before.
    """
    patterns = (f"*/{ADAPTER_CONFIG}", f"*/*/{ADAPTER_CONFIG}")
    names = {file.relative_to(model).as_posix() for pattern in patterns for file in model.glob(pattern)}
    listing = cached_listing(ref, model) if _is_snapshot(ref, model) else None
    return _folders(names | (listing or set()))


@lru_cache(maxsize=32)
def warn_of_adapters(ref: ModelRef) -> None:
    """Warn if a model's repository has adapters for tasks, of which none was chosen."""
    model = find_model(ref)
    folders = adapter_folders(ref, model)
    if len(folders) > 1:  # a single one may be merged into the weights already, as in e5-mistral
        names = ", ".join(map(repr, folders))
        warn_once(
            ref,
            message=f"model {model_name(model)!r} has adapters for tasks, and none was chosen: its vectors are "
            f"those of the model without them. Pass adapter= with one of {names}",
        )


def _folders(names: Iterable[str]) -> list[str]:
    paths = [PurePosixPath(name) for name in names]
    return sorted({path.parent.as_posix() for path in paths if path.name == ADAPTER_CONFIG} - {"."})


def _is_snapshot(ref: ModelRef, model: Path) -> bool:
    return find_snapshot(ref) == model


def _find_folder(adapter: str, ref: ModelRef, model: Path) -> Path | None:
    """Return the model's folder of this name; None if the name can be that of a repository."""
    known = adapter_folders(ref, model)
    found = _match(adapter, known)
    if found is None and "/" in adapter:
        return None
    if found is None:
        known, reason = _ask_for_folders(ref, model, known)
        found = _match(adapter, known)
        if found is None:
            raise _unknown_folder(adapter, ref, known, reason)
    if not _is_snapshot(ref, model):
        return (model / found).resolve()
    return _find_files(adapter, replace(ref, revision=model.name), found, ref)


def _match(adapter: str, folders: list[str]) -> str | None:
    """Return the folder that a name means; folders cannot have all names that tasks have in other places."""
    wanted = _spelling(adapter)
    matching = [name for name in folders if wanted in (_spelling(name), _spelling(PurePosixPath(name).name))]
    return matching[0] if len(matching) == 1 else None


def _spelling(name: str) -> str:
    return re.sub(r"[.-]", "_", name)


def _ask_for_folders(ref: ModelRef, model: Path, known: list[str]) -> tuple[list[str], str]:
    """Return the folders that the hub lists, or the known ones and why it could not be asked."""
    if not _is_snapshot(ref, model):
        return known, ""
    try:
        names = list_files(replace(ref, revision=model.name), access_token(ref))
    except Exception as error:  # noqa: BLE001 - the hub's client and the network raise many types
        return known, f"; the hub could not be asked ({failure_reason(ref, error)})"
    return _folders(names), ""


def _unknown_folder(adapter: str, ref: ModelRef, known: list[str], reason: str) -> ModelError:
    has = f"has the adapters {', '.join(known)}" if known else "has no folder with an adapter"
    return ModelError(
        f"adapter={adapter!r} is not a directory with an adapter in it, and model {ref.identifier!r} "
        f"{has}{reason}: pass one of these names, a directory, or a repository on the hub as 'org/name' or "
        "'org/name@revision'"
    )


def _find_files(adapter: str, repository: ModelRef, folder: str, ref: ModelRef) -> Path:
    """Return the folder of an adapter's files in the cache; files that are missing are downloaded."""
    names, pickled = (
        [(PurePosixPath(folder) / name).as_posix() for name in files]
        for files in (ADAPTER_FILES, PICKLED_ADAPTER_FILES)
    )
    snapshot = find_files(repository, names)
    if snapshot is None and is_absent(repository, names[-1]):
        snapshot = find_files(repository, pickled)
    if snapshot is None:
        try:
            snapshot = download_files(repository, names, access_token(ref), pickled)
        except Exception as error:  # noqa: BLE001 - the hub's client and the network raise many types
            raise ModelError(
                f"adapter={adapter!r} was not found ({failure_reason(ref, error)}): it must be a directory or "
                f"a repository with {' and '.join(names)}. On a machine with internet access run "
                f"`{download_command(repository)}` and share its cache (HF_HOME); if it is gated, accept its "
                "terms and set HF_TOKEN on every machine"
            ) from None
    return snapshot / folder


def find_base(ref: ModelRef, path: Path) -> Path | None:
    """Return the directory of an adapter's base model; None if the model's directory is not an adapter.

    Raises
    ------
    ModelError
        The adapter does not name its base, the base cannot be found, or it is an adapter too.
    """
    folder = path / read_modules(path, ref.task)[0][1]
    if not is_adapter(folder):
        return None
    name = model_name(path)
    values = read_json(folder / ADAPTER_CONFIG)
    base = values.text("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"model {name!r} is a PEFT adapter that does not name its base model (base_model_name_or_path): "
            f"pass the base model as model_identifier, and adapter={ref.identifier!r}"
        )
    base_ref = replace(ref, identifier=base, revision=values.text("revision"))
    remember_token(base, access_token(ref))
    try:
        found = find_model(base_ref)
    except ModelError as error:
        raise ModelError(
            f"model {name!r} is a PEFT adapter, and its base model {base!r} cannot be used: {error}. Or pass "
            f"the base model as model_identifier, and adapter={ref.identifier!r}"
        ) from error
    if is_adapter(found / read_modules(found, ref.task)[0][1]):
        raise ModelError(
            f"model {name!r} is a PEFT adapter of {base!r}, which is an adapter too: merge that one into its "
            "base model first (merge_and_unload in peft), and pass the result as model_identifier"
        )
    return found
