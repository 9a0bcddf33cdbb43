"""Errors of file systems: what each means in one line, and whether another attempt may help. Opens nothing.

Client libraries have error trees of their own, which are often no `OSError` and rarely name the file. Their
classes are recognised by name, because the libraries need not be installed.
"""

from __future__ import annotations

import errno
import re
import sys
from gzip import BadGzipFile

import pyarrow as pa

from ..errors import JobError, TargetError

# Conditions of a target that no retry mends; what to do about each.
HOPELESS = {
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
_ASK_FOR_CREDENTIALS = (
    "check the credentials and what they permit (they come from the environment, or from storage_options and "
    "target_options in Python)"
)
# HTTP's own words for "try again": request timeout, too early, too many requests; 5xx are added below.
_TRY_AGAIN = {408, 425, 429}
_SECRETS = (
    # key:secret@ in an address
    (re.compile(r"(://)[^/@\s:]*:[^@\s]*@(?:[^/@\s]*@)*"), r"\1***@"),
    # name=secret in a query or in a connection string
    (
        re.compile(
            r"(?i)\b(sig|signature|token|key|password|passwd|pwd|secret|x-amz-\w[\w-]*|x-goog-\w[\w-]*|AWSAccessKeyId"
            r"|\w*account_?key|\w*sas_?token|\w*secret_?\w*|\w*access_?key\w*|\w*_(?:token|password|key))"
            r"(\s*=\s*|[\"']\s*:\s*)[\"']?[^&;,\s\"')]+"
        ),
        r"\1\2***",
    ),
)


def explain(error: BaseException, address: str, doing: str = "read") -> str:
    """Say in one line what could not be done, where, why, and what to do about it.

    Parameters
    ----------
    error : BaseException
        What the file system raised.
    address : str
        The file or folder; its secrets are masked.
    doing : str
        What was tried, as a verb that the address follows: ``read``, ``list``, ``write to``.
    """
    return f"cannot {doing} {masked(address)} ({reason(error)}); {_advice(error, address, doing)}"


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
    if _about_credentials(error):
        return False
    if any(type(one).__module__.partition(".")[0] not in _NOT_REMOTE for one in _chain(error)):
        return True
    return isinstance(error, OSError) and not isinstance(error, _PERMANENT) and error.errno not in HOPELESS


def target_error(error: BaseException, address: str, doing: str) -> TargetError:
    """Turn an error of a target's file system into one that says where and what to do."""
    return TargetError(explain(error, address, doing), temporary=is_temporary(error))


def masked(text: str) -> str:
    """Replace keys, passwords, tokens and signatures in an address or a message by ``***``."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def reason(error: BaseException) -> str:
    """Say in one line what an error is, without secrets: its type and the first line of its text."""
    if isinstance(error, BaseExceptionGroup):
        first, *others = error.exceptions
        return f"{reason(first)}, and {len(others)} more errors" if others else reason(first)
    if isinstance(error, OSError) and error.strerror:
        return masked(error.strerror)
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    name = type(error).__name__
    return masked(f"{name}: {line}" if line else name)[:300]


def _advice(error: BaseException, address: str, doing: str) -> str:
    remote, writing = "://" in address.removeprefix("file://"), doing.startswith("write")
    if _about_credentials(error) or (remote and isinstance(error, PermissionError)):
        return _ASK_FOR_CREDENTIALS
    if writing and isinstance(error, OSError) and error.errno in HOPELESS:
        return HOPELESS[error.errno]
    if isinstance(error, PermissionError):
        return "change its permissions"
    if remote and is_temporary(error):
        return "check the address, the endpoint and the network"
    if remote and (isinstance(error, FileNotFoundError) or _status(error) == 404):
        return (
            "create the bucket or container first, or correct the address" if writing else "check the address"
        )
    return "choose another target" if writing else "check the address"


def _about_credentials(error: BaseException) -> bool:
    named = any(cls.__name__ in _CREDENTIALS for one in _chain(error) for cls in type(one).__mro__)
    return named or _status(error) in {401, 403}


def _status(error: BaseException) -> int:
    """The HTTP status of an error, or of what caused it; 0 if there is none."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):  # botocore's ClientError
            response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        # of azure, aiohttp, gcsfs, botocore
        for found in (*(getattr(one, name, None) for name in ("status_code", "status", "code")), response):
            if isinstance(found, int) and 100 <= found < 600:
                return int(found)
    return 0


def _chain(error: BaseException) -> list[BaseException]:
    """An error, and those that it was raised from."""
    found = [error]
    while (cause := found[-1].__cause__) and cause not in found:
        found.append(cause)
    return found
