"""Search a source in an object store, which has no links and lists all that is below an address at once."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from .entries import Entry, FoundFile, found_file, identify_listed, remote_entry
from .file_names import is_glob, is_hidden


def search_object_store(fs: Any, path: str) -> Iterator[FoundFile]:
    """Yield the files of a path, which is a file, a folder or a glob; a path that exists is not a glob."""
    if is_glob(path) and not fs.exists(path):
        yield from _files_of_glob(fs, path)
    elif fs.isdir(path):
        yield from _files_below(fs, path, base=path)
    elif fs.exists(path):
        yield _found(Entry(path, info=fs.info(path)), "", in_folder=False)


def _files_of_glob(fs: Any, glob: str) -> Iterator[FoundFile]:
    for path, info in sorted(fs.glob(glob, detail=True).items()):
        entry = remote_entry(fs, path, info)
        if not _is_included(entry, glob):
            continue
        if entry.is_folder:
            yield from _files_below(fs, path, base="")
        else:
            yield _found(entry, "", in_folder=False)


def _files_below(fs: Any, folder: str, base: str) -> Iterator[FoundFile]:
    for path, info in sorted(fs.find(folder, detail=True).items()):
        names = path[len(folder) :].strip("/").split("/")
        if info["type"] != "directory" and not any(is_hidden(name) for name in names):
            yield _found(remote_entry(fs, path, info), base, in_folder=True)


def _found(entry: Entry, base: str, *, in_folder: bool) -> FoundFile:
    identity, problem = identify_listed(entry)
    return found_file(entry.path, identity, base, problem, in_folder=in_folder)


def _is_included(entry: Entry, glob: str) -> bool:
    """Return whether a glob matches an entry, although ``*`` and ``**`` match no hidden folder."""
    pattern = glob.strip("/").split("/")
    first = next(i for i, part in enumerate(pattern) if is_glob(part))
    names = entry.path.strip("/").split("/")[first:]
    folders = names if entry.is_folder else names[:-1]
    if not any(is_hidden(name) for name in folders):
        return True
    return _matches(names, pattern[first:], is_folder=entry.is_folder)


def _matches(names: list[str], pattern: list[str], *, is_folder: bool) -> bool:
    """Return whether a path's names match a glob's parts, of which only hidden ones match hidden folders."""
    if not names or not pattern:
        return not names and not pattern
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        if len(names) > 1 and not is_hidden(names[0]) and _matches(names[1:], pattern, is_folder=is_folder):
            return True
        return _matches(names, rest or ["*"], is_folder=is_folder)
    is_last_file = len(names) == 1 and not is_folder
    if is_hidden(names[0]) and not is_hidden(first) and not is_last_file:
        return False
    return fnmatchcase(names[0], first) and _matches(names[1:], rest, is_folder=is_folder)
