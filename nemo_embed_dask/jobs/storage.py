"""Files of any fsspec address: list, identify, read, and write whole or not at all. Knows no job."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ..errors import JobError

# Conditions that no retry mends; what to do about each.
_HOPELESS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "a file may not grow that large here (ulimit -f): raise the limit or lower rows_per_part",
    errno.EROFS: "the target is read-only: mount it writable, or choose another target",
    errno.EACCES: "writing to the target is not permitted: change its permissions, or choose another target",
    errno.EPERM: "writing to the target is not permitted: change its permissions, or choose another target",
}
# How a file system says that it has no locks (Lustre mounted without them).
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
BOOKKEEPING = "_nemo_embed"
UNFINISHED = f"{BOOKKEEPING}/unfinished"


@dataclass(frozen=True)
class Identity:
    """What tells two versions of a file apart without reading it: its size, and etag or mtime."""

    size: int
    version: str


@dataclass(frozen=True)
class Store:
    """A folder at an fsspec address.

    Parameters
    ----------
    address : str
        Such as ``out``, ``/data/out``, ``s3://bucket/out``.
    options : dict
        For the file system (``storage_options``).
    """

    address: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system."""
        return open_filesystem(self.address, self.options)

    @property
    def root(self) -> str:
        """The address without its protocol, absolute."""
        return str(self.fs._strip_protocol(self.address)).rstrip("/")

    @property
    def local(self) -> bool:
        """Whether files are this machine's, so that renames are atomic and locks work."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a file in the folder."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None if there is none."""
        try:
            return cast("bytes", self.fs.cat_file(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def listing(self, folder: str = "") -> dict[str, Identity]:
        """The folder's own files: name -> identity."""
        path = self.path(folder).rstrip("/")
        self.fs.invalidate_cache(path)
        try:
            entries = self.fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {e["name"].rsplit("/", 1)[-1]: identity(e) for e in entries if e["type"] == "file"}

    def identify(self, name: str) -> Identity:
        """One file's identity."""
        self.fs.invalidate_cache(self.root)
        return identity(self.fs.info(self.path(name)))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self.fs.rm_file(self.path(name))
        except FileNotFoundError:
            return

    def write(self, name: str, data: bytes) -> None:
        """Write a small file whole."""
        with self.whole_file(name) as sink:
            sink.write(data)

    @contextmanager
    def whole_file(self, name: str) -> Iterator[BinaryIO]:
        """A file to write into, which becomes visible at the end of the block, whole, or never.

        Raises
        ------
        JobError
            The disk is full, the target read-only, or the like: what a retry does not mend.
        """
        try:
            with self._renamed(name) if self.local else self._put(name) as sink:
                yield sink
        except OSError as error:
            if error.errno in _HOPELESS:
                raise hopeless(self.address, error) from error
            raise

    @contextmanager
    def _renamed(self, name: str) -> Iterator[BinaryIO]:
        temporary = Path(self.path(f"{UNFINISHED}/{uuid.uuid4().hex}"))
        final = Path(self.path(name))
        for folder in (temporary.parent, final.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as sink:
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _put(self, name: str) -> Iterator[BinaryIO]:
        from io import BytesIO

        sink = BytesIO()
        yield sink
        data = sink.getvalue()
        self.fs.pipe_file(self.path(name), data)
        found = self.identify(name).size
        if found != len(data):
            raise OSError(f"{name}: {len(data)} bytes were sent and {found} arrived")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run, where the file system can; the kernel lets go if the run dies.

        On object stores there is no lock, nor on some network file systems: two runs of one command end with
        the same parts under the same names.
        """
        if not self.local or os.name == "nt":
            yield
            return
        import fcntl

        path = Path(self.path(f"{BOOKKEEPING}/lock"))
        with _opened(path, self.address) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobError(
                    f"another run ({path.read_text() or 'just starting'}) is at work on {self.address}; "
                    "wait for it or stop it"
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            path.write_text(f"process {os.getpid()} on {os.uname().nodename}")
            yield


@contextmanager
def _opened(path: Path, address: str) -> Iterator[Any]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise hopeless(address, error) from error
    with handle:
        yield handle


def hopeless(address: str, error: OSError) -> JobError:
    """An error of the target, with what to do about it."""
    advice = _HOPELESS.get(error.errno or 0, "choose another target")
    return JobError(f"cannot write to {address} ({error.strerror or error}); {advice}")


def open_filesystem(address: str, options: dict[str, Any]) -> Any:
    """The fsspec file system of an address.

    Raises
    ------
    JobError
        The protocol is unknown, or its package is missing.
    """
    try:
        return fsspec.core.url_to_fs(address, **options)[0]
    except (ImportError, ValueError) as error:
        raise JobError(f"cannot open {address!r}: {error}") from error


def identity(info: dict[str, Any]) -> Identity:
    """A file's identity from what its file system says of it."""
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
    version = next((info[name] for name in names if info.get(name)), "")
    return Identity(int(info.get("size") or 0), str(version).strip('"'))


def explain(error: BaseException, address: str, *, doing: str) -> str:
    said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return f"{address} cannot be {doing}: {said}"


def is_temporary(error: BaseException) -> bool:
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
