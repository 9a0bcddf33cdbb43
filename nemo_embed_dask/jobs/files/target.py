"""The target: the folder that a job writes to, at any fsspec address."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...errors import TargetError
from .errors import Action, explain_errors, is_missing
from .file_identity import FileIdentity, identity_from_info
from .filesystem import open_filesystem
from .locking import hold_lock
from .masking import mask_secrets
from .reachability import check_reachable
from .streams import ReadStream, WriteStream
from .unfinished_uploads import abort_unfinished_uploads

BOOKKEEPING = "_nemo_embed"
UNFINISHED = f"{BOOKKEEPING}/unfinished"


@dataclass(frozen=True)
class Target:
    """A folder to write to. An error of its file system becomes a `TargetError` that names the file.

    Parameters
    ----------
    address : str
        For example ``out``, ``/data/out``, ``s3://bucket/out``. A local path is made absolute, so that workers
        in another current folder find it.
    options : dict
        Options of the file system (``storage_options``).

    Raises
    ------
    TargetError
        The address is empty or chained (``simplecache::s3://...``), or is relative to a current folder that was
        removed.
    """

    address: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.address:
            raise TargetError("the target's address is empty; pass a folder, or . for the current folder")
        if "::" in self.address:
            raise TargetError(
                f"{mask_secrets(self.address)} is a chained address (with ::), where files cannot be written "
                "atomically; give the folder's own address, such as s3://bucket/out"
            )
        if fsspec.core.split_protocol(self.address)[0] in {None, *LocalFileSystem.protocol}:
            with self._explain("", "open"):
                object.__setattr__(self, "address", LocalFileSystem._strip_protocol(self.address))

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system."""
        return open_filesystem(self.address, self.options, TargetError)

    @property
    def root(self) -> str:
        """The address without its protocol, absolute."""
        return str(self.fs._strip_protocol(self.address)).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local file system, where renames are atomic and locks work."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return the full path of a file in the folder."""
        return f"{self.root}/{name}"

    def check_reachable(self) -> None:
        """Raise at once if the target is in an object store that does not answer."""
        check_reachable(self.fs, self.address, TargetError)

    def _explain(self, name: str, action: Action) -> AbstractContextManager[None]:
        return explain_errors(f"{self.address}/{name}".rstrip("/"), action, TargetError)

    # ---- reading --------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None if there is no such file."""
        with self._explain(name, "read"):
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
            There is no such file.
        """
        try:
            with self._explain(name, "read"):
                handle = self.fs.open(self.path(name), "rb")
        except TargetError as error:
            if error.__cause__ and is_missing(error.__cause__):
                raise FileNotFoundError(self.path(name)) from error
            raise
        with ReadStream(handle, partial(self._explain, name, "read")) as source:
            yield cast("BinaryIO", source)

    def list_files(self, folder: str = "") -> dict[str, FileIdentity]:
        """Return the names and identities of the files directly in the target or in one folder of it."""
        path = self.path(folder).rstrip("/")
        with self._explain(folder, "list"):
            self.fs.invalidate_cache(path)
            try:
                entries = self.fs.ls(path, detail=True)
            except Exception as error:
                if is_missing(error):
                    return {}
                raise
        infos = [_follow_local_link(info) for info in entries]
        return {
            info["name"].rpartition("/")[2]: identity_from_info(info)
            for info in infos
            if info["type"] == "file"
        }

    def identity_of(self, name: str) -> FileIdentity:
        """Return the identity of one file."""
        with self._explain(name, "read"):
            path = self.path(name)
            self.fs.invalidate_cache(path.rpartition("/")[0])  # adlfs believes a listing from before a write
            return identity_from_info(_follow_local_link(self.fs.info(path)))

    # ---- writing --------------------------------------------------------------------------------------------

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with self._explain(name, "remove"):
            try:
                self.fs.rm_file(self.path(name))
            except Exception as error:
                if not is_missing(error):
                    raise

    def write(self, name: str, data: bytes) -> None:
        """Write a small file atomically."""
        with self.atomic_file(name) as sink:
            sink.write(data)

    @contextmanager
    def atomic_file(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to write. It appears, complete, when the block ends; after an error it never does.

        Raises
        ------
        TargetError
            It cannot be written. Errors of the block itself stay as they are.
        """
        with self._renamed_file(name) if self.is_local else self._uploaded_file(name) as sink:
            yield sink

    @contextmanager
    def _renamed_file(self, name: str) -> Iterator[BinaryIO]:
        """Write to a temporary file, and rename it when the block ends."""
        temporary = Path(self.path(f"{UNFINISHED}/{uuid.uuid4().hex}"))
        path = Path(self.path(name))
        explain = partial(self._explain, name, "write")
        try:
            with explain():
                for folder in (temporary.parent, path.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                raw = WriteStream(temporary, explain)
            with BufferedWriter(raw) as sink:
                yield sink
                sink.flush()
                with explain():
                    os.fsync(sink.fileno())
            with explain():
                temporary.replace(path)
        finally:
            with suppress(OSError):  # do not hide the first error; the next run removes the file
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _uploaded_file(self, name: str) -> Iterator[BinaryIO]:
        """Collect what is written, and upload it in one request when the block ends."""
        sink = BytesIO()
        yield sink
        data = sink.getvalue()
        with self._explain(name, "write"):
            self.fs.pipe_file(self.path(name), data)
            size = self.identity_of(name).size
        if size != len(data):
            raise TargetError(
                f"{mask_secrets(self.address)}/{name} is incomplete: {len(data)} bytes were sent and {size} "
                "arrived; check the network, and whether another program writes there",
                temporary=True,
            )

    def abort_unfinished_uploads(self) -> None:
        """Remove what killed runs have uploaded in part; call it when all files are whole."""
        abort_unfinished_uploads(self.fs, self.root)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for one run, if the file system has locks; the kernel releases it if the run dies.

        Object stores and some network file systems have no locks. There, two runs of the same command write
        the same parts under the same names.
        """
        if not self.is_local or os.name == "nt":
            yield
            return
        path = Path(self.path(f"{BOOKKEEPING}/lock"))
        with hold_lock(path, self.address, partial(self._explain, "", "write")):
            yield


def _follow_local_link(info: dict[str, Any]) -> dict[str, Any]:
    """Replace fsspec's description of a local link by that of the linked file; keep that of a broken link."""
    if not info.get("islink"):
        return info
    try:
        status = Path(info["name"]).stat()
    except OSError:
        return info
    file_type = "file" if stat.S_ISREG(status.st_mode) else "other"
    return {**info, "type": file_type, "size": status.st_size, "mtime": status.st_mtime}
