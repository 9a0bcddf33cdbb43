"""Addresses of sources and inputs: check them, and give each file one address. Opens no file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ...errors import JobError
from .errors import explain_errors
from .masking import make_printable, mask_secrets

_LOCAL_PROTOCOLS = ("file://", "local://")


def normalize_source(source: str) -> str:
    """Return a source in a standard form, so that each of its files always gets the same address.

    A local source loses ``.``, ``..`` and doubled slashes; a remote one stays as it is.

    Raises
    ------
    JobError
        It is empty, chained (``zip://...::...``), contains a NUL character, or is relative to a current folder
        that was removed.
    """
    if not source:
        raise JobError("a source is empty; pass a file, a glob or a folder, or . for the current folder")
    if "\0" in source:
        name = make_printable(mask_secrets(source))
        raise JobError(f"{name} has a NUL character, which no file name can have; correct the source")
    if "::" in source and "://" in source:
        raise JobError(
            f"{mask_secrets(source)} is a chained address (with ::), whose files a later run may not "
            "recognise; unpack the archive, or pass the address of the files themselves"
        )
    if "://" in source and not source.startswith(_LOCAL_PROTOCOLS):
        return source
    with explain_errors(source, "open", JobError):  # the current folder may be gone
        return _normalize_path(source)


def _normalize_path(source: str) -> str:
    path = str(LocalFileSystem._strip_protocol(source))
    plain = os.path.normpath(path)
    # ".." after a link to a folder does not lead back to where the link is.
    is_same = os.path.realpath(plain) == os.path.realpath(path)
    if source.startswith(("/", *_LOCAL_PROTOCOLS)):
        return plain if is_same else path
    return os.path.normpath(source) if is_same else source


def remote_address(fs: Any, source: str, path: str) -> str:
    """Return the full address of a file, given its path in the file system of ``source``.

    fsspec leaves the host or account out of paths, for example of ``hdfs://host:8020/x`` or
    ``abfs://container@account.dfs.core.windows.net/x``, but workers need it.
    """
    if not fs._get_kwargs_from_urls(source):
        return str(fs.unstrip_protocol(path))
    protocol, _, rest = source.partition("://")
    root = f"{protocol}://{rest.partition('/')[0]}/"
    root_path = str(fs._strip_protocol(f"{root}x"))[:-1]
    return root + path.removeprefix(root_path)


# Options of file systems that name the host or the account.
_LOCATION_OPTIONS = ("host", "port", "endpoint_url", "account_name", "account_host", "url", "fo")


def same_storage(fs: Any, other: Any) -> bool:
    """Return whether equal paths in two file systems are the same file, judging by their options."""
    return type(fs) is type(other) and _location(fs) == _location(other)


def _location(fs: Any) -> list[Any]:
    options = {**fs.storage_options, **(fs.storage_options.get("client_kwargs") or {})}
    return [options.get(name) for name in _LOCATION_OPTIONS]


def path_resolver(fs: Any) -> Callable[[str], str]:
    """Return a function that gives all paths of one file the same form: it resolves links of local paths."""
    if not isinstance(fs, LocalFileSystem):
        return lambda path: path
    resolve_folder = cache(os.path.realpath)

    def resolve(path: str) -> str:
        parent, _, name = path.rpartition("/")
        # Not Path's methods, which raise in folders that may not be searched.
        if os.path.islink(path) or os.path.isdir(path):  # noqa: PTH112, PTH114
            return os.path.realpath(path)
        return f"{resolve_folder(parent)}/{name}"

    return resolve
