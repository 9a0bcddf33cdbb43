"""Open the fsspec file system of an address."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...errors import JobError
from .errors import explain_error, is_temporary
from .masking import mask_secrets


def open_filesystem(address: str, options: dict[str, Any], kind: type[JobError] = JobError) -> Any:
    """The fsspec file system of an address.

    Raises
    ------
    JobError
        Or ``kind``: the protocol is unknown, its package is missing, its client has no credentials, or the
        address holds a secret.
    """
    if "://" in address and mask_secrets(address) != address:
        raise kind(
            f"{mask_secrets(address)} has a secret in it, and jobs write addresses into their target: pass "
            "the secret through the environment, or in Python through storage_options and target_options"
        )
    try:
        if "://" not in address:  # fsspec would take a name with "::" for a chain of addresses
            return LocalFileSystem(**options)
        return fsspec.core.url_to_fs(address, **options)[0]
    except Exception as error:
        raise kind(explain_error(error, address, "open"), temporary=is_temporary(error)) from error
