"""Abort the multipart uploads that killed runs have left in S3: they cost money, and no listing shows them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


def abort_unfinished_uploads(fs: Any, folder: str) -> None:
    """Abort all multipart uploads to files in a folder of S3; in other file systems, do nothing.

    Call it when all files of the folder are whole. Another run that uploads one of them then gets an error that
    counts as temporary, and finds the file when it tries again. Google and Azure remove what was not completed
    by themselves, after a week.

    Parameters
    ----------
    fs : fsspec file system
    folder : str
        The path of a folder in it.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    if "s3" not in protocols:
        return
    bucket, _, prefix = folder.partition("/")
    # Not everybody who may write may list uploads, and a rule of the bucket may do the same.
    with suppress(Exception):
        found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/".lstrip("/"))
        for upload in found.get("Uploads", ()):
            fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
