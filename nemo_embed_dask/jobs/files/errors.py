"""Errors of file systems: what each means in one line, and whether another attempt may help. Opens nothing.

Client libraries have error trees of their own, which are often no `OSError` and rarely name the file. Their
classes are recognised by name, because the libraries need not be installed.
"""

from __future__ import annotations

import errno
import lzma
import sys
import zlib
from gzip import BadGzipFile
from itertools import chain
from typing import Literal

import pyarrow as pa

from ...errors import JobError
from .masking import mask_secrets

# Conditions of a target that no retry mends; what to do about each.
PERMANENT_WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "a file may not grow that large here (ulimit -f): raise the limit or lower rows_per_part",
    errno.EROFS: "the target is read-only: mount it writable, or choose another target",
    errno.EACCES: "writing to the target is not permitted: change its permissions, or choose another target",
    errno.EPERM: "writing to the target is not permitted: change its permissions, or choose another target",
}
# Errors that come back on every attempt. pyarrow's ArrowInvalid is a ValueError.
_PERMANENT = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, BadGzipFile, ValueError,
    pa.ArrowException,
)  # fmt: skip
# Packages whose errors are about data or a program; all others that raise here talk to a server.
_NOT_REMOTE = sys.stdlib_module_names | {
    "nemo_embed_dask", "pyarrow", "zstandard", "zstd", "backports", "fsspec", "pandas", "numpy", "dask",
}  # fmt: skip
# Errors about credentials, by class name; botocore's first, then Azure's and Google's.
_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "ClientAuthenticationError", "GoogleAuthError",
}  # fmt: skip
# Errors about parameters of a request, by class name; botocore's.
_INVALID = {"ParamValidationError", "ValidationError"}
# HTTP's own words for "try again": request timeout, too early, too many requests; 5xx are added below.
_TRY_AGAIN = {408, 425, 429}
_MISSING = {404, 410}
# Numbers these errors as a server would number a bad request; they are of a connection that was cut.
_CUT = "aiohttp.http_exceptions"
_DAMAGED = (ValueError, EOFError, BadGzipFile, lzma.LZMAError, zlib.error, pa.ArrowException)
Doing = Literal["open", "read", "list", "write", "remove"]
_DONE = {"open": "opened", "read": "read", "list": "listed", "write": "written", "remove": "removed"}


def explain_error(error: BaseException, address: str, doing: Doing = "read") -> str:
    """Say in one line which file or folder, what could not be done, why, and what to do about it.

    Parameters
    ----------
    error : BaseException
        What the file system raised.
    address : str
        The file or folder; its secrets are masked.
    doing : str
        What was tried: "open" a file system, "read" or "write" a file, "list" a folder, "remove" a file.
    """
    told, advice = describe_error(error, address), _advice(error, address, doing)
    return f"{mask_secrets(address)} cannot be {_DONE[doing]} ({told}); {advice}"


def explain_damage(error: BaseException, address: str) -> str:
    """Say in one line that a file could be opened and not be understood."""
    unknown = isinstance(error, pa.ArrowNotImplementedError)
    advice = (
        "leave the column that pyarrow cannot read out of columns"
        if unknown
        else "replace the file: it is damaged or of another format"
    )
    return f"{mask_secrets(address)} cannot be read ({describe_error(error, address)}); {advice}"


def is_temporary(error: BaseException) -> bool:
    """Whether another attempt may help, by the error's type, its errno and its HTTP status.

    Errors of client libraries are temporary, unless they are about credentials or have an HTTP status that
    says otherwise; so is an `OSError` that is not about a missing file, a permission, damaged data or a full
    disk. All other errors are not.
    """
    if isinstance(error, JobError):
        return error.temporary
    status = _status(error)
    if status:
        return status >= 500 or status in _TRY_AGAIN
    if _named(error, _CREDENTIALS | _INVALID):
        return False
    if any(map(_is_remote, _chain(error))):
        return True
    return (
        isinstance(error, OSError)
        and not isinstance(error, _PERMANENT)
        and error.errno not in PERMANENT_WRITE_ERRORS
    )


