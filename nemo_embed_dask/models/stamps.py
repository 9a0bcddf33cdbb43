"""Stamps of a model's files, which show whether one of them was written again; what was loaded from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TypeVar

from .files import READ
from .modules import all_modules, router_folders

# Of each file that decides what a model computes: its name, size, times of modification and change, and inode.
# ``cp -p`` and ``rsync -t`` set the time of modification; nobody can set the other time.
Stamp = tuple[tuple[str, int, int, int, int], ...]
Key = TypeVar("Key")
Value = TypeVar("Value")

_EXPORT = (".xml", ".bin")


def stamp_model(path: Path) -> Stamp:
    """Return the stamp of a model's directory, which differs after one of its files was written again."""
    modules = all_modules(path)
    folders = dict.fromkeys(["", *router_folders(path), *(folder for _, folder in modules)])
    stamps = [stamp_folder(path / folder, folder) for folder in folders]
    export = stamp_folder(path / modules[0][1] / "openvino", "openvino", _EXPORT)
    return tuple(chain(*stamps, export))


def stamp_folder(folder: Path, name: str = "", endings: tuple[str, ...] = READ) -> Stamp:
    """Return the stamp of the files in one folder; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            read = (entry for entry in entries if entry.name.endswith(endings))
            files = [(entry.name, info) for entry in read if (info := _file_info(entry))]
    except OSError:  # whoever reads the folder reports it
        return ()
    stamps = [(i.st_size, i.st_mtime_ns, i.st_ctime_ns, i.st_ino) for _, i in files]
    return tuple(sorted((f"{name}/{file}", *stamp) for (file, _), stamp in zip(files, stamps, strict=True)))


def _file_info(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat() if entry.is_file() else None
    except OSError:  # for example a link to itself; whoever reads the file reports it
        return None


def load_once(
    loaded: dict[Key, tuple[Stamp, Value]], key: Key, stamp: Stamp, make: Callable[[], Value]
) -> Value:
    """Return what ``loaded`` has for a key. It is made if it is missing, or if its files had another stamp."""
    found = loaded.get(key)
    if found is None or found[0] != stamp:
        loaded.pop(key, None)  # frees the old value's memory before the new one is made
        found = loaded[key] = (stamp, make())
    return found[1]
