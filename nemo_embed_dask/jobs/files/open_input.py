"""Open inputs for reading, and check that they have not changed since the job was planned."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ...errors import InputError
from .decompression import open_decompressed
from .errors import explain_errors
from .file_identity import FileIdentity, identity_from_info, identity_from_stat
from .file_names import PARQUET, compression_ending
from .filesystem import open_filesystem
from .inputs import InputFile
from .streams import ReadStream

_BUFFER_BYTES = 1 << 20
_RUN_AGAIN = (
    "when it no longer changes, run the same command again, with --update (update=True) if it asks for it"
)


def open_input(file: InputFile, options: dict[str, Any]) -> Any:
    """Open a file for reading, decompressed.

    Raises
    ------
    InputError
        It cannot be opened, or its file system fails while it is read. Errors of parsers and decompressors are
        not changed.
    """
    _check_readable(file)
    ending = compression_ending(file.address)
    if ending and file.identity.version and not file.identity.size:
        raise InputError(
            f"{file.address} cannot be read (it is empty, which no {ending} file is); replace the file"
        )
    explain = partial(explain_errors, file.address, "read", InputError)
    fs = open_filesystem(file.address, options)
    with explain():
        source = ReadStream(fs.open(fs._strip_protocol(file.address), "rb"), explain, fs)
    if file.format == PARQUET:
        return source
    return io.BufferedReader(open_decompressed(source, ending) if ending else source, _BUFFER_BYTES)


def check_unchanged(file: InputFile, options: dict[str, Any]) -> None:
    """Raise if a file is not the one that the job was planned with.

    Raises
    ------
    InputError
        The file is gone, or its size, or its hash or time of last change, differs.
    """
    _check_readable(file)
    with explain_errors(file.address, "read", InputError):
        identity = current_identity(file.address, options)
    if identity is None:
        raise InputError(f"{file.address} was removed after the job was planned; {_RUN_AGAIN}")
    # A plain HTTP listing has no times, so that there is nothing to compare.
    if file.identity.version and identity != file.identity:
        raise InputError(f"{file.address} has changed since the job was planned; {_RUN_AGAIN}")


def _check_readable(file: InputFile) -> None:
    if file.problem:
        raise InputError(f"{file.address}: {file.problem}")


def current_identity(address: str, options: dict[str, Any]) -> FileIdentity | None:
    """Return an input's identity as its file system reports it now; None if the file is gone."""
    fs = open_filesystem(address, options, InputError)
    path = str(fs._strip_protocol(address))
    with suppress(FileNotFoundError):
        if isinstance(fs, LocalFileSystem):
            return identity_from_stat(Path(path).stat())
        fs.invalidate_cache(path.rpartition("/")[0])
        return identity_from_info(fs.info(path))
    return None
