"""Columns in the names of folders, sources on other file systems, and sources that contain the target."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_embed_dask import embed_parquet
from nemo_embed_dask.errors import InputError, JobError
from nemo_embed_dask.jobs.files.file_identity import FileIdentity, identity_from_info
from nemo_embed_dask.jobs.files.inputs import InputFile, find_inputs
from nemo_embed_dask.jobs.files.search import list_source
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.schema.hive import convert_folder_values, folder_schema

from ...helpers import faults
from ...helpers.file_names import not_unicode
from .test_search import make

ONE = pa.table({"text": ["one"]})


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


def write(path: Path, table: pa.Table = ONE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink:
        pq.write_table(table, sink)
    return path


# ---- Hive folders -----------------------------------------------------------------------------------


def ours(source: Path) -> tuple[dict[str, dict], dict[str, pa.DataType]]:
    """Return each file's folder columns, and their types."""
    found = list_source(LocalFileSystem(), str(source)).files
    files = [InputFile(file.path, "parquet", file.identity, file.partition) for file in found]
    folders = folder_schema(files, "text")
    partitions = {file.address: dict(convert_folder_values(file, folders).partition) for file in files}
    return partitions, {field.name: field.type for field in folders}


def pyarrows(source: Path) -> tuple[dict[str, dict], dict[str, pa.DataType]]:
    data = ds.dataset(str(source), partitioning="hive", format="parquet", ignore_prefixes=["."])
    keys = {piece.path: ds.get_partition_keys(piece.partition_expression) for piece in data.get_fragments()}
    return keys, {field.name: field.type for field in data.schema if field.name != "text"}


FOLDERS = [
    ["lang=en/year=2024", "lang=en/year=2025", "lang=de/year=2024"], ["n=007", "n=7"], ["n=1", "n=x"], ["n=-1", "n=+1"],
    ["n=0x10"], ["n=2147483647"], ["n=2147483648"], ["n=1.5"], ["n= 5"], ["n="], ["a=1/b=", "a=2/b=3"],
    ["k=__HIVE_DEFAULT_PARTITION__", "k=en"], ["k=__HIVE_DEFAULT_PARTITION__", "k=5"], ["k=a%20b%2Fc%3D%C3%A9", "k=漢 字"],
    ["k=%zz", "k=50%"], ["k=a+b"], ["k=x=y"], ["na%20me=5"], ["a.b=1"], ["=5"], ["plain/k=1/more"], ["k=1", "plain"],
    ["k=true"], ["k=2024-01-01"], ["K=1/k=2"], ["_k=1"], ["k=1/part=2/x.parquet"], ["a=1/a=2"],
]  # fmt: skip


@pytest.mark.parametrize("folders", FOLDERS, ids=str)
def test_folder_columns_are_the_same_as_pyarrows(folders, tmp_path):
    for folder in folders:
        write(tmp_path / folder / "p.parquet")
    assert ours(tmp_path) == pyarrows(tmp_path)


values = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=4)


@settings(max_examples=60)
@given(st.lists(values | st.integers(-(2**33), 2**33).map(str), min_size=1, max_size=3, unique=True))
@example(["_", "."])
def test_any_folder_value_is_the_same_as_pyarrows(tmp_path_factory, found):
    source = tmp_path_factory.mktemp("hive")
    for value in found:
        write(source / f"k={value}" / "p.parquet")
    try:
        theirs = pyarrows(source)
    except pa.ArrowInvalid:
        return  # not UTF-8 after its %xx are decoded: see the next test
    assert ours(source) == theirs


@pytest.mark.parametrize("folder", ["k=%FF", *not_unicode(b"k=\xff"), *not_unicode(b"k\xff=1")])
def test_a_folder_value_that_is_not_unicode_is_refused_or_reported(folder, model, tmp_path):
    """Its files fail and are named, or the job raises an error of this package; no value is invented."""
    write(tmp_path / "in" / folder / "p.parquet")
    write(tmp_path / "in" / "k=x" / "p.parquet")
    try:
        report = embed_parquet(faults.stage(model), str(tmp_path / "in"), str(tmp_path / "out"))
    except JobError as error:
        assert "k" in str(error)
        return
    assert len(report.failed) == 1
    assert pq.read_table(tmp_path / "out")["k"].to_pylist() == ["x"]


