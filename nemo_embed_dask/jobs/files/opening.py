"""Inputs opened for reading, decompressed, and whether they are still those that were planned with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ...errors import InputError
from .errors import explain, is_temporary
from .identity import Identity, identity, stat_identity
from .inputs import PARQUET, InputFile, packed_ending
from .store import open_filesystem
from .streams import Source
from .unpacking import unpacked

_BUFFER_BYTES = 1 << 20


def open_input(file: InputFile, options: dict[str, Any]) -> Any:
    """Open a file for reading, decompressed.

    Raises
    ------
    InputError
        It cannot be opened; later, whenever its file system fails. What parsers and decompressors raise is
        left as it is.
    """
    if file.problem:
        raise InputError(f"{file.address}: {file.problem}")
    ending = packed_ending(file.address)
    if ending and file.identity.version and not file.identity.size:
        raise InputError(f"{file.address} cannot be read (it is empty, unlike any {ending}); replace the file")
    explained = partial(_explained, file.address)
    fs = open_filesystem(file.address, options)
    with explained():
        source = Source(fs.open(fs._strip_protocol(file.address), "rb"), explained, fs)
    if file.kind == PARQUET:
        return source
    return io.BufferedReader(unpacked(source, ending) if ending else source, _BUFFER_BYTES)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # client libraries raise errors of their own
        raise InputError(explain(error, address, "read"), is_temporary(error)) from error


def check_unchanged(file: InputFile, options: dict[str, Any]) -> None:
    """Raise where a file is not the one that was planned with.

    Raises
    ------
    InputError
        Its size, or its etag or mtime, is another.
    """
    if file.problem:
        raise InputError(f"{file.address}: {file.problem}")
    with _explained(file.address):
        now = identity_now(file.address, options)
    if now is None:
        raise InputError(f"{file.address} is gone since the job was planned; {_AGAIN}")
    # A listing that knows no times (plain HTTP) leaves nothing to compare.
    if file.identity.version and now != file.identity:
        raise InputError(f"{file.address} has changed since the job was planned; {_AGAIN}")


_AGAIN = "when it is at rest run the same command again, with --update (update=True) if it asks for it"


def identity_now(address: str, options: dict[str, Any]) -> Identity | None:
    """An input's identity as its file system has it now; None if it is gone."""
    fs = open_filesystem(address, options)
    path = str(fs._strip_protocol(address))
    with suppress(FileNotFoundError):
        if isinstance(fs, LocalFileSystem):
            return stat_identity(Path(path).stat())
        fs.invalidate_cache(path.rpartition("/")[0])
        return identity(fs.info(path))
    return None
