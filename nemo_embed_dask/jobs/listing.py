"""Which files a source names: a file, a glob, or a folder searched to any depth. Reads no file.

A local folder is searched here and not by fsspec, which leaves out links and folders that it may not read,
without a word. Links are followed; what cannot be listed is an error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from ..errors import InputError
from .file_errors import explain, is_temporary
from .identity import Identity, identity, stat_identity

_MAGIC = "*?["
# How Hive, Spark and pyarrow write a null in the name of a folder.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_Place = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """One file: its path in its file system, its identity, and the columns that its folders' names hold.

    ``problem``: why it cannot be read, where the listing tells. ``in_folder``: found in a folder, and not by
    its own name or a glob's.
    """

    path: str
    identity: Identity
    partition: tuple[tuple[str, str | None], ...] = ()
    problem: str = ""
    in_folder: bool = False


def list_source(fs: Any, source: str) -> list[Found]:
    """All files that a source names; of folders also those whose names no input has.

    Names that begin with ``_`` or ``.`` are left out of folders.

    Raises
    ------
    InputError
        The source, or a folder in it, cannot be listed.
    """
    try:
        return list(_local(fs, source) if isinstance(fs, LocalFileSystem) else _remote(fs, source))
    except InputError:
        raise
    except Exception as error:  # client libraries raise errors of their own
        raise InputError(explain(error, source, "list"), is_temporary(error)) from error


def partition_of(folders: str) -> tuple[tuple[str, str | None], ...]:
    """The columns in a path's folder names, ``lang=en/year=2024``, as pyarrow's Hive partitioning has them.

    Raises
    ------
    UnicodeError
        A name is no valid Unicode.
    """
    values: dict[str, str | None] = {}
    for name, _, value in (folder.partition("=") for folder in folders.split("/") if "=" in folder):
        values.setdefault(_unquoted(name), None if value == _HIVE_NULL else _unquoted(value))
    return tuple(values.items())


def _unquoted(text: str) -> str:
    whole = unquote(text, errors="strict")
    whole.encode()
    return whole


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a program's own, and no data; ``_day=5`` is a Hive partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _remote(fs: Any, source: str) -> Iterator[Found]:
    path = str(fs._strip_protocol(source))
    fs.invalidate_cache()
    if any(sign in path for sign in _MAGIC) and not fs.exists(path):
        for name, entry in sorted(fs.glob(path, detail=True).items()):
            if entry["type"] == "directory" and not is_hidden(name.rpartition("/")[2]):
                yield from _below(fs, name, "")
            elif entry["type"] != "directory":
                yield _found(name, identity(entry), _parent(name))
    elif fs.isdir(path):
        yield from _below(fs, path, path)
    elif fs.exists(path):
        yield _found(path, identity(fs.info(path)), _parent(path))


def _below(fs: Any, folder: str, base: str) -> Iterator[Found]:
    """The files of a folder; only fsspec's own ``find`` passes on what to do about errors."""
    own = getattr(type(fs), "find", None) is AbstractFileSystem.find or (
        isinstance(fs, AsyncFileSystem) and type(fs)._find is AsyncFileSystem._find
    )
    for name, entry in sorted(fs.find(folder, detail=True, **({"on_error": "raise"} if own else {})).items()):
        inside = name[len(folder) :].strip("/")
        if entry["type"] == "file" and not any(map(is_hidden, inside.split("/"))):
            yield _found(name, identity(entry), _parent(name[len(base) :]), in_folder=True)


def _local(fs: Any, source: str) -> Iterator[Found]:
    path = str(fs._strip_protocol(source))
    matches = [path] if _exists(path) else []
    if not matches and any(sign in path for sign in _MAGIC):
        matches = list(dict.fromkeys(_matches("/", path.strip("/").split("/"), frozenset())))
    given = "" if Path(source).is_absolute() or "://" in source else f"{Path.cwd()}/"
    for match in matches:
        if os.path.isdir(match):  # noqa: PTH112 - of what may not be looked at, `_file` tells
            base = match if match == path else given
            yield from _walk(match, base, frozenset())
        else:
            yield _file(match, given)


def _exists(path: str) -> bool:
    """Whether there is a file, a folder or a link; one that may not be looked at is an error."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _matches(base: str, pattern: list[str], above: frozenset[_Place]) -> Iterator[str]:
    """Expand a glob, a folder at a time; ``**`` stands for any number of folders, ``above`` those passed."""
    if not pattern:
        yield base
        return
    first, rest = pattern[0], pattern[1:]
    if not any(sign in first for sign in _MAGIC):
        path = f"{base.rstrip('/')}/{first}"
        if _exists(path):
            yield from _matches(path, rest, frozenset())
        return
    if first == "**":
        yield from _matches(base, rest or ["*"], frozenset())
    if not Path(base).is_dir() or (place := _place(base)) in above:
        return
    for entry in _entries(base):
        if first == "**":
            if _is_folder(entry) and not is_hidden(entry.name):
                yield from _matches(entry.path, pattern, above | {place})
        elif fnmatchcase(entry.name, first) and _may_match(entry, first, is_last=not rest):
            yield from _matches(entry.path, rest, frozenset())


def _may_match(entry: os.DirEntry[str], pattern: str, *, is_last: bool) -> bool:
    """Whether a file stands last, and a program's own folder was asked for."""
    if not _is_folder(entry):
        return is_last
    return is_hidden(pattern) or not is_hidden(entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where this user may not look: its file will be told of
        return False


def _place(folder: str) -> _Place:
    """What tells a folder from others, whatever links lead to it."""
    try:
        seen = Path(folder).stat()
    except OSError as error:
        raise _closed(folder, error) from error
    return seen.st_dev, seen.st_ino


def _closed(folder: str, error: OSError) -> InputError:
    return InputError(
        f"the folder {folder} cannot be listed ({error.strerror}); make it readable, or name sources that "
        "leave it out"
    )


def _walk(folder: str, base: str, above: frozenset[_Place]) -> Iterator[Found]:
    """The files of a folder, through links; a link back to a folder above it ends there."""
    place = _place(folder)
    if place in above:
        return
    for entry in _entries(folder):
        if is_hidden(entry.name):
            continue
        if _is_folder(entry):
            yield from _walk(entry.path, base, above | {place})
        else:
            yield _file(entry.path, base, in_folder=True)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _closed(folder, error) from error


def _file(path: str, base: str, *, in_folder: bool = False) -> Found:
    folders = _parent(path.removeprefix(base))
    try:
        seen = Path(path).stat()
    except OSError as error:
        _check_searchable(path)
        missing = isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP
        why = "a link to a file that is not there" if missing else error.strerror
        return _found(path, Identity(0, ""), folders, f"{why}; mend or remove it", in_folder=in_folder)
    problem = (
        "" if stat.S_ISREG(seen.st_mode) else "no regular file; remove it, or name sources that leave it out"
    )
    return _found(path, stat_identity(seen), folders, problem, in_folder=in_folder)


def _check_searchable(path: str) -> None:
    """Raise where a file's folder gives names and no more: then none of its files can be looked at."""
    try:
        os.lstat(path)
    except PermissionError as error:
        raise _closed(_parent(path), error) from error
    except OSError:
        pass


def _found(path: str, seen: Identity, folders: str, problem: str = "", *, in_folder: bool = False) -> Found:
    try:
        return Found(path, seen, partition_of(folders), problem, in_folder)
    except UnicodeError:
        return Found(path, seen, (), "a folder's name is no valid Unicode; rename it", in_folder)