def test_only_folders_below_the_source_give_columns(tmp_path, monkeypatch):
    base = tmp_path / "run=5" / "in"
    write(base / "lang=en" / "p.parquet")
    write(base / "lang=en" / "year=1" / "q.parquet")

    def partitions(*sources: str) -> list[tuple]:
        return [file.partition for file in find_inputs(sources, Target(str(tmp_path / "out")), {})[0]]

    below = [(("lang", "en"),), (("lang", "en"), ("year", "1"))]
    assert partitions(str(base)) == partitions(f"{base}/") == partitions(f"file://{base}") == below
    monkeypatch.chdir(base)
    assert partitions(".") == partitions("lang=*") == partitions("lang=en", "lang=en/*.parquet", ".") == below
    assert partitions("lang=en") == [(), (("year", "1"),)]


def test_json_lines_in_hive_folders_have_the_folders_columns(model, tmp_path):
    make(tmp_path / "in/lang=en/year=2024/a.jsonl", b'{"text": "a"}\n{"text": "b"}\n')
    make(tmp_path / "in/lang=de/year=2025/b.jsonl", b'{"text": "c"}\n')
    write(tmp_path / "in/lang=de/year=2026/c.parquet")
    report = embed_parquet(faults.stage(model), str(tmp_path / "in"), str(tmp_path / "out"))
    assert report.complete, report.failed
    found = pq.read_table(tmp_path / "out").sort_by("text")
    assert found["text"].to_pylist() == ["a", "b", "c", "one"]
    assert found["lang"].to_pylist() == ["en", "en", "de", "de"]
    assert found["year"].to_pylist() == [2024, 2024, 2025, 2026]


@pytest.mark.parametrize(
    "dtype", [pa.int8(), pa.int64(), pa.float64(), pa.decimal128(9, 2), pa.string(), pa.decimal128(38, 0)]
)
def test_a_file_that_has_a_folders_column_keeps_its_values(dtype, model, tmp_path):
    """Other files have the folder's value, in a type that holds both."""
    own = pa.table({"text": ["own"], "n": pa.array(["7"]).cast(dtype)})
    write(tmp_path / "in/n=5/own.parquet", own)
    write(tmp_path / "in/n=5/other.parquet", pa.table({"text": ["other"]}))
    write(tmp_path / "in/n=5/other2.parquet", pa.table({"text": ["other"]}))
    make(tmp_path / "in/n=6/lines.jsonl", b'{"text": "lines"}\n')
    report = embed_parquet(faults.stage(model), str(tmp_path / "in"), str(tmp_path / "out"))
    if dtype == pa.string():
        assert [Path(name).name for name in report.failed] == ["own.parquet"]
        return
    assert report.complete, report.failed
    found = pq.read_table(tmp_path / "out")
    assert dict(zip(found["text"].to_pylist(), found["n"].to_pylist(), strict=True)) == {
        "own": 7,
        "other": 5,
        "lines": 6,
    }


# ---- other file systems -----------------------------------------------------------------------------


@pytest.fixture
def memory():
    """A file system in memory with some files."""
    fs = fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()
    for name in (
        "in/lang=en/a.parquet",
        "in/b.parquet",
        "in/_hidden.parquet",
        "in/.git/c.parquet",
        "in/README",
        "more/d.jsonl",
    ):
        fs.pipe_file(f"/{name}", b"data")
    yield fs
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.mark.parametrize(("source", "expected"), [
    ("memory://in", ["README", "b.parquet", "lang=en/a.parquet"]), ("memory:///in/", ["README", "b.parquet", "lang=en/a.parquet"]),
    ("memory://in/*.parquet", ["_hidden.parquet", "b.parquet"]), ("memory://in/lang=*", ["lang=en/a.parquet"]),
    ("memory://in/b.parquet", ["b.parquet"]), ("memory://in/**/a.parquet", ["lang=en/a.parquet"]), ("memory://nothing", []),
    ("memory://in/*/nothing", []),
])  # fmt: skip
def test_another_file_system(source, expected, memory):
    found = list_source(memory, source).files
    assert [file.path.removeprefix("/in/") for file in found] == expected
    assert [file.partition for file in found if file.path.endswith("a.parquet")] in ([], [(("lang", "en"),)])
    assert all(file.identity.size == 4 and not file.problem for file in found)


@pytest.mark.parametrize("source", ["memory://x", "memory://x/*.parquet", "memory://x/a.parquet"])
def test_listing_and_file_have_the_same_identity(source, memory, model, tmp_path):
    """fsspec's memory file system gives times as floats in listings and as datetimes for single files."""
    with memory.open("/x/a.parquet", "wb") as sink:
        pq.write_table(ONE, sink)
    for run in range(2):
        report = embed_parquet(faults.stage(model), source, str(tmp_path / "out"))
        assert report.complete and report.parts_this_run == 1 - run, report.failed


