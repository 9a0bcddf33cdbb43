"""What file systems say of a folder's entries: which are folders, links, or files. Reads no file.

fsspec's own search of folders leaves out links to folders, and folders that it may not read, without a word.
Here both are entries or errors.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fsspec.asyn import AsyncFileSystem

from ...errors import InputError
from .errors import describe_error, explain_error, is_missing, is_temporary
from .file_identity import FileIdentity, identity_from_info, identity_from_stat
from .file_names import partition_columns

_GONE = "a link to a file that is not there"
_MEND = "mend or remove it"
_NO_FILE = "not a regular file; remove it, or name sources that leave it out"


@dataclass(frozen=True, order=True)
class Entry:
    """One entry of a folder; a link is what it leads to.

    ``lost``: why it cannot be looked at, so that it may be a folder of many files.
    """

    path: str
    is_folder: bool = False
    is_link: bool = False
    lost: str = ""
    info: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class FoundFile:
    """One file: its path in its file system, its identity, and the columns that its folders' names hold.

    ``problem``: why it cannot be read, where the listing tells. ``in_folder``: found in a folder, and not by
    its own name or a glob's.
    """

    path: str
    identity: FileIdentity
    partition: tuple[tuple[str, str | None], ...] = ()
    problem: str = ""
    in_folder: bool = False


def found_file(path: str, seen: FileIdentity, base: str, problem: str, *, in_folder: bool) -> FoundFile:
    """A file with the columns of its folders' names below ``base``."""
    try:
        partition = partition_columns(path.removeprefix(base).rpartition("/")[0])
        return FoundFile(path, seen, partition, problem, in_folder)
    except UnicodeError:
        told = problem or "a folder's name is no valid Unicode; rename it"
        return FoundFile(path, seen, (), told, in_folder)


class Folders(Protocol):
    """How to look around in a file system; ``tells_apart``: whether `real` resolves links."""

    tells_apart: bool

    def entries(self, folder: str) -> list[Entry]:
        """A folder's entries; an `InputError` that names the folder where it cannot be listed."""

    def look(self, path: str) -> Entry | None:
        """What is at a path; None where there is nothing."""

    def real(self, folder: str) -> str:
        """A folder's path without links."""

    def seen(self, entry: Entry) -> tuple[FileIdentity, str]:
        """A file's identity, and why it cannot be read."""


class LocalFolders:
    """Folders of this machine."""

    tells_apart = True

    def entries(self, folder: str) -> list[Entry]:
        """A folder's entries, each looked at."""
        try:
            with os.scandir(folder) as entries:
                return [_entry(entry) for entry in entries]
        except OSError as error:
            raise _closed(folder, error) from error

    def look(self, path: str) -> Entry | None:
        """What is at a path, a dead link too; one that may not be looked at is an error."""
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _followed(path) if stat.S_ISLNK(mode) else Entry(path, stat.S_ISDIR(mode))

    def real(self, folder: str) -> str:
        """A folder's path without links."""
        return os.path.realpath(folder)

    def seen(self, entry: Entry) -> tuple[FileIdentity, str]:
        """A file's identity, that of a link's target, and why it cannot be read."""
        if entry.lost:
            return FileIdentity(0, ""), entry.lost
        try:
            seen = Path(entry.path).stat()
        except OSError as error:
            _check_searchable(entry.path)
            return FileIdentity(0, ""), f"{_why(error)}; {_MEND}"
        return identity_from_stat(seen), "" if stat.S_ISREG(seen.st_mode) else _NO_FILE


def _entry(entry: os.DirEntry[str]) -> Entry:
    return _followed(entry.path) if entry.is_symlink() else Entry(entry.path, entry.is_dir())


def _followed(path: str) -> Entry:
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return Entry(path, is_link=True, lost=f"{_why(error)}; {_MEND}")
    return Entry(path, stat.S_ISDIR(mode), is_link=True)


def _why(error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP
    return _GONE if missing else str(error.strerror)


def _check_searchable(path: str) -> None:
    """Raise where a file's folder gives names and no more: then none of its files can be looked at."""
    try:
        os.lstat(path)
    except PermissionError as error:
        raise _closed(path.rpartition("/")[0], error) from error
    except OSError:
        return


def _closed(folder: str, error: OSError) -> InputError:
    return InputError(
        f"the folder {folder} cannot be listed ({error.strerror}); make it readable, or name sources that "
        "leave it out"
    )


class RemoteFolders:
    """Folders of an fsspec file system that lists one at a time, such as SFTP, HDFS and HTTP."""

    tells_apart = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def entries(self, folder: str) -> list[Entry]:
        """A folder's entries; links are looked at one by one."""
        try:
            listed = self._fs.ls(folder, detail=True)
        except Exception as error:  # client libraries raise errors of their own
            raise InputError(
                explain_error(error, self._fs.unstrip_protocol(folder), "list"), is_temporary(error)
            ) from error
        named = [(str(info["name"]).rstrip("/"), info) for info in listed]
        return [remote_entry(self._fs, path, info) for path, info in named if path != folder.rstrip("/")]

    def look(self, path: str) -> Entry | None:
        """What is at a path, through links."""
        try:
            info = self._fs.info(path)
        except Exception as error:
            if is_missing(error):
                return None
            raise
        # HTTP calls folders files too, and only listing them tells.
        is_folder = info["type"] == "directory" or (
            isinstance(self._fs, AsyncFileSystem) and self._fs.isdir(path)
        )
        return Entry(path, is_folder, info=info)

    def real(self, folder: str) -> str:
        """The path as it is: file systems do not say where links lead."""
        return folder

    def seen(self, entry: Entry) -> tuple[FileIdentity, str]:
        """A file's identity from its listing, and why it cannot be read."""
        return listed(entry)


def remote_entry(fs: Any, path: str, info: dict[str, Any]) -> Entry:
    """An entry as its listing describes it; what is behind it where that is neither a file nor a folder."""
    if info["type"] in {"file", "directory"}:
        return Entry(path, info["type"] == "directory", info=info)
    try:
        info = fs.info(path)
    except Exception as error:  # noqa: BLE001 - client libraries raise errors of their own
        told = _GONE if is_missing(error) else describe_error(error, path)
        return Entry(path, is_link=True, lost=f"{told}; {_MEND}")
    return Entry(path, info["type"] == "directory", is_link=True, info=info)


def listed(entry: Entry) -> tuple[FileIdentity, str]:
    """A remote file's identity, and why it cannot be read, by its entry alone."""
    if entry.lost:
        return FileIdentity(0, ""), entry.lost
    return identity_from_info(entry.info), "" if entry.info.get("type") == "file" else _NO_FILE
