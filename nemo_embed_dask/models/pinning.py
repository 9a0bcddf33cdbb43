"""Find the commits of a model and of its code, so that all processes run the same code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import ModelError, type_and_message
from .code_files import Reference, code_files, read_references
from .hub import ASKED_FIRST, ModelRef, download_files, find_files, find_snapshot, list_files
from .locate import access_token, find_in_package, is_directory, not_found
from .modules import read_modules

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(ref: ModelRef) -> ModelRef:
    """Return a model whose code is trusted with the commits of its files and of its code; others as they are.

    Commits are those of the Hugging Face cache, or else of the hub.

    Raises
    ------
    ModelError
        A commit cannot be found.
    """
    if not ref.trust_remote_code:
        return ref
    if not is_directory(ref):
        ref = replace(ref, revision=_find_commit(ref))
    try:
        references = _read_references(ref)
    except ModelError:
        raise
    except Exception as error:  # the hub's client and the network raise many types
        raise not_found(ref, error) from error
    others = sorted(
        {reference.repository for reference in references if reference.repository} - {ref.identifier}
    )
    if len(others) > 1:
        raise ModelError(
            f"model {ref.identifier!r} takes code from several repositories ({', '.join(others)}): copy the "
            "code into a directory with the model, write auto_map without their names, and pass the directory"
        )
    if not others or _COMMIT.fullmatch(ref.code_revision or ""):
        return ref
    return replace(ref, code_revision=_find_code_commit(ref, others[0], references))


def _find_commit(ref: ModelRef) -> str | None:
    if _COMMIT.fullmatch(ref.revision or ""):
        return ref.revision
    snapshot = find_snapshot(ref)
    if snapshot is not None:
        return snapshot.name
    if find_in_package(ref):
        return None
    try:
        return _ask_hub(ref, ASKED_FIRST)
    except Exception as error:  # noqa: BLE001 - the hub's client and the network raise many types
        raise not_found(ref, error) from None


def _ask_hub(ref: ModelRef, names: Sequence[str]) -> str:
    """Download the first of these files that a repository has, which records its commit in the cache."""
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        with suppress(EntryNotFoundError):
            return download_files(ref, [name], access_token(ref)).name
    raise FileNotFoundError(f"it has no {' and no '.join(names)}")


def _read_references(ref: ModelRef) -> list[Reference]:
    """Read which code a model's files name; of a model on the hub only these files are downloaded."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    folder = find_in_package(ref)
    if is_directory(ref):
        folder = Path(ref.identifier).expanduser()
    for name in () if folder else ("tokenizer_config.json", "config.json"):
        with suppress(EntryNotFoundError):
            file = hf_hub_download(filename=name, **ref.hub_arguments, token=access_token(ref) or None)
            folder = Path(file).parent
    return read_references(folder / read_modules(folder, ref.task)[0][1]) if folder and folder.is_dir() else []


def _find_code_commit(ref: ModelRef, repository: str, references: list[Reference]) -> str:
    names = [f"{reference.module}.py" for reference in references if reference.repository == repository]
    code = ModelRef(repository, ref.code_revision, ref.cache_dir)
    snapshot = find_files(code, names)
    if snapshot is not None:
        return snapshot.name
    try:
        return _ask_hub(code, names)
    except Exception as error:  # the hub's client and the network raise many types
        raise _unknown_code(ref.identifier, code, f"is not known ({type_and_message(error, 300)})") from error


def find_code(ref: ModelRef, reference: Reference, model: str) -> Path:
    """Return the folder of code in another repository, which is downloaded if it is not in the cache.

    ``model`` is the model's name, for messages.

    Raises
    ------
    ModelError
        The code's commit was not given, or the code cannot be downloaded.
    """
    code = ModelRef(str(reference.repository), ref.code_revision, ref.cache_dir)
    if code.revision is None:
        raise _unknown_code(model, code, "was not given")
    snapshot = find_files(code, [f"{reference.module}.py"])
    if snapshot is not None and all(file.is_file() for file in code_files(snapshot, reference.module)):
        return snapshot
    try:
        _ask_hub(code, [f"{reference.module}.py"])
        names = [name for name in list_files(code, access_token(code)) if name.endswith(".py")]
        return download_files(code, names, access_token(code))
    except Exception as error:  # the hub's client and the network raise many types
        raise _unknown_code(
            model, code, f"{code.revision} was not found ({type_and_message(error, 300)})"
        ) from error


def _unknown_code(model: str, code: ModelRef, why: str) -> ModelError:
    return ModelError(
        f"model {model!r} takes its code from the repository {code.identifier!r}, whose commit {why}: pass "
        "the commit as code_revision, and on a machine with internet access run `hf download "
        f"{code.identifier} --revision COMMIT --include '*.py'` and share its cache (HF_HOME)"
    )
