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
from .decompression import open_decompressed
from .errors import explain_error, is_temporary
from .file_identity import FileIdentity, identity_from_info, identity_from_stat
from .file_names import PARQUET, compression_ending
from .filesystem import open_filesystem
from .inputs import InputFile
from .streams import ReadStream

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
    ending = compression_ending(file.address)
    if ending and file.identity.version and not file.identity.size:
        raise InputError(f"{file.address} cannot be read (it is empty, unlike any {ending}); replace the file")
    explained = partial(_explained, file.address)
    fs = open_filesystem(file.address, options)
    with explained():
        source = ReadStream(fs.open(fs._strip_protocol(file.address), "rb"), explained, fs)
    if file.format == PARQUET:
        return source
    return io.BufferedReader(open_decompressed(source, ending) if ending else source, _BUFFER_BYTES)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # client libraries raise errors of their own
        raise InputError(explain_error(error, address, "read"), is_temporary(error)) from error


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
        now = current_identity(file.address, options)
    if now is None:
        raise InputError(f"{file.address} is gone since the job was planned; {_AGAIN}")
    # A listing that knows no times (plain HTTP) leaves nothing to compare.
    if file.identity.version and now != file.identity:
        raise InputError(f"{file.address} has changed since the job was planned; {_AGAIN}")


_AGAIN = "when it is at rest run the same command again, with --update (update=True) if it asks for it"


def current_identity(address: str, options: dict[str, Any]) -> FileIdentity | None:
    """An input's identity as its file system has it now; None if it is gone."""
    fs = open_filesystem(address, options)
    path = str(fs._strip_protocol(address))
    with suppress(FileNotFoundError):
        if isinstance(fs, LocalFileSystem):
            return identity_from_stat(Path(path).stat())
        fs.invalidate_cache(path.rpartition("/")[0])
        return identity_from_info(fs.info(path))
    return None
