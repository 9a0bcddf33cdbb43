"""Which files a source names: a file, a glob, or a folder searched to any depth. Reads no file.

Folders are searched here, one at a time, wherever a file system lists them so; object stores have no links,
and list all that is below an address at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from operator import attrgetter
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from ...errors import InputError
from .entries import Entry, Folders, FoundFile, LocalFolders, RemoteFolders, found_file, listed, remote_entry
from .errors import explain_error, is_temporary
from .file_names import is_hidden

_MAGIC = "*?["
_CIRCLE = (
    "a link to a folder within a linked folder, which may lead in a circle; name what it leads to as a source "
    "of its own"
)


def list_source(fs: Any, source: str, again: dict[str, str] | None = None) -> list[FoundFile]:
    """All files that a source names; of folders also those whose names no input has.

    Names that begin with ``_`` or ``.`` are left out of folders. Links are followed; a folder to which several
    paths lead is searched once: under the path with the fewest links, and of these the first by its name.

    Parameters
    ----------
    fs : fsspec file system
    source : str
    again : dict, optional
        Gets paths of folders that are not searched, because they were under another path -> that path.

    Raises
    ------
    InputError
        The source, or a folder in it, cannot be listed.
    """
    again = {} if again is None else again
    try:
        path = str(fs._strip_protocol(source))
        if isinstance(fs, LocalFileSystem):
            given = "" if Path(source).is_absolute() or "://" in source else f"{Path.cwd()}/"
            return list(_Search(LocalFolders(), given, again).named(path))
        fs.invalidate_cache()
        if _lists_by_folder(fs):
            return list(_Search(RemoteFolders(fs), "", again).named(path))
        return list(_flat(fs, path))
    except InputError:
        raise
    except Exception as error:  # client libraries raise errors of their own
        raise InputError(explain_error(error, source, "list"), is_temporary(error)) from error


def _lists_by_folder(fs: Any) -> bool:
    """Whether a file system lists folders one by one; fsspec would leave out those that it cannot list."""
    if isinstance(fs, AsyncFileSystem):
        return type(fs)._find is AsyncFileSystem._find
    return type(fs).find is AbstractFileSystem.find


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in _MAGIC)


# ---- a folder at a time -----------------------------------------------------------------------------


@dataclass
class _Search:
    """One source's search; ``given`` is the folder that its address leaves out, ``passed`` what was seen."""

    folders: Folders
    given: str
    again: dict[str, str]
    passed: dict[tuple[int, str], str] = field(default_factory=dict)

    def named(self, path: str) -> Iterator[FoundFile]:
        """The files of a path: of a name first, then of a glob."""
        start, pattern = self.folders.look(path), list[str]()
        if start is None and _is_glob(path):
            parts = path.split("/")
            plain = next(i for i, part in enumerate(parts) if _is_glob(part))
            pattern = [*filter(None, parts[plain:]), *(["*"] if parts[-1] == "**" else [])]
            start = self.folders.look("/".join(parts[:plain]) or path[: path.startswith("/")])
        if start is None:
            return
        base = path if start.is_folder and not pattern else self.given
        for entry, in_folder in self._files(start, pattern):
            seen, problem = self.folders.seen(entry)
            yield found_file(entry.path, seen, base, problem, in_folder=in_folder)

    def _files(self, start: Entry, pattern: list[str]) -> Iterator[tuple[Entry, bool]]:
        """Files, and whether they are below a folder that the whole pattern fits.

        ``at`` is how many parts of the pattern a path has used up. Paths of few links come first, then by name.
        """
        waiting, end = [(0, start, 0)], len(pattern)
        while waiting:
            links, entry, at = heappop(waiting)
            if not entry.is_folder:
                if entry.lost or at >= end:
                    yield entry, at > end
            elif at < end and not _is_glob(pattern[at]):
                child = self.folders.look(f"{entry.path.rstrip('/')}/{pattern[at]}")
                if child:
                    heappush(waiting, (links + child.is_link, child, at + 1))
            else:
                if pattern[at : at + 1] == ["**"]:  # which stands for no folder too
                    heappush(waiting, (links, entry, at + 1))
                for child, step in self._children(entry, links, pattern, at):
                    if child.is_folder:
                        heappush(waiting, (links + child.is_link, child, step))
                    else:
                        yield child, step > end

    def _children(self, folder: Entry, links: int, pattern: list[str], at: int) -> Iterator[tuple[Entry, int]]:
        """The entries of a folder that are asked for, and how much of the pattern is used up with each."""
        if not self._is_new(folder, min(at, len(pattern))):
            return
        for entry in sorted(self.folders.entries(folder.path), key=attrgetter("path")):
            endless = entry.is_folder and entry.is_link and links and not self.folders.tells_apart
            child = replace(entry, is_folder=False, lost=_CIRCLE) if endless else entry
            step = _next(child, pattern, at)
            if step is not None:
                yield child, step

    def _is_new(self, folder: Entry, at: int) -> bool:
        """Whether this part of the pattern was not looked for in the folder yet, under whatever name."""
        key = at, self.folders.real(folder.path)
        if key not in self.passed:
            self.passed[key] = folder.path
            return True
        if self.passed[key] != folder.path:
            self.again[folder.path] = self.passed[key]
        return False


