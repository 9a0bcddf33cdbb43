"""The target: every error names the file, whatever library raises it; a missing file is not an error."""

from __future__ import annotations

import errno
import resource
import signal
from io import BytesIO
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nemo_embed_dask.errors import JobError, TargetError
from nemo_embed_dask.jobs.files.filesystem import open_filesystem
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.units.parts import whole_parts
from nemo_embed_dask.jobs.units.records import Record, footer_metadata, read_footer
from nemo_embed_dask.stats import Stats


class ServiceResponseError(Exception):
    """Like Azure's, for a lost connection: not an OSError."""


class NoCredentialsError(Exception):
    """Like botocore's."""


class ResourceNotFoundError(Exception):
    """Like Azure's: not a FileNotFoundError."""

    status_code = 404


class Broken(MemoryFileSystem):
    """A file system whose operations raise ``error`` if it is set; reading raises only after opening."""

    protocol = "broken"
    cachable = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    error: ClassVar[Exception | None] = None

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("broken://").strip("/")

    def _fail(self):
        if self.error:
            raise self.error

    def cat_file(self, path, **more):
        self._fail()
        return super().cat_file(path, **more)

    def ls(self, path, detail=True, **more):
        self._fail()
        return super().ls(path, detail, **more)

    def info(self, path, **more):
        self._fail()
        return super().info(path, **more)

    def rm_file(self, path):
        self._fail()
        super().rm_file(path)

    def pipe_file(self, path, value, mode="overwrite", **more):
        self._fail()
        super().pipe_file(path, value, mode, **more)

    def open(self, path, mode="rb", **more):
        handle = super().open(path, mode, **more)
        return Unreadable() if self.error else handle


class Unreadable(BytesIO):
    """A file that can be opened but not read."""

    def __init__(self):
        super().__init__(bytes(100))

    def read(self, size=-1):
        raise Broken.error


@pytest.fixture
def target(monkeypatch):
    fsspec.register_implementation("broken", Broken, clobber=True)
    Broken.store.clear()
    monkeypatch.setattr(Broken, "error", None)
    made = Target("broken://bucket/out")
    made.write("x", b"1")
    return made


def read_some(target):
    with target.open_file("x") as handle:
        return handle.read(4)


OPERATIONS = {
    "read": lambda target: target.read("x"),
    "listing": lambda target: target.list_files("x"),
    "identify": lambda target: target.identity_of("x"),
    "remove": lambda target: target.remove("x"),
    "write": lambda target: target.write("x", b"1"),
    "opened": read_some,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("error", "temporary", "advice"),
    [
        (ServiceResponseError("Server disconnected"), True, "check the address, the endpoint and the network"),
        (NoCredentialsError("Unable to locate credentials"), False, "check the credentials"),
        (PermissionError("Access Denied"), False, "check the credentials"),
    ],
    ids=repr,
)
def test_an_error_of_any_library_is_explained(operation, error, temporary, advice, target):
    Broken.error = error
    with pytest.raises(TargetError) as caught:
        OPERATIONS[operation](target)
    message = str(caught.value)
    assert (
        message.startswith("broken://bucket/out/x cannot be ") and str(error) in message and advice in message
    )
    assert caught.value.temporary is temporary


@pytest.mark.parametrize(
    "error", [FileNotFoundError("The specified bucket does not exist"), ResourceNotFoundError()]
)
def test_a_missing_file_is_an_error_only_when_writing(error, target):
    Broken.error = error
    assert target.read("x") is None and target.list_files() == {}
    target.remove("x")
    with pytest.raises(TargetError, match="x cannot be written .*; create the bucket or container, or correct"):
        target.write("x", b"1")


def test_a_part_that_cannot_be_read_now_is_not_damaged(target, monkeypatch):
    record = Record("p.parquet", "key", "in", Stats())
    with (
        target.atomic_file("p.parquet") as sink,
        pq.ParquetWriter(sink, pa.schema([("a", pa.int8())])) as writer,
    ):
        writer.add_key_value_metadata(footer_metadata(record))
    assert read_footer(target, "p.parquet").key == "key" and read_footer(target, "nothing") is None
    assert read_footer(target, "x") is None
    Broken.error = ServiceResponseError("Server disconnected")
    monkeypatch.setattr(Broken, "ls", MemoryFileSystem.ls)
    for look in (
        lambda: read_footer(target, "p.parquet"),
        lambda: [*whole_parts(target, {"p.parquet": "key"}, {})],
    ):
        with pytest.raises(TargetError, match="p.parquet cannot be read"):
            look()
    Broken.error = None
    assert [part.name for part in whole_parts(target, {"p.parquet": "key"}, {})] == ["p.parquet"]