def is_missing(error: BaseException) -> bool:
    """Whether the error says that there is no such file, folder or bucket.

    fsspec's HTTP calls every failure of a server, and of the way to it, a missing file; its cause tells.
    """
    status = _status(error)
    if status:
        return status in _MISSING
    found = isinstance(error, FileNotFoundError | NotADirectoryError)
    return found and not (error.__cause__ and _is_remote(error.__cause__))


def describe_error(error: BaseException, address: str = "") -> str:
    """Say in one line what an error is, without secrets: its type and the first line of its text."""
    if isinstance(error, BaseExceptionGroup):
        first, *others = error.exceptions
        told = describe_error(first, address)
        return f"{told}, and {len(others)} more errors" if others else told
    if isinstance(error, FileNotFoundError) and error.__cause__ and not is_missing(error):
        return describe_error(error.__cause__, address)
    if isinstance(error, OSError) and error.strerror:
        return mask_secrets(error.strerror, address)
    line, name = _first_line(str(error)), type(error).__name__
    return mask_secrets(f"{name}: {line}" if line else name, address)[:300]


def _first_line(text: str) -> str:
    """The first line with text; lines that end in a colon only announce the next one."""
    told = ""
    for line in text.splitlines():
        told = f"{told} {line.strip()}".strip()
        if told and not told.endswith(":"):
            break
    return told


def _advice(error: BaseException, address: str, doing: Doing) -> str:
    if isinstance(error, ImportError):
        return "install the package that opens such addresses"
    if "://" in address.removeprefix("file://"):
        return _advice_on_remote(error, doing)
    if doing == "write":
        return (
            PERMANENT_WRITE_ERRORS.get(error.errno or 0, _ELSEWHERE)
            if isinstance(error, OSError)
            else _ELSEWHERE
        )
    if isinstance(error, PermissionError):
        return "change its permissions"
    if doing == "read" and isinstance(error, _DAMAGED):
        return "replace the file if it is damaged"
    return "check the address"


_ELSEWHERE = "choose another target"


def _advice_on_remote(error: BaseException, doing: Doing) -> str:
    if _about_credentials(error) or isinstance(error, PermissionError):
        return (
            "check the credentials and what they permit (they come from the environment, or in Python from "
            "storage_options and target_options)"
        )
    if is_temporary(error):
        return "check the address, the endpoint and the network"
    if is_missing(error):
        return (
            "create the bucket or container, or correct the address"
            if doing == "write"
            else "check the address"
        )
    if doing == "read" and isinstance(error, _DAMAGED):
        return "replace the file if it is damaged, else check the address and the options of its file system"
    return "check the address and the options of its file system (credentials, endpoint, region)"


def _about_credentials(error: BaseException) -> bool:
    return _named(error, _CREDENTIALS) or _status(error) in {401, 403}


def _named(error: BaseException, names: set[str]) -> bool:
    return any(cls.__name__ in names for one in _chain(error) for cls in type(one).__mro__)


def _is_remote(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] not in _NOT_REMOTE


def _status(error: BaseException) -> int:
    """The HTTP status of an error, or of what caused it; 0 if there is none."""
    for one in _chain(error):
        if type(one).__module__ == _CUT:
            continue
        response = getattr(one, "response", None)
        if isinstance(response, dict):  # botocore's ClientError
            response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        # of azure, aiohttp, gcsfs, botocore
        attributes = (getattr(one, name, None) for name in ("status_code", "status", "code"))
        for found in chain([response], attributes):
            if isinstance(found, int) and 100 <= found < 600:
                return int(found)
    return 0


def _chain(error: BaseException) -> list[BaseException]:
    """An error, and those that it was raised from."""
    found = [error]
    while (cause := found[-1].__cause__) and cause not in found:
        found.append(cause)
    return found
