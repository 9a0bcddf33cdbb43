"""Find the inputs of a job in its sources, and split them into units. Opens no file.

A unit is an input, or as many consecutive row groups of a Parquet file as fit in ``rows_per_part`` rows. Its
name depends only on the input's address and these row groups, so it is the same on every run.
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
from .addresses import normalize_source, path_resolver, remote_address, same_storage
from .entries import FoundFile
from .file_identity import FileIdentity
from .file_names import FORMAT_ENDINGS, PARQUET, file_format, without_query
from .filesystem import open_filesystem
from .masking import mask_secrets
from .search import list_source
from .target import BOOKKEEPING, Target

_CONVERSION = "convert other types first, such as CSV with dd.read_csv(...).to_parquet(...)"


@dataclass(frozen=True)
class InputFile:
    """One file to embed.

    Attributes
    ----------
    address : str
    format : str
    identity : FileIdentity
    partition : tuple of (str, str or int or None)
        The columns in the names of its folders.
    problem : str
        Why it cannot be read, if listing it has shown that; else empty.
    """

    address: str
    format: str
    identity: FileIdentity
    partition: tuple[tuple[str, str | int | None], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Unit:
    """The work for one part.

    Attributes
    ----------
    file : InputFile
    name : str
        The name of the part.
    row_groups : tuple of (int, int), optional
        The first row group and the one after the last; None for all.
    first_row : int
        The position of the first row in the file.
    rows : int, optional
        None if the number is known only after reading.
    size : int
        Bytes in the input.
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
    """Find all files of the sources: files, globs, and folders searched to any depth.

    In folders, names that begin with ``_`` or ``.`` are left out, and so are the target's own files.

    Returns
    -------
    inputs : list of InputFile
        Sorted by address.
    notes : list of str
        What the user should know about files and folders that are left out.

    Raises
    ------
    JobError
        A source has no file, or is one with an unknown file type, or is the target itself.
    """
    inputs: dict[str, InputFile] = {}
    ignored: list[str] = []
    duplicate_folders: dict[str, str] = {}
    for source in map(normalize_source, sources):
        fs = open_filesystem(source, options)
        found = list_source(fs, source)
        duplicate_folders.update(found.duplicate_folders)
        candidates = []
        for file in found.files:
            if _is_input(file):
                candidates.append(file)
            else:
                ignored.append(file.path)
        for file in _without_outputs(candidates, fs, source, target):
            new = _input_file(fs, source, file)
            old = inputs.get(new.address)
            # Overlapping sources see different folders above a file: keep the file with the most columns.
            if old is None or len(new.partition) > len(old.partition):
                inputs[new.address] = new
    notes = [*_note_on_ignored(ignored), *_note_on_duplicates(duplicate_folders)]
    return [inputs[address] for address in sorted(inputs)], notes


def _is_input(file: FoundFile) -> bool:
    """Return whether to embed a file: in a folder only known formats, and links that may be folders."""
    may_be_folder = bool(file.problem) and not file.identity.version
    return file_format(file.path) is not None or not file.in_folder or may_be_folder


def _without_outputs(files: list[FoundFile], fs: Any, source: str, target: Target) -> list[FoundFile]:
    """Return a source's files without those that a job has written to the target.

    Raises
    ------
    JobError
        No file is left, or the source is the target.
    """
    remaining = files
    if same_storage(fs, target.fs):
        resolve = path_resolver(fs)
        root = resolve(target.root)
        if resolve(str(fs._strip_protocol(source)).rstrip("/")) == root:
            raise JobError(
                f"{mask_secrets(source)!r} is both source and target; choose another folder for the target"
            )
        remaining = [file for file in files if not _is_output(resolve(file.path), root)]
    if remaining:
        return remaining
    name = repr(mask_secrets(source))
    if files:
        raise JobError(f"{name} has only files that the job itself wrote to the target; pass other sources")
    endings = ", ".join(FORMAT_ENDINGS)
    raise JobError(
        f"{name} has no input: there is no file whose name ends in {endings}; check the address; {_CONVERSION}"
    )


def _is_output(path: str, target: str) -> bool:
    """Return whether a job writes there: parts to the target itself, everything else to one folder of it."""
    return path.rpartition("/")[0] == target or path.startswith(f"{target}/{BOOKKEEPING}/")


def _input_file(fs: Any, source: str, file: FoundFile) -> InputFile:
    address = file.path if isinstance(fs, LocalFileSystem) else remote_address(fs, source, file.path)
    found_format = PARQUET if file.problem else file_format(without_query(address))
    if found_format is None:
        endings = ", ".join(FORMAT_ENDINGS)
        raise JobError(
            f"{address} has an unknown file type; pass files whose names end in {endings}; {_CONVERSION}"
        )
    return InputFile(address, found_format, file.identity, file.partition, file.problem)


def _note_on_ignored(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    return [f"{len(paths)} files of unknown type are left out, such as {paths[0]}"]


def _note_on_duplicates(folders: dict[str, str]) -> list[str]:
    if not folders:
        return []
    path, searched = next(iter(folders.items()))
    return [f"{len(folders)} linked folders were searched under another path, such as {path} as {searched}"]


def split_into_units(
    file: InputFile, row_counts: Sequence[int] | None, sizes: Sequence[int], max_rows: int
) -> list[Unit]:
    """Split a file into units, in order.

    Parameters
    ----------
    file : InputFile
    row_counts, sizes : sequence of int
        Rows and bytes of each row group; ``row_counts`` is None if they are not known.
    max_rows : int
        Rows per part; a larger row group is one part.
    """
    whole = Unit(file, _part_name(file), size=file.identity.size)
    if row_counts is None:
        return [whole]
    spans = _spans(row_counts, max_rows)
    rows_before = [0, *accumulate(row_counts)]
    bytes_before = [0, *accumulate(sizes)]
    if len(spans) <= 1:
        return [Unit(file, whole.name, rows=rows_before[-1], size=whole.size)]
    return [
        Unit(
            file,
            _part_name(file, start),
            row_groups=(start, stop),
            first_row=rows_before[start],
            rows=rows_before[stop] - rows_before[start],
            size=bytes_before[stop] - bytes_before[start],
        )
        for start, stop in spans
    ]


def _spans(row_counts: Sequence[int], max_rows: int) -> list[tuple[int, int]]:
    """Return the first and past-the-last row group of each part.

    ``[60, 30, 20, 500, 10]`` with at most 100 rows gives ``[(0, 2), (2, 3), (3, 4), (4, 5)]``.
    """
    rows_before = [0, *accumulate(row_counts)]
    spans = []
    start = 0
    while start < len(row_counts):
        limit = rows_before[start] + max_rows
        stop = max(start + 1, bisect_right(rows_before, limit) - 1)
        spans.append((start, stop))
        start = stop
    return spans


def _part_name(file: InputFile, row_group: int | None = None) -> str:
    """Return a readable, unique, stable name: from the input's name, a hash of its address, a row group."""
    base = file.address.rpartition("/")[2]
    stem = re.sub(r"[^\w.-]+", "_", base.split(".")[0]).lstrip("_.")
    short = stem.encode()[:80].decode(errors="ignore") or "part"  # a name has at most 255 bytes
    # A name that is not UTF-8 has lone surrogates.
    digest = hashlib.sha256(file.address.encode(errors="surrogateescape")).hexdigest()[:16]
    suffix = "" if row_group is None else f"-{row_group:06d}"
    return f"{short}-{digest}{suffix}.parquet"
