"""Search a source folder by folder, with links and globs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from operator import attrgetter

from .entries import Entry, Folders, FoundFile, found_file
from .file_names import is_glob, is_hidden

_NESTED_LINK = (
    "a link to a folder inside a linked folder is not followed, because such links may form a loop; pass the "
    "folder that it points to as another source"
)


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source.

    Attributes
    ----------
    files : list of FoundFile
    duplicate_folders : dict
        Folders that are left out because they were searched under another path -> that path.
    """

    files: list[FoundFile]
    duplicate_folders: dict[str, str]


def search_folders(folders: Folders, path: str, current_folder: str) -> SourceFiles:
    """Return the files of a path, which is a file, a folder or a glob.

    ``current_folder`` is the part of ``path`` that was put in front of a relative source, else empty: folder
    names in it give no partition columns.
    """
    start, pattern = _start(folders, path)
    if start is None:
        return SourceFiles([], {})
    search = _Search(folders, pattern)
    base = path if start.is_folder and not pattern else current_folder
    files = []
    for entry, in_folder in search.files(start):
        identity, problem = folders.identify(entry)
        files.append(found_file(entry.path, identity, base, problem, in_folder=in_folder))
    return SourceFiles(files, search.duplicate_folders)


def _start(folders: Folders, path: str) -> tuple[Entry | None, list[str]]:
    """Return the entry to start from, and the glob's parts below it.

    "/data/a*/b" gives the entry of "/data" and ``["a*", "b"]``. A path that exists is not a glob.
    """
    entry = folders.entry(path)
    if entry is not None or not is_glob(path):
        return entry, []
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if is_glob(part))
    pattern = [part for part in parts[first:] if part]
    if parts[-1] == "**":
        pattern.append("*")
    root = "/" if path.startswith("/") else ""
    return folders.entry("/".join(parts[:first]) or root), pattern


@dataclass
class _Search:
    """The search of one source for the parts of a glob; without parts, for all files.

    ``matched`` always means how many parts of the pattern a path has matched. For everything inside a folder
    that matches the whole pattern, it is ``len(pattern) + 1``.
    """

    folders: Folders
    pattern: list[str]
    duplicate_folders: dict[str, str] = field(default_factory=dict)
    _searched: dict[tuple[int, str], str] = field(default_factory=dict)

    def files(self, start: Entry) -> Iterator[tuple[Entry, bool]]:
        """Yield files, and whether each lies in a folder that the whole pattern matches.

        The queue gives paths with the fewest links first, then by name.
        """
        queue = [(0, start, 0)]
        while queue:
            links, entry, matched = heappop(queue)
            if not entry.is_folder:
                # An entry with a problem may be a folder with files that match the rest of the pattern.
                if entry.problem or matched >= len(self.pattern):
                    yield entry, matched > len(self.pattern)
                continue
            if self._is_plain_name(matched):
                child = self.folders.entry(f"{entry.path.rstrip('/')}/{self.pattern[matched]}")
                if child:
                    heappush(queue, (links + child.is_link, child, matched + 1))
                continue
            if self._is_double_star(matched):  # it matches zero folders too
                heappush(queue, (links, entry, matched + 1))
            for child, child_matched in self._children(entry, links, matched):
                if child.is_folder:
                    heappush(queue, (links + child.is_link, child, child_matched))
                else:
                    yield child, child_matched > len(self.pattern)

    def _is_plain_name(self, matched: int) -> bool:
        return matched < len(self.pattern) and not is_glob(self.pattern[matched])

    def _is_double_star(self, matched: int) -> bool:
        return matched < len(self.pattern) and self.pattern[matched] == "**"

    def _children(self, folder: Entry, links: int, matched: int) -> Iterator[tuple[Entry, int]]:
        """Yield the entries of a folder that the pattern's next part matches, with their ``matched``."""
        if not self._is_new(folder, min(matched, len(self.pattern))):
            return
        for entry in sorted(self.folders.entries(folder.path), key=attrgetter("path")):
            is_nested_link = entry.is_folder and entry.is_link and links and not self.folders.resolves_links
            child = replace(entry, is_folder=False, problem=_NESTED_LINK) if is_nested_link else entry
            child_matched = _match(child, self.pattern, matched)
            if child_matched is not None:
                yield child, child_matched

    def _is_new(self, folder: Entry, matched: int) -> bool:
        """Return whether the folder was not yet searched for this part of the pattern, under any path."""
        key = matched, self.folders.resolve(folder.path)
        if key not in self._searched:
            self._searched[key] = folder.path
            return True
        if self._searched[key] != folder.path:
            self.duplicate_folders[folder.path] = self._searched[key]
        return False


def _match(entry: Entry, pattern: list[str], matched: int) -> int | None:
    """Return how many parts of the pattern are matched with an entry; None if it does not match."""
    is_hidden_entry = is_hidden(entry.name)
    may_be_folder = entry.is_folder or bool(entry.problem)
    if matched >= len(pattern):
        return None if is_hidden_entry else len(pattern) + 1
    if pattern[matched] == "**":
        return matched if may_be_folder and not is_hidden_entry else None
    as_folder = may_be_folder and (not is_hidden_entry or is_hidden(pattern[matched]))
    as_file = not entry.is_folder and matched == len(pattern) - 1
    is_match = (as_folder or as_file) and fnmatchcase(entry.name, pattern[matched])
    return matched + 1 if is_match else None
