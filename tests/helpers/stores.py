"""Servers of object stores on loopback, and readers of what is in them that are not fsspec.

S3 is moto's server, Azure is Azurite, Google's is gcp-storage-emulator. Each is a process of its own.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .faults import ROOT

# No message, log or file may contain it. Azure's keys are base64.
SECRET = "SecretWordOfTheTests"
AZURE_ACCOUNT, AZURE_SECRET = "teststore", "U2VjcmV0V29yZE9mVGhlVGVzdHM="


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def azurite() -> str | None:
    """The command of Azurite's blob service: on the path, or installed by npm into the root of the project."""
    folders = [ROOT / ".tools" / "node_modules" / ".bin", ROOT / "node_modules" / ".bin"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    return shutil.which("azurite-blob", path=path)


@dataclass
class Store:
    """A server, and how jobs and tests reach it; ``proxy``: the address of a proxy in front of it."""

    port: int
    process: subprocess.Popen | None = None
    buckets: set[str] = field(default_factory=set)

    protocol = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, command: list[str], folder: Path, **more: str) -> None:
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **more}
            )
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((folder / "server.log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def address(self, path: str) -> str:
        return f"{self.protocol}://{path}"

    def upload(self, folder: Path, bucket: str, prefix: str) -> str:
        """Copy the files of a folder into a new bucket; return their address."""
        self.make_bucket(bucket)
        for path in sorted(folder.iterdir()):
            self.put(bucket, f"{prefix}/{path.name}", path.read_bytes())
        return self.address(f"{bucket}/{prefix}")

    def table(self, bucket: str, prefix: str) -> pa.Table:
        """All parts of a target, each read whole."""
        names = [name for name in self.names(bucket, prefix) if name.endswith(".parquet")]
        return pa.concat_tables(pq.read_table(io.BytesIO(self.get(bucket, name))) for name in names)


class S3(Store):
    """moto's server."""

    protocol = "s3"

    @classmethod
    def started(cls, folder: Path) -> S3:
        store = cls(free_port())
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(store.port)]
        # Five names per page, where S3 has 1,000: every listing of the tests has several pages.
        store.start(command, folder, MOTO_S3_DEFAULT_MAX_KEYS="5")
        return store

    def environment(self, url: str = "") -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "AKIAOFTHETESTS", "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url or self.url,
        }  # fmt: skip

    def options(self, url: str = "", key: str = "AKIAOFTHETESTS", secret: str = SECRET) -> dict:
        return {"key": key, "secret": secret, "endpoint_url": url or self.url}

    @cached_property
    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=self.url, aws_access_key_id="x", aws_secret_access_key="x",
                            region_name="us-east-1")  # fmt: skip

    def make_bucket(self, name: str) -> None:
        self.client.create_bucket(Bucket=name)

    def put(self, bucket: str, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=name, Body=data)

    def get(self, bucket: str, name: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=name)["Body"].read()

    def names(self, bucket: str, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def uploads(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]

    def check_access(self, *, enforced: bool) -> None:
        """Let the server check keys and policies from now on, or no longer."""
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", b"0" if enforced else b"inf", headers
        )
        urllib.request.urlopen(request).close()


class Azure(Store):
    """Azurite."""

    protocol = "abfs"

    @classmethod
    def started(cls, folder: Path) -> Azure:
        store = cls(free_port())
        command = [azurite(), "--blobHost", "127.0.0.1", "--blobPort", str(store.port), "--inMemoryPersistence",
                   "--skipApiVersionCheck", "--disableTelemetry", "--silent"]  # fmt: skip
        store.start(command, folder, AZURITE_ACCOUNTS=f"{AZURE_ACCOUNT}:{AZURE_SECRET}")
        return store

    def connection_string(self, url: str = "", secret: str = AZURE_SECRET) -> str:
        endpoint = f"{url or self.url}/{AZURE_ACCOUNT}"
        return (
            f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={secret};"
            f"BlobEndpoint={endpoint};"
        )

    def environment(self, url: str = "") -> dict[str, str]:
        return {"AZURE_STORAGE_CONNECTION_STRING": self.connection_string(url)}

    def options(self, url: str = "", secret: str = AZURE_SECRET) -> dict:
        return {"connection_string": self.connection_string(url, secret)}

    @cached_property
    def client(self):
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string())

    def make_bucket(self, name: str) -> None:
        self.client.create_container(name)

    def put(self, bucket: str, name: str, data: bytes) -> None:
        self.client.get_blob_client(bucket, name).upload_blob(data)

    def get(self, bucket: str, name: str) -> bytes:
        return self.client.get_blob_client(bucket, name).download_blob().readall()

    def names(self, bucket: str, prefix: str) -> list[str]:
        found = self.client.get_container_client(bucket).list_blobs(f"{prefix}/", include=["uncommittedblobs"])
        return [blob.name for blob in found]

    def uploads(self, bucket: str) -> list[str]:
        """Blobs that have only blocks that were never committed; they have no size."""
        found = self.client.get_container_client(bucket).list_blobs(include=["uncommittedblobs"])
        return [blob.name for blob in found if blob.etag is None]


class Google(Store):
    """gcp-storage-emulator, which checks no credentials."""

    protocol = "gs"

    @classmethod
    def started(cls, folder: Path) -> Google:
        store = cls(free_port())
        command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port",
                   str(store.port), "--in-memory"]  # fmt: skip
        store.start(command, folder)
        return store

    def environment(self, url: str = "") -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": url or self.url}

    def options(self, url: str = "") -> dict:
        return {"endpoint_url": url or self.url, "token": "anon"}

    @cached_property
    def client(self):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        return Client("tests", AnonymousCredentials(), client_options={"api_endpoint": self.url})

    def make_bucket(self, name: str) -> None:
        self.client.create_bucket(name)

    def put(self, bucket: str, name: str, data: bytes) -> None:
        self.client.bucket(bucket).blob(name).upload_from_string(data)

    def get(self, bucket: str, name: str) -> bytes:
        return self.client.bucket(bucket).blob(name).download_as_bytes()

    def names(self, bucket: str, prefix: str) -> list[str]:
        return [blob.name for blob in self.client.list_blobs(bucket, prefix=f"{prefix}/")]

    def uploads(self, bucket: str) -> list[str]:
        return []


STORES = {"s3": S3, "azure": Azure, "google": Google}
