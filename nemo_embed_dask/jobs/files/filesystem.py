"""Open the fsspec file system of an address."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...errors import JobError
from .errors import explain_errors
from .masking import mask_secrets


def open_filesystem(address: str, options: dict[str, Any], error_type: type[JobError] = JobError) -> Any:
    """Return the fsspec file system of an address.

    Raises
    ------
    JobError
        Or ``error_type``: the protocol is unknown, its package is missing, the credentials are missing, or the
        address contains a secret.
    """
    if "://" in address and mask_secrets(address) != address:
        raise error_type(
            f"{mask_secrets(address)} contains a secret, and jobs write addresses to files in the target; pass "
            "the secret through the environment, or in Python in storage_options and target_options"
        )
    with explain_errors(address, "open", error_type):
        if "://" not in address:  # fsspec would take a file name with "::" for a chain of addresses
            return LocalFileSystem(**options)
        return fsspec.core.url_to_fs(address, **options)[0]
