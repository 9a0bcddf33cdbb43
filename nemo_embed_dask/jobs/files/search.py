"""Find the files of a source: a file, a glob, or a folder that is searched to any depth. Reads no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from ...errors import InputError
from .entries import LocalFolders, RemoteFolders
from .errors import explain_errors
from .folder_search import SourceFiles, search_folders
from .object_search import search_object_store
from .reachability import check_reachable


def list_source(fs: Any, source: str) -> SourceFiles:
    """Return all files of a source; those of folders whatever their format.

    In folders, names that begin with ``_`` or ``.`` are left out. Links are followed. A folder to which several
    paths lead is searched once, under the path with the fewest links, and of these the first by name.

    Raises
    ------
    InputError
        The source cannot be reached, or a folder in it cannot be listed.
    """
    with explain_errors(source, "list", InputError):
        path = str(fs._strip_protocol(source))
        if isinstance(fs, LocalFileSystem):
            is_absolute = Path(source).is_absolute() or "://" in source
            return search_folders(LocalFolders(), path, "" if is_absolute else f"{Path.cwd()}/")
        check_reachable(fs, source, InputError)
        fs.invalidate_cache()
        if _lists_one_folder(fs):
            return search_folders(RemoteFolders(fs), path, "")
        return SourceFiles(list(search_object_store(fs, path)), {})


def _lists_one_folder(fs: Any) -> bool:
    """Return whether a file system lists one folder at a time.

    For these, fsspec's own search leaves out links to folders and unreadable folders.
    """
    if isinstance(fs, AsyncFileSystem):
        return type(fs)._find is AsyncFileSystem._find
    return type(fs).find is AbstractFileSystem.find
