"""What the names of files and folders say: format, compression, Hive partitions, hidden or not."""

from __future__ import annotations

from urllib.parse import unquote

from .decompression import COMPRESSION_ENDINGS

PARQUET, JSONL = "parquet", "jsonl"
# Ending of a file's name -> its format. A file of JSON lines may have a compression ending too.
FORMAT_ENDINGS = {".parquet": PARQUET, ".pq": PARQUET, ".parq": PARQUET, ".jsonl": JSONL, ".ndjson": JSONL}
# How Hive, Spark and pyarrow write a null in the name of a folder.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def file_format(name: str) -> str | None:
    """Return the format that a file's name shows; None for any name that an input cannot have."""
    lower = name.lower()
    uncompressed = lower
    for ending in COMPRESSION_ENDINGS:
        uncompressed = uncompressed.removesuffix(ending)
    for ending, value in FORMAT_ENDINGS.items():
        if uncompressed.endswith(ending):
            return None if value == PARQUET and uncompressed != lower else value
    return None


def compression_ending(address: str) -> str | None:
    """Return the ending of a compressed file's name, such as ``.gz``; None if the file is not compressed."""
    name = without_query(address).lower()
    return next((ending for ending in COMPRESSION_ENDINGS if name.endswith(ending)), None)


def without_query(address: str) -> str:
    """Return an address without its URL query."""
    return address.partition("?")[0] if address.startswith(("http://", "https://")) else address


def is_hidden(name: str) -> bool:
    """Return whether a name marks a file or folder that holds no data; ``_day=5`` is a Hive partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def is_glob(text: str) -> bool:
    """Return whether a path, or a part of it, has the special characters of a glob."""
    return any(character in text for character in "*?[")


def partition_columns(folders: str) -> tuple[tuple[str, str | None], ...]:
    """Return the columns that a path's folder names hold, as pyarrow's Hive partitioning reads them.

    ``lang=en/year=2024`` gives ``(("lang", "en"), ("year", "2024"))``.

    Raises
    ------
    UnicodeError
        A name is not valid Unicode.
    """
    values: dict[str, str | None] = {}
    for folder in folders.split("/"):
        name, equals, value = folder.partition("=")
        if equals:
            values.setdefault(_unquoted(name), None if value == _HIVE_NULL else _unquoted(value))
    return tuple(values.items())


def _unquoted(text: str) -> str:
    """Resolve percent escapes; raise `UnicodeError` if the result cannot be encoded as UTF-8."""
    unquoted = unquote(text, errors="strict")
    unquoted.encode()
    return unquoted
