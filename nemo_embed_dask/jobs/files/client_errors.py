"""What errors of client libraries say: their classes, causes and HTTP status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

# Packages whose errors are about data or a program. All others that fsspec uses talk to a server.
_LOCAL_PACKAGES = sys.stdlib_module_names | {
    "nemo_embed_dask",
    "pyarrow",
    "zstandard",
    "zstd",
    "backports",
    "fsspec",
    "pandas",
    "numpy",
    "dask",
}
# The status attributes of errors of Azure, aiohttp and gcsfs, in this order.
_STATUS_ATTRIBUTES = ("status_code", "status", "code")
# Errors of this module have the code 400, but mean that the connection was cut.
_CUT_CONNECTION_MODULE = "aiohttp.http_exceptions"
# gcsfs raises a plain OSError for the status 403; nothing else in it shows the status.
_GCSFS_FORBIDDEN = "Forbidden: "


def has_class_name(error: BaseException, names: set[str]) -> bool:
    """Return whether an error, or one of its causes, is of a class with one of these names."""
    return any(cls.__name__ in names for cause in with_causes(error) for cls in type(cause).__mro__)


def is_remote(error: BaseException) -> bool:
    """Return whether a client library raised the error, rather than Python, pyarrow or this package."""
    return type(error).__module__.partition(".")[0] not in _LOCAL_PACKAGES


def http_status(error: BaseException) -> int:
    """Return the HTTP status of an error or of one of its causes; 0 if there is none."""
    for cause in with_causes(error):
        if type(cause) is OSError and str(cause).startswith(_GCSFS_FORBIDDEN):
            return 403
        if type(cause).__module__ == _CUT_CONNECTION_MODULE:
            continue
        for value in _status_values(cause):
            if isinstance(value, int) and 100 <= value < 600:
                return int(value)
    return 0


def _status_values(error: BaseException) -> Iterator[Any]:
    """Yield the attributes of an error that may be an HTTP status, one by one: reading ``code`` may warn."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's ClientError
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    yield response
    for name in _STATUS_ATTRIBUTES:
        yield getattr(error, name, None)


def is_lost_upload(error: BaseException) -> bool:
    """Return whether S3 says that a multipart upload is gone: another run, or an earlier request, has ended it.

    The status is 404, but the file may exist.
    """
    responses = [getattr(cause, "response", None) for cause in with_causes(error)]
    return any(
        isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchUpload"
        for response in responses
    )


def with_causes(error: BaseException) -> list[BaseException]:
    """Return an error and those that it was raised from."""
    errors = [error]
    while (cause := errors[-1].__cause__) and cause not in errors:
        errors.append(cause)
    return errors
