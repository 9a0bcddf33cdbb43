"""Sources to units of work: which files, and which row groups of each. Reads footers, never rows.

A unit is a file, or as many consecutive row groups of a Parquet file as hold ``rows_per_part`` rows; its
name follows from the file's address and those row groups alone, so that it is the same on every run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import JobError
from .storage import Identity, Store, identity, open_filesystem

PARQUET, JSONL = "parquet", "jsonl"
# How a file's name ends -> its format. Compression of jsonl is told by fsspec from the name's last ending.
ENDINGS = {".parquet": PARQUET, ".pq": PARQUET, ".parq": PARQUET, ".jsonl": JSONL, ".ndjson": JSONL}
PACKED = (".gz", ".zst", ".bz2", ".xz")
_MAGIC = "*?["


@dataclass(frozen=True)
class InputFile:
    """One file to embed: its address, format and identity."""

    address: str
    kind: str
    identity: Identity


@dataclass(frozen=True)
class Unit:
    """One piece of work and its part: ``groups`` are the first and past-the-last row group, None for all.

    ``first_row`` is the place of its first row in the file; ``rows`` is None where only reading tells.
    """

    file: InputFile
    name: str
    groups: tuple[int, int] | None = None
    first_row: int = 0
    rows: int | None = None
    size: int = 0


def find_files(sources: Sequence[str], target: Store, options: dict[str, Any]) -> list[InputFile]:
    """All files that the sources name: files, globs, and folders searched to any depth.

    Names that begin with ``_`` or ``.`` are left out of folders, and what lies in the target of globs too.

    Raises
    ------
    JobError
        A source names no file, or one of no known format.
    """
    found: dict[str, InputFile] = {}
    for source in sources:
        fs = open_filesystem(source, options)
        within = f"{target.root}/" if type(fs) is type(target.fs) else None
        files = [e for e in _entries(fs, source) if within is None or not e["name"].startswith(within)]
        if not files:
            kinds = ", ".join(ENDINGS)
            raise JobError(f"{source!r} names no input: no file of type {kinds} is there. Check the address")
        for entry in files:
            address = fs.unstrip_protocol(entry["name"]) if "://" in source else entry["name"]
            found[address] = InputFile(address, file_kind(address), identity(entry))
    return [found[address] for address in sorted(found)]


def _entries(fs: Any, source: str) -> list[dict[str, Any]]:
    path = str(fs._strip_protocol(source))
    fs.invalidate_cache()
    if any(sign in path for sign in _MAGIC) and not fs.exists(path):
        entries = fs.glob(path, detail=True).values()
        return [entry for entry in entries if entry["type"] == "file"]
    if fs.isdir(path):
        entries = fs.find(path, detail=True).values()
        return [e for e in entries if _kind(e["name"]) and not _hidden(e["name"], path)]
    return [fs.info(path)] if fs.exists(path) else []


def _hidden(name: str, folder: str) -> bool:
    inside = name[len(folder) :].strip("/").split("/")
    return any(piece.startswith(("_", ".")) for piece in inside)


def _kind(name: str) -> str | None:
    bare = name.lower()
    for ending in PACKED:
        bare = bare.removesuffix(ending)
    kind = next((kind for ending, kind in ENDINGS.items() if bare.endswith(ending)), None)
    return None if kind == PARQUET and bare != name.lower() else kind


def file_kind(address: str) -> str:
    """A file's format, by its name."""
    kind = _kind(address)
    if kind is None:
        raise JobError(f"{address}: of no known type; inputs end in {', '.join(ENDINGS)}")
    return kind


def open_input(file: InputFile, options: dict[str, Any]) -> Any:
    """Open a file for reading, decompressed."""
    fs = open_filesystem(file.address, options)
    path = fs._strip_protocol(file.address)
    return fs.open(path, "rb", compression="infer" if file.kind == JSONL else None)


def check_unchanged(file: InputFile, options: dict[str, Any]) -> None:
    """Raise where a file is not the one that was planned with.

    Raises
    ------
    JobError
        Its size, or its etag or mtime, is another.
    """
    fs = open_filesystem(file.address, options)
    path = str(fs._strip_protocol(file.address))
    fs.invalidate_cache(path.rpartition("/")[0])
    try:
        now = identity(fs.info(path))
    except FileNotFoundError as error:
        raise JobError(f"{file.address} is gone since the job was planned; {_AGAIN}") from error
    except OSError as error:
        raise JobError(f"{file.address} cannot be read: {error}") from error
    # A listing that knows no times (plain HTTP) leaves nothing to compare.
    if file.identity.version and now != file.identity:
        raise JobError(f"{file.address} has changed since the job was planned; {_AGAIN}")


_AGAIN = "when it is at rest run the same command again, with --update (update=True) if it asks for it"


def plan_units(files: Iterable[InputFile], rows_per_part: int, options: dict[str, Any]) -> list[Unit]:
    """The files' units, in order. A file whose footer cannot be read is one unit, which will fail alone."""
    with ThreadPoolExecutor(16) as threads:
        planned = threads.map(lambda file: _units_of(file, rows_per_part, options), files)
        return [unit for units in planned for unit in units]


def _units_of(file: InputFile, rows_per_part: int, options: dict[str, Any]) -> list[Unit]:
    whole = Unit(file, _part_name(file), size=file.identity.size)
    if file.kind != PARQUET:
        return [whole]
    try:
        with open_input(file, options) as handle:
            footer = pq.read_metadata(handle)
    except (OSError, pa.ArrowException):
        return [whole]
    counts = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    spans = _spans(counts, rows_per_part)
    if len(spans) <= 1:
        return [Unit(file, whole.name, rows=footer.num_rows, size=whole.size)]
    return [
        Unit(file, _part_name(file, a), (a, b), sum(counts[:a]), sum(counts[a:b]),
             sum(footer.row_group(i).total_byte_size for i in range(a, b)))
        for a, b in spans
    ]  # fmt: skip


def _spans(counts: Sequence[int], most: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = 0
    for i in range(len(counts)):
        if i > start and sum(counts[start : i + 1]) > most:
            spans.append((start, i))
            start = i
    return [*spans, (start, len(counts))] if counts else []


def _part_name(file: InputFile, group: int | None = None) -> str:
    """A readable, unique, stable name: the file's own, a hash of its address, its first row group."""
    base = file.address.rsplit("/", 1)[-1]
    stem = re.sub(r"[^\w.-]+", "_", base.split(".")[0]).lstrip("_.")
    short = stem.encode()[:80].decode(errors="ignore") or "part"  # names may have 255 bytes
    # A name that is no UTF-8 has lone surrogates.
    digest = hashlib.sha256(file.address.encode(errors="surrogateescape")).hexdigest()[:16]
    suffix = "" if group is None else f"-{group:06d}"
    return f"{short}-{digest}{suffix}.parquet"
