"""Addresses of sources: which cannot be one, and one spelling for each file. Opens no file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ...errors import JobError
from .errors import explain_error
from .masking import make_printable, mask_secrets


def plain_source(source: str) -> str:
    """Spell a source so that one file has one address: a local one without ``.``, ``..`` and doubled slashes.

    Raises
    ------
    JobError
        It is empty, chained (``zip://...::...``), no possible name, or relative to a folder that is gone.
    """
    if not source:
        raise JobError("a source is empty; name a file, a glob or a folder, or . for the current folder")
    if "\0" in source:
        raise JobError(
            f"{make_printable(mask_secrets(source))} has a NUL character in it, as no name can; correct it"
        )
    if "::" in source and "://" in source:
        raise JobError(
            f"{mask_secrets(source)} is a chained address, whose files cannot be told apart from one run to "
            "the next; unpack the archive, or give the files' own address"
        )
    if "://" in source and not source.startswith(("file://", "local://")):
        return source
    try:
        return _plain_path(source)
    except OSError as error:  # the current folder is gone
        raise JobError(explain_error(error, source, "open")) from error


def _plain_path(source: str) -> str:
    path = str(LocalFileSystem._strip_protocol(source))
    plain = os.path.normpath(path)
    same = os.path.realpath(plain) == os.path.realpath(path)  # not where ".." leads back through a link
    if source.startswith(("/", "file://", "local://")):
        return plain if same else path
    return os.path.normpath(source) if same else source


def remote_address(fs: Any, source: str, path: str) -> str:
    """The address of a file, given its path in the file system of ``source``.

    fsspec drops a host or an account on the way, as of ``hdfs://host:8020/x`` or
    ``abfs://container@account.dfs.core.windows.net/x``; workers need it.
    """
    if not fs._get_kwargs_from_urls(source):
        return str(fs.unstrip_protocol(path))
    protocol, _, rest = source.partition("://")
    root = f"{protocol}://{rest.partition('/')[0]}/"
    within = str(fs._strip_protocol(f"{root}x"))[:-1]
    return root + path.removeprefix(within)


# Options of file systems that name the host or the account.
_PLACES = ("host", "port", "endpoint_url", "account_name", "account_host", "url", "fo")


def same_store(fs: Any, other: Any) -> bool:
    """Whether equal paths in two file systems are the same file, as far as their options tell."""
    return type(fs) is type(other) and _place(fs) == _place(other)


def _place(fs: Any) -> list[Any]:
    options = {**fs.storage_options, **(fs.storage_options.get("client_kwargs") or {})}
    return [options.get(name) for name in _PLACES]


def real_path(fs: Any) -> Callable[[str], str]:
    """Paths of a file system in a form that is the same for the same file: local links are resolved."""
    if not isinstance(fs, LocalFileSystem):
        return lambda path: path
    folder = cache(os.path.realpath)

    def real(path: str) -> str:
        parent, _, name = path.rpartition("/")
        if os.path.islink(path) or os.path.isdir(path):  # noqa: PTH112, PTH114 - Path's raise where one may not look
            return os.path.realpath(path)
        return f"{folder(parent)}/{name}"

    return real
