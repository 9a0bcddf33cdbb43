"""Sources to units of work: which files, and which row groups of each. Opens no file.

A unit is a file, or as many consecutive row groups of a Parquet file as hold ``rows_per_part`` rows; its
name follows from the file's address and those row groups alone, so that it is the same on every run.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ...errors import JobError
from .addresses import plain_source, real_path, remote_address, same_store
from .entries import FoundFile
from .file_identity import FileIdentity
from .file_names import FORMAT_ENDINGS, PARQUET, file_format, without_query
from .filesystem import open_filesystem
from .masking import mask_secrets
from .search import list_source
from .target import BOOKKEEPING, Target


@dataclass(frozen=True)
class InputFile:
    """One file to embed: its address, format and identity.

    ``partition``: the columns that the names of its folders hold, see `hive`; ``problem``: why it cannot be
    read, where the listing tells.
    """

    address: str
    format: str
    identity: FileIdentity
    partition: tuple[tuple[str, str | int | None], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Unit:
    """One piece of work and its part: ``row_groups`` are the first and past-the-last row group, None for all.

    ``first_row`` is the place of its first row in the file; ``rows`` is None where only reading tells.
    """

    file: InputFile
    name: str
    row_groups: tuple[int, int] | None = None
    first_row: int = 0
    rows: int | None = None
    size: int = 0


def find_inputs(
    sources: Sequence[str], target: Target, options: dict[str, Any]
) -> tuple[list[InputFile], list[str]]:
    """Find all files that the sources name: files, globs, and folders searched to any depth.

    Names that begin with ``_`` or ``.`` are left out of folders; the target's own files are left out.

    Returns
    -------
    files : list of InputFile
    notes : list of str
        What is to be told of what was left out.

    Raises
    ------
    JobError
        A source names no file or one of no known format, or is the target itself.
    """
    found: dict[str, InputFile] = {}
    left_out: list[str] = []
    again: dict[str, str] = {}
    for source in map(plain_source, sources):
        fs = open_filesystem(source, options)
        named = list_source(fs, source, again)
        real = real_path(fs)
        within = real(target.root) if same_store(fs, target.fs) else None
        if within is not None and real(str(fs._strip_protocol(source)).rstrip("/")) == within:
            raise JobError(
                f"{mask_secrets(source)!r} is source and target at once; choose another folder for the target"
            )
        whole = [file for file in named if _counts(file)]
        left_out += [file.path for file in named if not _counts(file)]
        files = [f for f in whole if within is None or not _is_output(real(f.path), within)]
        if not files:
            raise JobError(_nothing(source, inside=bool(whole)))
        for file in files:
            address = file.path if isinstance(fs, LocalFileSystem) else remote_address(fs, source, file.path)
            new = InputFile(
                address, _format(address, file.problem), file.identity, file.partition, file.problem
            )
            # Overlapping sources see different folders above a file: keep the file with the most of them.
            found[address] = max(found.get(address, new), new, key=lambda each: len(each.partition))
    return [found[address] for address in sorted(found)], [*_left_out(left_out), *_searched_once(again)]


def _format(address: str, problem: str) -> str:
    found = PARQUET if problem else file_format(without_query(address))
    if found is None:
        raise JobError(f"{address}: of no known type; inputs end in {', '.join(FORMAT_ENDINGS)}")
    return found


def _left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} files of no known type are left out, such as {names[0]}"]


def _searched_once(again: dict[str, str]) -> list[str]:
    if not again:
        return []
    link, first = next(iter(again.items()))
    return [f"{len(again)} linked folders were searched under another name, such as {link} as {first}"]


def _counts(file: FoundFile) -> bool:
    """Whether a file is an input: of a folder those of a known format, and links that may be lost folders."""
    lost = bool(file.problem) and not file.identity.version
    return file_format(file.path) is not None or not file.in_folder or lost


def _is_output(path: str, target: str) -> bool:
    """Whether a job writes there: parts lie in the target itself, everything else in one folder of it."""
    return path.rpartition("/")[0] == target or path.startswith(f"{target}/{BOOKKEEPING}/")


def _nothing(source: str, *, inside: bool) -> str:
    named = repr(mask_secrets(source))
    if inside:
        return f"{named} names only files in the target, which are its own output; name other sources"
    kinds = ", ".join(FORMAT_ENDINGS)
    return f"{named} names no input: no file of type {kinds} is there. Check the address"


def split_into_units(
    file: InputFile, counts: Sequence[int] | None, sizes: Sequence[int], most: int
) -> list[Unit]:
    """A file's units, in order, given its row groups' rows and bytes; None where they are not known."""
    whole = Unit(file, _part_name(file), size=file.identity.size)
    if counts is None:
        return [whole]
    spans = _spans(counts, most)
    first, size = ([0, *accumulate(values)] for values in (counts, sizes))
    if len(spans) <= 1:
        return [Unit(file, whole.name, rows=first[-1], size=whole.size)]
    return [
        Unit(file, _part_name(file, a), (a, b), first[a], first[b] - first[a], size[b] - size[a])
        for a, b in spans
    ]


def _spans(counts: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Consecutive row groups of at most ``most`` rows together; a larger one is a span alone."""
    ends, spans, start = [0, *accumulate(counts)], [], 0
    while start < len(counts):
        stop = max(start + 1, bisect_right(ends, ends[start] + most) - 1)
        spans.append((start, stop))
        start = stop
    return spans


def _part_name(file: InputFile, group: int | None = None) -> str:
    """A readable, unique, stable name: the file's own, a hash of its address, its first row group."""
    base = file.address.rsplit("/", 1)[-1]
    stem = re.sub(r"[^\w.-]+", "_", base.split(".")[0]).lstrip("_.")
    short = stem.encode()[:80].decode(errors="ignore") or "part"  # names may have 255 bytes
    # A name that is no UTF-8 has lone surrogates.
    digest = hashlib.sha256(file.address.encode(errors="surrogateescape")).hexdigest()[:16]
    suffix = "" if group is None else f"-{group:06d}"
    return f"{short}-{digest}{suffix}.parquet"