def test_an_incomplete_upload_is_an_error(target, monkeypatch):
    monkeypatch.setattr(
        Broken, "pipe_file", lambda self, path, value: MemoryFileSystem.pipe_file(self, path, value[:1])
    )
    with pytest.raises(TargetError, match="y is incomplete: 3 bytes were sent and 1 arrived") as caught:
        target.write("y", b"123")
    assert caught.value.temporary


# ---- local folders --------------------------------------------------------------------------------


def test_a_relative_target_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative, by_url = Target("out"), Target(f"file://{tmp_path}/out/")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # like a worker
    relative.write("x", b"1")
    assert relative.address == by_url.address == str(tmp_path / "out")
    assert by_url.read("x") == (tmp_path / "out/x").read_bytes() == b"1"


@pytest.mark.parametrize("address", ["simplecache::s3://bucket/out", "zip://x::/a.zip"])
def test_a_chained_address_is_refused(address):
    with pytest.raises(TargetError, match=f"{address} is a chained address.*give the folder's own address"):
        Target(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [("nope://x", "Protocol not known: nope.*use a protocol that fsspec knows"), ("", "is empty")],
)
def test_an_address_that_cannot_be_opened(address, message):
    with pytest.raises(TargetError, match=message):
        Target(address).list_files()


def test_options_that_a_file_system_refuses_are_reported_without_secrets():
    with pytest.raises(JobError, match=r"ftp://127.0.0.1:1/x cannot be opened .*refused") as caught:
        open_filesystem("ftp://127.0.0.1:1/x", {"username": "me", "password": "SECRET"})
    assert caught.value.temporary and "SECRET" not in str(caught.value)
    with pytest.raises(JobError, match=r"ftp://\*\*\*@127.0.0.1:1/x contains a secret") as caught:
        open_filesystem("ftp://me:SECRET@127.0.0.1:1/x", {})
    assert "SECRET" not in str(caught.value)


def test_errors_of_the_block_stay_as_they_are_and_leave_nothing(tmp_path):
    target = Target(str(tmp_path))
    for error in (OSError(errno.ENOENT, "of an input"), ValueError("x")):
        with pytest.raises(type(error)) as caught, target.atomic_file("x") as sink:
            sink.write(b"half")
            raise error
        assert caught.value is error
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_size_limit_is_reported_through_pyarrows_writer(tmp_path):
    target, table = Target(str(tmp_path)), pa.table({"a": [bytes(1 << 20)]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with (
            pytest.raises(
                TargetError, match=r"x.parquet cannot be written \(File too large\); .*ulimit -f"
            ) as caught,
            target.atomic_file("x.parquet") as sink,
        ):
            pq.write_table(table, sink, compression="none", use_dictionary=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not caught.value.temporary and not (tmp_path / "x.parquet").exists()


def test_a_folder_below_a_file_is_an_error_for_every_way_to_write(tmp_path):
    (tmp_path / "file").touch()
    target = Target(str(tmp_path / "file/out"))
    with pytest.raises(TargetError, match="out/x cannot be written .Not a directory.; choose another target"):
        target.write("x", b"1")
    with pytest.raises(TargetError, match="Not a directory"), target.lock():
        pass
    assert target.read("x") is None and target.list_files() == {}


# ---- real clients of object stores, where they are installed --------------------------------------


def test_an_endpoint_that_cannot_be_reached_through_s3fs():
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    options = {
        "key": "a", "secret": "SECRET", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 0}},
    }  # fmt: skip
    with pytest.raises(
        TargetError, match="s3://bucket/out cannot be listed .EndpointConnectionError"
    ) as caught:
        Target("s3://bucket/out", options).list_files()
    assert caught.value.temporary and "SECRET" not in str(caught.value)


def test_no_credentials_through_adlfs():
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    with pytest.raises(TargetError, match="abfs://box/out cannot be opened .*credentials") as caught:
        Target("abfs://box/out").list_files()
    assert not caught.value.temporary
