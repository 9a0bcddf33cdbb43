"""Files of any fsspec address: list, identify, read, and write whole or not at all. Knows no job."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...errors import EmbedError, TargetError
from .errors import Doing, explain_error, is_missing, is_temporary
from .file_identity import FileIdentity, identity_from_info
from .filesystem import open_filesystem
from .locking import hold_lock
from .masking import mask_secrets
from .streams import ReadStream, WriteStream

BOOKKEEPING = "_nemo_embed"
UNFINISHED = f"{BOOKKEEPING}/unfinished"


@dataclass(frozen=True)
class Target:
    """A folder at an fsspec address. What its file system raises becomes a `TargetError` that names the file.

    Parameters
    ----------
    address : str
        Such as ``out``, ``/data/out``, ``s3://bucket/out``. A local one is made absolute: on a cluster too it
        means the client's folder.
    options : dict
        For the file system (``storage_options``).

    Raises
    ------
    TargetError
        The address is empty or chained (``simplecache::s3://...``), or relative to a folder that is gone.
    """

    address: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.address:
            raise TargetError("the target's address is empty; name a folder, or . for the current one")
        if "::" in self.address:
            raise TargetError(
                f"{mask_secrets(self.address)} is a chained address, in which nothing can be written whole; "
                "give the folder's own address, such as s3://bucket/out"
            )
        if fsspec.core.split_protocol(self.address)[0] in {None, *LocalFileSystem.protocol}:
            with self._explained("", "open"):
                object.__setattr__(self, "address", LocalFileSystem._strip_protocol(self.address))

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system."""
        return open_filesystem(self.address, self.options, TargetError)

    @contextmanager
    def _explained(self, name: str, doing: Doing) -> Iterator[None]:
        try:
            yield
        except EmbedError:
            raise
        except Exception as error:  # each client library has errors of its own
            address = f"{self.address}/{name}".rstrip("/")
            raise TargetError(explain_error(error, address, doing), temporary=is_temporary(error)) from error

    @property
    def root(self) -> str:
        """The address without its protocol, absolute."""
        return str(self.fs._strip_protocol(self.address)).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether files are this machine's, so that renames are atomic and locks work."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a file in the folder."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None if there is none."""
        with self._explained(name, "read"):
            try:
                return cast("bytes", self.fs.cat_file(self.path(name)))
            except Exception as error:
                if is_missing(error):
                    return None
                raise

    @contextmanager
    def open_file(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read parts of it. Errors of the block itself stay as they are.

        Raises
        ------
        FileNotFoundError
            It is not there.
        """
        try:
            with self._explained(name, "read"):
                handle = self.fs.open(self.path(name), "rb")
        except TargetError as error:
            if error.__cause__ and is_missing(error.__cause__):
                raise FileNotFoundError(self.path(name)) from error
            raise
        with ReadStream(handle, partial(self._explained, name, "read")) as source:
            yield cast("BinaryIO", source)

    def list_files(self, folder: str = "") -> dict[str, FileIdentity]:
        """The folder's own files: name -> identity."""
        path = self.path(folder).rstrip("/")
        with self._explained(folder, "list"):
            self.fs.invalidate_cache(path)
            try:
                entries = self.fs.ls(path, detail=True)
            except Exception as error:
                if is_missing(error):
                    return {}
                raise
        seen = [_followed(entry) for entry in entries]
        return {e["name"].rsplit("/", 1)[-1]: identity_from_info(e) for e in seen if e["type"] == "file"}

    def identity_of(self, name: str) -> FileIdentity:
        """One file's identity."""
        with self._explained(name, "read"):
            self.fs.invalidate_cache(self.root)
            return identity_from_info(_followed(self.fs.info(self.path(name))))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._explained(name, "remove"):
            try:
                self.fs.rm_file(self.path(name))
            except Exception as error:
                if not is_missing(error):
                    raise

    def write(self, name: str, data: bytes) -> None:
        """Write a small file whole."""
        with self.atomic_file(name) as sink:
            sink.write(data)

    @contextmanager
    def atomic_file(self, name: str) -> Iterator[BinaryIO]:
        """A file to write into, which becomes visible at the end of the block, whole, or never.

        Raises
        ------
        TargetError
            It cannot be written. Errors of the block itself stay as they are.
        """
        with self._renamed(name) if self.is_local else self._put(name) as sink:
            yield sink

    @contextmanager
    def _renamed(self, name: str) -> Iterator[BinaryIO]:
        temporary = Path(self.path(f"{UNFINISHED}/{uuid.uuid4().hex}"))
        final = Path(self.path(name))
        explained = partial(self._explained, name, "write")
        try:
            with explained():
                for folder in (temporary.parent, final.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                raw = WriteStream(temporary, explained)
            with BufferedWriter(raw) as sink:
                yield sink
                sink.flush()
                with explained():
                    os.fsync(sink.fileno())
            with explained():
                temporary.replace(final)
        finally:
            with suppress(OSError):  # what went wrong before is what matters; the next run clears up
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _put(self, name: str) -> Iterator[BinaryIO]:
        sink = BytesIO()
        yield sink
        data = sink.getvalue()
        with self._explained(name, "write"):
            self.fs.pipe_file(self.path(name), data)
            found = self.identity_of(name).size
        if found != len(data):
            raise TargetError(
                f"{mask_secrets(self.address)}/{name} is not whole: {len(data)} bytes were sent and {found} "
                "arrived; check the network and what else writes there", temporary=True,
            )  # fmt: skip

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run, where the file system can; the kernel lets go if the run dies.

        On object stores there is no lock, nor on some network file systems: two runs of one command end with
        the same parts under the same names.
        """
        if not self.is_local or os.name == "nt":
            yield
            return
        path = Path(self.path(f"{BOOKKEEPING}/lock"))
        with hold_lock(path, self.address, partial(self._explained, "", "write")):
            yield


def _followed(info: dict[str, Any]) -> dict[str, Any]:
    """Replace fsspec's description of a local link by that of its target; keep that of a dead link."""
    if info.get("islink"):
        with suppress(OSError):
            seen = Path(info["name"]).stat()
            kind = "file" if stat.S_ISREG(seen.st_mode) else "other"
            return {**info, "type": kind, "size": seen.st_size, "mtime": seen.st_mtime}
    return info
