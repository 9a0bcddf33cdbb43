"""Errors of file systems: which are temporary, their messages, and that they show no secret."""

from __future__ import annotations

import errno
import gzip
import lzma
import re
import zlib
from contextlib import suppress

import pyarrow as pa
import pytest

from nemo_embed_dask.errors import InputError
from nemo_embed_dask.jobs.files.errors import explain_error, is_temporary
from nemo_embed_dask.jobs.files.masking import mask_secrets


class ClientError(Exception):
    """Like botocore's: not an OSError, with the HTTP status in a dictionary."""

    def __init__(self, status: int) -> None:
        super().__init__(f"An error occurred ({status}) when calling the GetObject operation: SECRET words")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": str(status)}}


class EndpointConnectionError(Exception):
    """Like botocore's: not an OSError, without a status."""


class NoCredentialsError(Exception):
    """Like botocore's."""


class HttpResponseError(Exception):
    """Like Azure's: the status is an attribute, and the message has many lines."""

    def __init__(self, status: int) -> None:
        super().__init__("\nServer failed.\nRequestId:1\nTime:2\nErrorCode:X")
        self.status_code = status


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """Return a built-in error that was raised from the client's error, as s3fs does."""
    error.__cause__ = cause
    return error


PERMANENT = [
    FileNotFoundError("x"),
    PermissionError("Access Denied"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    OSError(errno.ENOSPC, "No space left on device"),
    pa.ArrowInvalid("Parquet magic bytes not found"),
    pa.ArrowNotImplementedError("x"),
    EOFError("Compressed file ended before the end-of-stream marker was reached"),
    KeyError("x"),
    TypeError("x"),
    RecursionError("x"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
    zlib.error("x"),
    lzma.LZMAError("x"),
    gzip.BadGzipFile("x"),
    NoCredentialsError("Unable to locate credentials"),
    caused(ValueError("unable to connect to account for x"), NoCredentialsError("x")),
    ClientError(400),
    HttpResponseError(403),
    caused(OSError(errno.EINVAL, "Bad Request"), ClientError(400)),
    caused(FileNotFoundError("The specified bucket does not exist"), ClientError(404)),
    InputError("x"),
]
# gcsfs raises a plain OSError for the status 403.
with suppress(ImportError):
    from gcsfs.retry import validate_response

    try:
        validate_response(403, b"no access", "b/bucket")
    except OSError as forbidden:
        PERMANENT.append(forbidden)
TEMPORARY = [
    OSError("connection lost"),
    ConnectionResetError(errno.ECONNRESET, "x"),
    TimeoutError(),
    OSError(errno.EIO, "Input/output error"),
    EndpointConnectionError("x"),
    caused(RuntimeError("Failed to remove x"), EndpointConnectionError("x")),
    ClientError(503),
    ClientError(429),
    HttpResponseError(500),
    caused(OSError(errno.EBUSY, "Please reduce your request rate."), ClientError(503)),
    InputError("x", temporary=True),
]


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_permanent_errors(error):
    assert not is_temporary(error)


@pytest.mark.parametrize("error", TEMPORARY, ids=repr)
def test_temporary_errors(error):
    assert is_temporary(error)


@pytest.mark.parametrize("error", [*PERMANENT, *TEMPORARY], ids=repr)
@pytest.mark.parametrize("doing", ["open", "read", "list", "write", "remove"])
def test_an_error_is_one_line_with_address_cause_and_advice(error, doing):
    message = explain_error(error, "s3://bucket/in/x.parquet", doing)
    head, _, advice = message.partition("); ")
    assert message.isprintable() and advice
    assert re.fullmatch(r"s3://bucket/in/x.parquet cannot be (opened|read|listed|written|removed) \(\w.*", head)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:SECRET/w0r+d@bucket/x",
        "ftp://me:SECRET@host/x",
        "ftp://me:p@SECRET@host/x",
        "https://a.blob.core.windows.net/c/x.parquet?sv=2024&sig=SECRET%3D&se=1",
        "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=SECRET==;BlobEndpoint=http://h:1/a;",
        "https://b.s3.amazonaws.com/x?X-Amz-Security-Token=SECRET&X-Amz-Date=1",
        "S3FileSystem got {'key': 'SECRET', 'secret': \"SECRET\"}",
        "account_key = SECRET, sas_token=SECRET",
        "aws_secret_access_key=SECRET",
    ],
)
def test_secrets_are_masked(text):
    for message in (mask_secrets(text), explain_error(ValueError(text), text)):
        assert "SECRET" not in message and "***" in message


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a:b@c.parquet",
        "abfs://container@account.dfs.core.windows.net/x",
        "tcp://host:8786",
        "C:\\data\\x",
        "hf://datasets/me/x@main/x.parquet",
        "/data/keys=1/part.parquet",
        "s3://bucket/key=5/token=a/part.parquet",
    ],
)
def test_an_address_without_secrets_is_not_changed(text):
    assert mask_secrets(text) == text


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("s3://b/x", "pip install 'nemo-embed-dask[s3]'"),
        ("abfs://b/x", "pip install 'nemo-embed-dask[azure]'"),
        ("gs://b/x", "pip install 'nemo-embed-dask[gcs]'"),
        ("oss://b/x", "install the package that fsspec needs"),
    ],
)
def test_a_missing_client_library(address, advice):
    assert advice in explain_error(ImportError("Install s3fs to access S3"), address, "open")