@pytest.mark.parametrize("protocol", ["zip", "tar"])
def test_files_of_an_archive_given_by_options(protocol, model, tmp_path):
    pq.write_table(ONE, tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}')
    archive = tmp_path / f"a.{protocol}"
    with zipfile.ZipFile(archive, "w") if protocol == "zip" else tarfile.open(archive, "w") as out:
        for name in ("a.parquet", "b.jsonl"):
            (out.write if protocol == "zip" else out.add)(tmp_path / name, f"d/{name}")
    report = embed_parquet(
        faults.stage(model), f"{protocol}://d", tmp_path / "out", storage_options={"fo": str(archive)}
    )
    assert report.complete and report.rows == ONE.num_rows + 1, report.failed


WHEN = 1753000000.123456


@pytest.mark.parametrize("name", ["mtime", "LastModified", "created"])
def test_all_forms_of_a_time_are_the_same_version(name):
    there = datetime.fromtimestamp(WHEN, timezone(timedelta(hours=2)))
    forms = [WHEN, WHEN + 1e-7, there, there.astimezone(UTC), there.astimezone(UTC).replace(tzinfo=None), there.isoformat(),
            there.astimezone(UTC).isoformat().replace("+00:00", "Z")]  # fmt: skip
    assert {identity_from_info({"size": 1, name: time}) for time in forms} == {
        FileIdentity(1, "1753000000.123456")
    }
    assert identity_from_info({name: WHEN + 1e-6}) != identity_from_info({name: WHEN})
    whole = [0, 0.0, datetime(1970, 1, 1), "1970-01-01T00:00:00Z"]
    assert {identity_from_info({name: time}) for time in whole} == {FileIdentity(0, "0")}
    assert identity_from_info({name: 1753000000123456789}).version == "1753000000123456789"
    assert identity_from_info({name: "yesterday"}).version == "yesterday"


def test_a_hash_is_preferred_to_a_time_and_not_converted():
    assert identity_from_info({"size": 3, "LastModified": WHEN, "ETag": '"20240101"'}) == FileIdentity(
        3, "20240101"
    )
    assert identity_from_info({"size": None, "etag": "", "mtime": None}) == FileIdentity(0, "")


def test_a_target_in_the_source_of_another_file_system(memory):
    memory.pipe_file("/in/out/part.parquet", b"data")
    found = find_inputs(["memory://in"], Target("memory://in/out"), {})[0]
    assert [file.address for file in found] == ["memory:///in/b.parquet", "memory:///in/lang=en/a.parquet"]
    for spelled in ("memory://in", "memory:///in", "memory://in/", "memory:///in/"):
        with pytest.raises(JobError, match="both source and target"):
            find_inputs([spelled], Target("memory://in"), {})


@pytest.mark.parametrize(("source", "expected"), [
    ("in/**/*.parquet", ["in/a.parquet", "in/_day=5/a.parquet", "in/_a.parquet"]), ("in/**", ["in/a.parquet", "in/_day=5/a.parquet", "in/_a.parquet"]),
    ("in/*/*.parquet", ["in/_day=5/a.parquet"]), ("in/*/0/*", []), ("in/_temporary/**/*.parquet", ["in/_temporary/0/a.parquet"]),
    ("in/_t*/*/*", ["in/_temporary/0/a.parquet"]), ("in/_delta_log/*", ["in/_delta_log/1.parquet"]), ("in/*", ["in/a.parquet", "in/_day=5/a.parquet", "in/_a.parquet"]),
    ("i*/_delta_log/*", ["in/_delta_log/1.parquet"]),
])  # fmt: skip
def test_a_glob_matches_the_same_folders_on_every_file_system(source, expected, memory, linking, tmp_path):
    """Spark keeps unfinished attempts in _temporary."""
    for name in (
        "a.parquet",
        "_temporary/0/a.parquet",
        "_delta_log/1.parquet",
        "_day=5/a.parquet",
        "_a.parquet",
    ):
        memory.pipe_file(f"/m/in/{name}", b"x")
        make(tmp_path / "in" / name)
    found = [
        sorted({file.path.removeprefix(base) for file in list_source(fs, address + source).files})
        for fs, address, base in [
            (LocalFileSystem(), f"{tmp_path}/", f"{tmp_path}/"), (memory, "memory://m/", "/m/"), (linking, f"linking://{tmp_path}/", f"{tmp_path}/")
        ]
    ]  # fmt: skip
    assert found == [sorted(expected)] * 3


# ---- file systems that list links -------------------------------------------------------------------


