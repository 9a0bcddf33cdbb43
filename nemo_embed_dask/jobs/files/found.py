"""A file that a source names, and the columns that the names of its folders hold. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from .identity import Identity

# How Hive, Spark and pyarrow write a null in the name of a folder.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


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


def found(path: str, seen: Identity, base: str, problem: str, *, in_folder: bool) -> Found:
    """A file with the columns of its folders' names below ``base``."""
    try:
        partition = partition_of(path.removeprefix(base).rpartition("/")[0])
        return Found(path, seen, partition, problem, in_folder)
    except UnicodeError:
        told = problem or "a folder's name is no valid Unicode; rename it"
        return Found(path, seen, (), told, in_folder)


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
