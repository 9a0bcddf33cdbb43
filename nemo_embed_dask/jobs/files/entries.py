"""List the entries of folders, and tell files, folders and links apart. Reads no file.

fsspec's own search silently leaves out links to folders, and folders that cannot be read. Here links are
followed, and a folder that cannot be read is an error.
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
from .errors import describe_error, explain_errors, is_missing
from .file_identity import FileIdentity, identity_from_info, identity_from_stat
from .file_names import partition_columns

_UNKNOWN = FileIdentity(0, "")
_BROKEN_LINK = "a broken link: the file it points to does not exist"
_REPAIR = "repair or remove it"
_NOT_REGULAR = "not a regular file; remove it, or pass sources that do not include it"
_NOT_UNICODE = "a folder's name is not valid Unicode; rename the folder"


@dataclass(frozen=True, order=True)
class Entry:
    """One entry of a folder; a link is described as what it points to.

    Attributes
    ----------
    path : str
    is_folder, is_link : bool
    problem : str
        Why the entry cannot be examined (it may then be a folder); else empty.
    info : dict
        The description by fsspec, of remote entries.
    """

    path: str
    is_folder: bool = False
    is_link: bool = False
    problem: str = ""
    info: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class FoundFile:
    """One file of a source.

    Attributes
    ----------
    path : str
        In its file system.
    identity : FileIdentity
    partition : tuple of (str, str or None)
        The columns in the names of its folders.
    problem : str
        Why it cannot be read, if listing it has shown that; else empty.
    in_folder : bool
        Whether it was found in a folder, rather than by its own name or a glob.
    """

    path: str
    identity: FileIdentity
    partition: tuple[tuple[str, str | None], ...] = ()
    problem: str = ""
    in_folder: bool = False


def found_file(path: str, identity: FileIdentity, base: str, problem: str, *, in_folder: bool) -> FoundFile:
    """Return a file with the columns in the names of its folders below ``base``."""
    try:
        partition = partition_columns(path.removeprefix(base).rpartition("/")[0])
        return FoundFile(path, identity, partition, problem, in_folder)
    except UnicodeError:
        return FoundFile(path, identity, (), problem or _NOT_UNICODE, in_folder)


class Folders(Protocol):
    """Access to the folders of a file system; ``resolves_links``: whether `resolve` follows links."""

    resolves_links: bool

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's entries.

        Raises
        ------
        InputError
            The folder cannot be listed.
        """

    def entry(self, path: str) -> Entry | None:
        """Return what is at a path; None if nothing is."""

    def resolve(self, folder: str) -> str:
        """Return a folder's path without links."""

    def identify(self, file: Entry) -> tuple[FileIdentity, str]:
        """Return a file's identity, and why it cannot be read."""


class LocalFolders:
    """Folders of this machine."""

    resolves_links = True

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's entries; links are followed."""
        try:
            with os.scandir(folder) as entries:
                return [
                    _linked_entry(entry.path) if entry.is_symlink() else Entry(entry.path, entry.is_dir())
                    for entry in entries
                ]
        except OSError as error:
            raise _folder_error(folder, error) from error

    def entry(self, path: str) -> Entry | None:
        """Return what is at a path, also a broken link; raise `OSError` if it must not be examined."""
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _linked_entry(path) if stat.S_ISLNK(mode) else Entry(path, stat.S_ISDIR(mode))

    def resolve(self, folder: str) -> str:
        """Return a folder's path without links."""
        return os.path.realpath(folder)

    def identify(self, file: Entry) -> tuple[FileIdentity, str]:
        """Return a file's identity (of a link, the linked file's), and why it cannot be read, else ""."""
        if file.problem:
            return _UNKNOWN, file.problem
        try:
            status = Path(file.path).stat()
        except OSError as error:
            _check_searchable(file.path)
            return _UNKNOWN, _problem(error)
        return identity_from_stat(status), "" if stat.S_ISREG(status.st_mode) else _NOT_REGULAR


def _linked_entry(path: str) -> Entry:
    """Return what a local link points to."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return Entry(path, is_link=True, problem=_problem(error))
    return Entry(path, stat.S_ISDIR(mode), is_link=True)


def _problem(error: OSError) -> str:
    is_broken = isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP
    return f"{_BROKEN_LINK if is_broken else error.strerror}; {_REPAIR}"


def _check_searchable(path: str) -> None:
    """Raise if permissions allow to list a file's folder, but not to examine the files in it."""
    try:
        os.lstat(path)
    except PermissionError as error:
        raise _folder_error(path.rpartition("/")[0], error) from error
    except OSError:
        return


def _folder_error(folder: str, error: OSError) -> InputError:
    return InputError(
        f"the folder {folder} cannot be listed ({error.strerror}); make it readable, or pass sources that do "
        "not include it"
    )


class RemoteFolders:
    """Folders of an fsspec file system that lists one folder at a time, such as SFTP, HDFS and HTTP."""

    resolves_links = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's entries; links are followed one by one."""
        with explain_errors(self._fs.unstrip_protocol(folder), "list", InputError):
            infos = self._fs.ls(folder, detail=True)
        named = [(str(info["name"]).rstrip("/"), info) for info in infos]
        return [remote_entry(self._fs, path, info) for path, info in named if path != folder.rstrip("/")]

    def entry(self, path: str) -> Entry | None:
        """Return what is at a path; links are followed."""
        try:
            info = self._fs.info(path)
        except Exception as error:
            if is_missing(error):
                return None
            raise
        is_folder = info["type"] == "directory"
        if not is_folder and isinstance(self._fs, AsyncFileSystem):
            is_folder = self._fs.isdir(path)  # HTTP describes folders as files; only listing them shows it
        return Entry(path, is_folder, info=info)

    def resolve(self, folder: str) -> str:
        """Return the path as it is: these file systems do not tell where links point."""
        return folder

    def identify(self, file: Entry) -> tuple[FileIdentity, str]:
        """Return a file's identity from its listing, and why it cannot be read."""
        return identify_listed(file)


def remote_entry(fs: Any, path: str, info: dict[str, Any]) -> Entry:
    """Return an entry as its listing describes it; ask the file system if it is neither file nor folder."""
    if info["type"] in {"file", "directory"}:
        return Entry(path, info["type"] == "directory", info=info)
    try:
        info = fs.info(path)
    except Exception as error:  # noqa: BLE001 - client libraries have their own error classes
        cause = _BROKEN_LINK if is_missing(error) else describe_error(error, path)
        return Entry(path, is_link=True, problem=f"{cause}; {_REPAIR}")
    return Entry(path, info["type"] == "directory", is_link=True, info=info)


def identify_listed(file: Entry) -> tuple[FileIdentity, str]:
    """Return a remote file's identity from its listing alone, and why it cannot be read."""
    if file.problem:
        return _UNKNOWN, file.problem
    return identity_from_info(file.info), "" if file.info.get("type") == "file" else _NOT_REGULAR
