"""Explain errors of file systems in one line, and tell whether another attempt may help.

Client libraries have their own error classes, which are often not an `OSError` and rarely name the file. They
are recognised by class name, because the libraries need not be installed.
"""

from __future__ import annotations

import errno
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from typing import Literal

import fsspec
import pyarrow as pa

from ...errors import EmbedError, JobError
from .client_errors import has_class_name, http_status, is_lost_upload, is_remote, with_causes
from .masking import mask_secrets

# Errors of a target that come back on every attempt -> what to do.
PERMANENT_WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "the file is larger than the limit for files (ulimit -f): raise it, or lower rows_per_part",
    errno.EROFS: "the target is read-only: mount it writable, or choose another target",
    errno.EACCES: "writing to the target is not permitted: change its permissions, or choose another target",
    errno.EPERM: "writing to the target is not permitted: change its permissions, or choose another target",
}
_OTHER_WRITE_ERROR = "choose another target"
# Errors that happen again on every attempt. pyarrow's ArrowInvalid is a ValueError.
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    BadGzipFile,
    ValueError,
    pa.ArrowException,
)
_DAMAGED = (ValueError, EOFError, BadGzipFile, lzma.LZMAError, zlib.error, pa.ArrowException)
# Class names of errors about credentials, of botocore, Azure and Google.
_CREDENTIAL_ERRORS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "ClientAuthenticationError",
    "GoogleAuthError",
}
# Class names of botocore's errors about the parameters of a request.
_INVALID_REQUEST_ERRORS = {"ParamValidationError", "ValidationError"}
# HTTP: request timeout, too early, too many requests. All 5xx are temporary too.
_TEMPORARY_STATUS = {408, 425, 429}
_MISSING_STATUS = {404, 410}
_CREDENTIALS_STATUS = {401, 403}
# Protocol -> the extra of this package with its client library.
_EXTRAS = {"s3": "s3", "s3a": "s3", "abfs": "azure", "abfss": "azure", "az": "azure", "gs": "gcs", "gcs": "gcs"}

Action = Literal["open", "read", "list", "write", "remove"]
_PARTICIPLES = {"open": "opened", "read": "read", "list": "listed", "write": "written", "remove": "removed"}


@contextmanager
def explain_errors(address: str, action: Action, error_type: type[JobError]) -> Iterator[None]:
    """Replace an error of the block by one that names the file and says what to do.

    Errors of this package stay as they are.
    """
    try:
        yield
    except EmbedError:
        raise
    except Exception as error:  # client libraries have their own error classes
        message = explain_error(error, address, action)
        raise error_type(message, temporary=is_temporary(error)) from error


def explain_error(error: BaseException, address: str, action: Action = "read") -> str:
    """Return one line: which file or folder, what could not be done, why, and what to do about it.

    Parameters
    ----------
    error : BaseException
        What the file system raised.
    address : str
        The file or folder; its secrets are masked.
    action : str
        What was tried: "open" a file system, "read" or "write" a file, "list" a folder, "remove" a file.
    """
    cause, advice = describe_error(error, address), _advice(error, address, action)
    return f"{mask_secrets(address)} cannot be {_PARTICIPLES[action]} ({cause}); {advice}"


def explain_damage(error: BaseException, address: str) -> str:
    """Return one line on a file that could be opened, but whose content could not be parsed."""
    if isinstance(error, pa.ArrowNotImplementedError):
        advice = "set columns without the column that pyarrow cannot read"
    else:
        advice = "replace the file: it is damaged or has another format"
    return f"{mask_secrets(address)} cannot be read ({describe_error(error, address)}); {advice}"


def describe_error(error: BaseException, address: str = "") -> str:
    """Return an error's type and the first line of its message, without secrets."""
    if isinstance(error, BaseExceptionGroup):
        first, *others = error.exceptions
        description = describe_error(first, address)
        return f"{description}, and {len(others)} more errors" if others else description
    if isinstance(error, FileNotFoundError) and error.__cause__ and not is_missing(error):
        return describe_error(error.__cause__, address)
    if isinstance(error, OSError) and error.strerror:
        return mask_secrets(error.strerror, address)
    line, name = _first_line(str(error)), type(error).__name__
    return mask_secrets(f"{name}: {line}" if line else name, address)[:300]


def _first_line(text: str) -> str:
    """Return the first line with text, joined with the next one as long as it ends in a colon."""
    result = ""
    for line in text.splitlines():
        result = f"{result} {line.strip()}".strip()
        if result and not result.endswith(":"):
            break
    return result


def is_temporary(error: BaseException) -> bool:
    """Return whether another attempt may help, by the error's type, errno and HTTP status.

    Temporary are: an error with a fitting HTTP status; any other error of a client library, unless it is about
    credentials or the request itself; an `OSError` that is not about a missing file, permissions, damaged data
    or a full disk.
    """
    if isinstance(error, JobError):
        return error.temporary
    status = http_status(error)
    if status:
        return status >= 500 or status in _TEMPORARY_STATUS or is_lost_upload(error)
    if has_class_name(error, _CREDENTIAL_ERRORS | _INVALID_REQUEST_ERRORS):
        return False
    if any(is_remote(cause) for cause in with_causes(error)):
        return True
    if not isinstance(error, OSError) or isinstance(error, _PERMANENT):
        return False
    return error.errno not in PERMANENT_WRITE_ERRORS


def is_missing(error: BaseException) -> bool:
    """Return whether the error says that there is no such file, folder or bucket.

    fsspec's HTTP file system raises `FileNotFoundError` for every failure of a server or network; its cause
    shows the difference.
    """
    status = http_status(error)
    if status:
        return status in _MISSING_STATUS and not is_lost_upload(error)
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return False
    return not (error.__cause__ and is_remote(error.__cause__))


def _advice(error: BaseException, address: str, action: Action) -> str:
    if isinstance(error, ImportError):
        extra = _EXTRAS.get(address.partition("://")[0])
        package = (
            f"its client with pip install 'nemo-embed-dask[{extra}]'"
            if extra
            else "the package that fsspec needs for such addresses"
        )
        return f"install {package}, on the workers too"
    if "://" in address.removeprefix("file://"):
        return _advice_for_remote(error, address, action)
    if action == "write":
        number = error.errno if isinstance(error, OSError) else None
        return PERMANENT_WRITE_ERRORS.get(number or 0, _OTHER_WRITE_ERROR)
    if isinstance(error, PermissionError):
        return "change its permissions"
    if action == "read" and isinstance(error, _DAMAGED):
        return "replace the file if it is damaged"
    return "check the address"


def _advice_for_remote(error: BaseException, address: str, action: Action) -> str:
    if isinstance(error, ValueError) and address.partition("://")[0] not in fsspec.available_protocols():
        return "use a protocol that fsspec knows, for example s3, gs, abfs or https"
    if _is_about_credentials(error) or isinstance(error, PermissionError):
        return (
            "check the credentials and their permissions (they come from the environment, or in Python from "
            "storage_options and target_options)"
        )
    if is_temporary(error):
        return "check the address, the endpoint and the network"
    if is_missing(error):
        create = "create the bucket or container, or correct the address"
        return create if action == "write" else "check the address"
    if action == "read" and isinstance(error, _DAMAGED):
        return "replace the file if it is damaged, else check the address and the options of its file system"
    return "check the address and the options of its file system (credentials, endpoint, region)"


def _is_about_credentials(error: BaseException) -> bool:
    return has_class_name(error, _CREDENTIAL_ERRORS) or http_status(error) in _CREDENTIALS_STATUS