def _next(child: Entry, pattern: list[str], at: int) -> int | None:
    """How many parts of a pattern are used up with an entry of a folder; None if it is not asked for."""
    hidden, may_be_folder = is_hidden(child.name), child.is_folder or bool(child.lost)
    if at >= len(pattern):
        return None if hidden else len(pattern) + 1
    if pattern[at] == "**":
        return at if may_be_folder and not hidden else None
    as_folder = may_be_folder and (not hidden or is_hidden(pattern[at]))
    as_file = not child.is_folder and at == len(pattern) - 1
    return at + 1 if (as_folder or as_file) and fnmatchcase(child.name, pattern[at]) else None


# ---- all at once ------------------------------------------------------------------------------------


def _flat(fs: Any, path: str) -> Iterator[FoundFile]:
    """The files of a path in an object store: of a name first, then of a glob."""
    if _is_glob(path) and not fs.exists(path):
        for name, info in sorted(fs.glob(path, detail=True).items()):
            entry = remote_entry(fs, name, info)
            if _is_asked_for(entry, path) and entry.is_folder:
                yield from _below(fs, name, "")
            elif _is_asked_for(entry, path):
                yield _found(entry, "", in_folder=False)
    elif fs.isdir(path):
        yield from _below(fs, path, path)
    elif fs.exists(path):
        yield _found(Entry(path, info=fs.info(path)), "", in_folder=False)


def _below(fs: Any, folder: str, base: str) -> Iterator[FoundFile]:
    """The files of a folder."""
    for name, info in sorted(fs.find(folder, detail=True).items()):
        inside = name[len(folder) :].strip("/")
        if info["type"] != "directory" and not any(map(is_hidden, inside.split("/"))):
            yield _found(remote_entry(fs, name, info), base, in_folder=True)


def _found(entry: Entry, base: str, *, in_folder: bool) -> FoundFile:
    seen, problem = listed(entry)
    return found_file(entry.path, seen, base, problem, in_folder=in_folder)


def _is_asked_for(entry: Entry, glob: str) -> bool:
    """Whether a glob names an entry not only through programs' own folders, into which ``*`` does not lead."""
    pattern = glob.strip("/").split("/")
    plain = next(i for i, part in enumerate(pattern) if _is_glob(part))
    names = entry.path.strip("/").split("/")[plain:]
    folders = names if entry.is_folder else names[:-1]
    return not any(map(is_hidden, folders)) or _fits(names, pattern[plain:], is_folder=entry.is_folder)


def _fits(names: list[str], pattern: list[str], *, is_folder: bool) -> bool:
    if not names or not pattern:
        return not names and not pattern
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        deeper = len(names) > 1 and not is_hidden(names[0]) and _fits(names[1:], pattern, is_folder=is_folder)
        return deeper or _fits(names, rest or ["*"], is_folder=is_folder)
    is_last_file = len(names) == 1 and not is_folder
    if is_hidden(names[0]) and not is_hidden(first) and not is_last_file:
        return False
    return fnmatchcase(names[0], first) and _fits(names[1:], rest, is_folder=is_folder)