class Linking(AbstractFileSystem):
    """Lists like fsspec's SFTP: links have the type "link" in listings and are followed by `info`."""

    protocol = "linking"
    cachable = False
    root_marker = "/"

    def _entry(self, path: str, seen: os.stat_result) -> dict:
        types = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFREG: "file"}
        when = datetime.fromtimestamp(seen.st_mtime, UTC)
        return {
            "name": path,
            "size": seen.st_size,
            "type": types.get(stat.S_IFMT(seen.st_mode), "other"),
            "mtime": when,
        }

    def ls(self, path, detail=True, **more):
        path = self._strip_protocol(path)
        entries = [self._entry(str(inside), inside.lstat()) for inside in Path(path).iterdir()]
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path, **more):
        path = self._strip_protocol(path)
        return self._entry(path, Path(path).stat())

    def _open(self, path, mode="rb", **more):
        return Path(path).open(mode)


@pytest.fixture
def linking():
    fsspec.register_implementation("linking", Linking, clobber=True)
    return Linking()


@pytest.fixture
def linked(tmp_path):
    """A folder with links to a file, a folder, a parent folder and nothing, and with a pipe."""
    write(tmp_path / "blobs/1", pa.table({"text": ["linked"]}))
    write(tmp_path / "in/a.parquet")
    write(tmp_path / "more/sub/c.parquet", pa.table({"text": ["more"]}))
    for name, target in {"b.parquet": "../blobs/1", "v1.0": "../more", "gone": "nowhere"}.items():
        (tmp_path / "in" / name).symlink_to(target)
    os.mkfifo(tmp_path / "in/pipe.parquet")
    return tmp_path


@pytest.mark.parametrize(("glob", "expected", "lost"), [
    ("", ["linked", "more", "one"], ["gone", "pipe.parquet"]), ("/*", ["linked", "more", "one"], ["gone", "pipe.parquet"]),
    ("/**/*.parquet", ["linked", "more", "one"], ["gone", "pipe.parquet"]), ("/*/sub/*", ["more"], ["gone"]), ("/v*", ["more"], []),
    ("/v1.0", ["more"], []), ("/b.parquet", ["linked"], []),
])  # fmt: skip
def test_remote_links_are_followed_and_what_is_neither_file_nor_folder_is_listed(
    glob, expected, lost, linking, linked, model
):
    report = embed_parquet(faults.stage(model), f"linking://{linked}/in{glob}", str(linked / "out"))
    assert sorted(pq.read_table(linked / "out")["text"].to_pylist()) == expected
    assert sorted(Path(name).name for name in report.failed) == lost
    assert (linked / "out/_SUCCESS").exists() == (not lost)


@pytest.mark.timeout(60)
def test_loops_of_remote_links_end_and_are_reported(linking, linked):
    for name in "abcdefgh":
        (linked / "more/sub" / name).symlink_to("../../in")
    found = list_source(linking, f"linking://{linked}/in").files
    assert {file.path.rpartition("/")[2] for file in found if "may form a loop" in file.problem} == set(
        "abcdefgh"
    )
    assert len(found) == 13


def test_a_remote_folder_that_cannot_be_listed_is_refused(linking, linked, monkeypatch):
    """fsspec's own search silently leaves it out."""

    def ls(self, path, detail=True, **more):
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return listing(self, path, detail)

    listing = Linking.ls
    monkeypatch.setattr(Linking, "ls", ls)
    for source in ("", "/**/c.parquet", "/v*/sub/*"):
        with pytest.raises(
            InputError, match=r"linking://.*/in/v1.0/sub cannot be listed \(Permission denied\)"
        ):
            list_source(linking, f"linking://{linked}/in{source}")
    assert len(list_source(linking, f"linking://{linked}/in/*.parquet").files) == 3


class Flat(MemoryFileSystem):
    """Lists everything at once, and gives some entries unusual types."""

    def find(self, path, **more):
        return {n: {**e, "type": "link"} if "link" in n else e for n, e in super().find(path, **more).items()}

    def info(self, path, **more):
        if "dead" in path:
            raise FileNotFoundError(path)
        return super().info(path, **more)


def test_entries_of_unknown_type_in_an_object_store_are_examined(memory):
    for name in ("link.parquet", "dead-link.parquet", "dead-link"):
        memory.pipe_file(f"/l/{name}", b"data")
    for source, names in {
        "memory://l": ["dead-link", "dead-link.parquet"],
        "memory://l/*.parquet": ["dead-link.parquet"],
    }.items():
        found = {file.path: file.problem for file in list_source(Flat(), source).files}
        assert found.pop("/l/link.parquet") == ""
        assert found.keys() == {f"/l/{name}" for name in names} and all(
            "does not exist" in why for why in found.values()
        )
