"""From sources to units: every row group is in exactly one unit; names are stable and unique."""

from __future__ import annotations

import gzip
import json
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec import register_implementation
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import get_filesystem_class
from hypothesis import given
from hypothesis import strategies as st
from s3fs import S3FileSystem

from nemo_embed_dask import EmbedError, JobError, embed_parquet
from nemo_embed_dask.errors import InputError
from nemo_embed_dask.jobs.files import addresses, inputs
from nemo_embed_dask.jobs.files.file_identity import FileIdentity
from nemo_embed_dask.jobs.files.file_names import partition_columns
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.schema.inspection import inspect_inputs, plan_units

from ...helpers import faults


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 100))
def test_spans_cover_every_row_group_once_within_the_limit(counts, most):
    spans = inputs._spans(counts, most)
    assert [i for a, b in spans for i in range(a, b)] == list(range(len(counts)))
    for a, b in spans:
        assert sum(counts[a:b]) <= most or b - a == 1


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.b.parquet", "ä ö.parquet", ".x.parquet", "_x.parquet", "x" * 300]
)
def test_part_names_are_safe_for_every_reader(name):
    part = inputs._part_name(inputs.InputFile(f"s3://b/{name}", "parquet", FileIdentity(1, "")))
    assert part.endswith(".parquet") and not part.startswith((".", "_")) and "/" not in part and len(part) < 120


def test_overlapping_files_globs_and_folders_give_each_file_once(tmp_path):
    folder = faults.write_inputs(tmp_path / "in", files=2)
    (folder / "_hidden").mkdir()
    (folder / "_hidden" / "x.parquet").write_bytes(b"")
    (folder / "README").write_text("no input")
    target = Target(str(tmp_path / "out"))
    by_folder = inputs.find_inputs([str(folder)], target, {})[0]
    assert [file.address for file in by_folder] == [str(folder / f"in-0{k}.parquet") for k in range(2)]
    assert (
        inputs.find_inputs([f"{folder}/*.parquet", str(folder), str(folder / "in-00.parquet")], target, {})[0]
        == by_folder
    )
    units = plan_units(inspect_inputs(by_folder, "text", None, {}), 20)
    assert [unit.first_row for unit in units] == [0, 20, 40] * 2
    assert len({unit.name for unit in units}) == 6
    with pytest.raises(JobError, match="has an unknown file type.*such as CSV with dd.read_csv"):
        inputs.find_inputs([str(folder / "README")], target, {})


# ---- folders with links, pipes and permissions -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


def put(path, *texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), path)
    return path


def texts(target):
    return sorted(pq.read_table(target)["text"].to_pylist())


def done(source, target, model):
    report = embed_parquet(faults.stage(model), source, target)
    assert report.complete, report.failed
    return texts(target)


@pytest.fixture
def cache(tmp_path):
    """The layout of the Hugging Face cache: names are links to files that are named by their hash."""
    put(tmp_path / "cache/blobs/0f3a", "one", "two")
    snapshot = tmp_path / "cache/snapshots/main/data"
    snapshot.mkdir(parents=True)
    (snapshot / "a.parquet").symlink_to("../../../blobs/0f3a")
    (tmp_path / "linked").symlink_to(snapshot)
    (snapshot / "up").symlink_to("..")
    return snapshot


@pytest.mark.parametrize("source", ["linked", "linked/*.parquet", "linked/a.parquet", "cache/snapshots",
                                    "cache/**/*.parquet", "cache/*/main"])  # fmt: skip
def test_links_to_files_and_folders_are_followed(source, cache, model, tmp_path):
    assert done(tmp_path / source, tmp_path / "out", model) == ["one", "two"]
    assert embed_parquet(faults.stage(model), tmp_path / source, tmp_path / "out").parts_this_run == 0


def test_a_link_that_now_points_elsewhere_is_a_changed_input(cache, model, tmp_path):
    done(cache, tmp_path / "out", model)
    put(tmp_path / "cache/blobs/77", "three")
    (cache / "a.parquet").unlink()
    (cache / "a.parquet").symlink_to("../../../blobs/77")
    with pytest.raises(JobError, match="1 inputs changed"):
        embed_parquet(faults.stage(model), cache, tmp_path / "out")


def test_pipes_and_broken_links_fail_without_waiting(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    (tmp_path / "in/gone.parquet").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in/pipe.jsonl")
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out")
    gone, pipe = (report.failed[str(tmp_path / "in" / name)] for name in ("gone.parquet", "pipe.jsonl"))
    assert "a broken link: the file it points to does not exist" in gone and "not a regular file" in pipe
    assert texts(tmp_path / "out") == ["one"] and not (tmp_path / "out/_SUCCESS").exists()


def test_a_link_to_a_missing_folder_is_reported(model, tmp_path):
    """For example if a disk is not mounted. The name does not show what it pointed to: `v1.0` may be a folder."""
    put(tmp_path / "in/a.parquet", "one")
    (tmp_path / "in/2024").symlink_to("/nowhere/2024")
    (tmp_path / "in/v1.0").symlink_to("/nowhere/v1.0")
    (tmp_path / "in/data.d").symlink_to("data.d")
    (tmp_path / "in/.hidden").symlink_to("/nowhere/hidden")
    (tmp_path / "in/agent.sock").touch()
    failed = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out").failed
    assert sorted(failed) == [f"{tmp_path}/in/{name}" for name in ("2024", "data.d", "v1.0")]
    assert all("a broken link: the file it points to does not exist" in reason for reason in failed.values())


UNREADABLE = """
import sys
from nemo_embed_dask import EmbedError, EmbeddingCreatorStage, embed_parquet
model, target, *sources = sys.argv[1:]
for i, source in enumerate(sources):
    try:
        print(embed_parquet(EmbeddingCreatorStage(model_identifier=model), source, f"{target}-{i}").failed)
    except EmbedError as error:
        print(type(error).__name__, error)
"""


def read_without_privileges(model, tmp_path, *sources):
    """What jobs on these sources report, a line each, and their ``_SUCCESS`` files; all in one process."""
    names = [tmp_path / source for source in sources]
    output = faults.without_privileges(UNREADABLE, model, tmp_path / "out", *names)
    assert "Traceback" not in output, output
    return output.splitlines()[: len(names)], [*tmp_path.glob("out-*/_SUCCESS")]


def test_files_without_read_permission_are_reported(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    put(tmp_path / "in/mine.parquet", "three").chmod(0)
    put(tmp_path / "in/closed/b.parquet", "two")
    (tmp_path / "in/closed").chmod(0)
    closed = f"InputError the folder {tmp_path}/in/closed cannot be listed (Permission denied)"
    expected = {
        "in": closed,
        "in/closed": closed,
        "in/*/*.parquet": closed,
        "in/closed/b.parquet": "Permission denied",
        "in/mine.parquet": "Permission denied",
        "in/*.parquet": "mine.parquet",
    }
    lines, complete = read_without_privileges(model, tmp_path, *expected)
    (tmp_path / "in/closed").chmod(0o755)
    for line, (source, message) in zip(lines, expected.items(), strict=True):
        assert message in line, (source, line)
    assert not complete


def test_a_glob_includes_the_folders_that_it_matches(model, tmp_path):
    put(tmp_path / "in/spark.parquet/part-0.parquet", "one")
    put(tmp_path / "in/spark.parquet/_temporary/part-1.parquet", "unfinished")
    put(tmp_path / "in/file.parquet", "two")
    (tmp_path / "in/spark.parquet/_SUCCESS").touch()
    assert done(f"{tmp_path}/in/*.parquet", tmp_path / "out", model) == ["one", "two"]


def test_the_target_is_left_out_of_a_source_that_contains_it(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one", "two")
    (tmp_path / "link").symlink_to("in")
    for source in ("link", "in", "link/*", f"{tmp_path}/in/../link/"):
        report = embed_parquet(faults.stage(model), tmp_path / source, tmp_path / "in/out", update=True)
        assert report.complete and texts(tmp_path / "in/out") == ["one", "two"], source


@pytest.mark.parametrize("source", ["out", "link", "out/../out", "file://{tmp}/out"])
def test_a_source_that_is_the_target_is_refused(source, model, tmp_path):
    put(tmp_path / "out/a.parquet", "one")
    (tmp_path / "link").symlink_to("out")
    source = source.format(tmp=tmp_path) if "{" in source else tmp_path / source
    with pytest.raises(JobError, match="is both source and target"):
        embed_parquet(faults.stage(model), source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("source", ["zip://*.parquet::a.zip", "simplecache::s3://key:hush@bucket/in"])
def test_chained_addresses_are_refused(source, model, tmp_path):
    with pytest.raises(JobError, match="is a chained address.*unpack the archive") as refused:
        embed_parquet(faults.stage(model), source, tmp_path / "out")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "path", "address"),
    [
        (
            "abfs://c@me.dfs.core.windows.net/in/*",
            "c/in/x.parquet",
            "abfs://c@me.dfs.core.windows.net/in/x.parquet",
        ),
        ("abfs://c/in", "c/in/x.parquet", "abfs://c/in/x.parquet"),
        ("hdfs://host:8020/in/", "/in/a/x.parquet", "hdfs://host:8020/in/a/x.parquet"),
        ("s3://b/in", "b/in/x.parquet", "s3://b/in/x.parquet"),
    ],
)
def test_an_address_keeps_the_host_or_account_of_its_source(source, path, address):
    """The real classes parse the address; they do not connect."""
    fs = object.__new__(get_filesystem_class(source.partition("://")[0]))
    assert addresses.remote_address(fs, source, path) == address
    assert fs._strip_protocol(address) == path
    assert fs._get_kwargs_from_urls(address) == fs._get_kwargs_from_urls(source)


class Hosts(MemoryFileSystem):
    """A file system with hosts, which are part of addresses but not of paths, as in SFTP and HDFS."""

    protocol = "hosts"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("hosts://").partition("/")[2] if "://" in path else path

    @staticmethod
    def _get_kwargs_from_urls(path):
        return {"host": path.removeprefix("hosts://").partition("/")[0]}


def test_equal_paths_on_two_hosts_are_two_files():
    register_implementation("hosts", Hosts, clobber=True)
    for name in ("/in/a.parquet", "/in/out/b.parquet"):
        Hosts(host="one").pipe_file(name, b"data")
    found = inputs.find_inputs(["hosts://one/in"], Target("hosts://two/in/out"), {})[0]
    assert [file.address for file in found] == ["hosts://one/in/a.parquet", "hosts://one/in/out/b.parquet"]
    assert len(inputs.find_inputs(["hosts://one/in"], Target("hosts://two/in"), {})[0]) == 2
    assert len(inputs.find_inputs(["hosts://one/in"], Target("hosts://one/in/out"), {})[0]) == 1
    with pytest.raises(JobError, match="both source and target"):
        inputs.find_inputs(["hosts://one/in"], Target("hosts://one/in"), {})


@pytest.mark.parametrize(
    ("options", "others", "same"),
    [
        ({}, {}, True),
        ({"endpoint_url": "http://a"}, {"endpoint_url": "http://b"}, False),
        ({"endpoint_url": "http://a"}, {"client_kwargs": {"endpoint_url": "http://a"}}, True),
        ({"client_kwargs": {"endpoint_url": "http://a"}}, {}, False),
        ({"key": "k", "secret": "s"}, {"anon": True}, True),
    ],
)
def test_storage_is_the_same_if_the_options_name_the_same_endpoint(options, others, same):
    one, other = (S3FileSystem(**each, skip_instance_cache=True) for each in (options, others))
    assert addresses.same_storage(one, other) is same


@pytest.fixture
def served(tmp_path):
    """Serve one file by HTTP; yield its address."""
    faults.write_inputs(tmp_path / "in", files=1)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "in"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/in-00.parquet"
        server.shutdown()


def test_a_web_address_may_have_a_query(served, model, tmp_path):
    report = embed_parquet(faults.stage(model), f"{served}?version=1", tmp_path / "out")
    assert report.complete and report.rows == ds.dataset(tmp_path / "in").count_rows()


def test_a_web_folder_is_searched_and_one_that_cannot_be_listed_is_reported(
    served, model, tmp_path, monkeypatch
):
    put(tmp_path / "in/sub/deep/a.parquet", "one")
    put(tmp_path / "in/sub/_temporary/b.parquet", "two")
    folder, get = served.rpartition("/")[0], HTTPFileSystem._ls_real
    for source in (
        f"{folder}/sub/",
        f"{folder}/sub",
        f"{folder}/sub/**/*.parquet",
        f"{folder}/s*/deep/*",
        f"{folder}/su*",
    ):
        (file,) = inputs.find_inputs([source], Target(str(tmp_path / "out")), {})[0]
        assert file.address == f"{folder}/sub/deep/a.parquet"
    assert done(f"{folder}/sub/", tmp_path / "out", model) == ["one"]

    async def broken(self, url, detail=True, **more):
        if url.rstrip("/").endswith("deep"):
            raise ConnectionResetError(104, "Connection reset by peer")
        return await get(self, url, detail, **more)

    monkeypatch.setattr(HTTPFileSystem, "_ls_real", broken)
    for source in (f"{folder}/sub/", f"{folder}/sub/**/*.parquet", f"{folder}/su*"):
        with pytest.raises(InputError, match="sub/deep cannot be listed .Connection reset by peer"):
            inputs.find_inputs([source], Target(str(tmp_path / "out")), {})


def test_compression_is_recognised_before_a_query(served, model, tmp_path):
    (tmp_path / "in/a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}'))
    (tmp_path / "in/b.jsonl").write_bytes(b'{"text": "two"}')
    folder = served.rpartition("/")[0]
    sources = [f"{folder}/a.jsonl.gz?v=1", f"{folder}/b.jsonl?as=.gz"]
    assert embed_parquet(faults.stage(model), sources, tmp_path / "out").complete
    assert texts(tmp_path / "out") == ["one", "two"]


@pytest.mark.parametrize("secret", ["{}?sig=SECRET", "{}?X-Amz-Credential=SECRET&X-Amz-Date=1"])
def test_an_address_with_a_secret_is_refused_before_the_target_is_created(secret, served, model, tmp_path):
    with pytest.raises(JobError, match="storage_options") as caught:
        embed_parquet(faults.stage(model), secret.format(served), tmp_path / "out")
    assert "SECRET" not in str(caught.value) and not (tmp_path / "out").exists()


class Failing(BaseHTTPRequestHandler):
    """A web server that answers with the status that the path begins with."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(int(self.path[1:4]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("401/f.parquet", "401.*check the credentials"),
        ("403/f.jsonl", "403.*check the credentials"),
        ("503/f.parquet", "503.*the network"),
        ("500/*.parquet", "500.*the network"),
        ("404/f.parquet", "has no input"),
    ],
)
def test_errors_of_a_web_server_are_explained_by_their_status(path, message, model, tmp_path):
    """fsspec raises FileNotFoundError for each of these."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(JobError, match=message):
            embed_parquet(
                faults.stage(model), f"http://127.0.0.1:{server.server_port}/{path}", tmp_path / "out"
            )
        server.shutdown()
    with pytest.raises(JobError, match="Connect.*check the address, the endpoint and the network"):
        embed_parquet(faults.stage(model), f"http://127.0.0.1:{server.server_port}/{path}", tmp_path / "out")


class Cutting(SimpleHTTPRequestHandler):
    """A web server whose second response is truncated."""

    count = 0

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        type(self).count += 1
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.count == 2 else data)


def test_a_truncated_response_is_requested_again(model, tmp_path):
    lines = "".join(json.dumps({"text": f"row {k}"}) + "\n" for k in range(100))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text(lines)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Cutting, directory=str(tmp_path / "in"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.jsonl"
        report = embed_parquet(faults.stage(model), address, tmp_path / "out")
        server.shutdown()
    assert report.complete and report.rows == 100 and Cutting.count > 2


def test_a_local_name_with_double_colons_is_not_a_chained_address(model, tmp_path):
    put(tmp_path / "in/a::b.parquet", "one")
    put(tmp_path / "in/c::d/b.parquet", "two")
    assert done(tmp_path / "in", tmp_path / "out", model) == ["one", "two"]


def test_one_file_has_one_address_for_every_spelling(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    put(tmp_path / "elsewhere/in/a.parquet", "two")
    (tmp_path / "link").symlink_to("elsewhere/deep")
    sources = ["in", "in/../in", "in//a.parquet", "./in/./*.parquet", "file://{tmp}/in", "{tmp}/in/"]
    spelled = [s.format(tmp=tmp_path) if "{" in s else f"{tmp_path}/{s}" for s in sources]
    report = embed_parquet(faults.stage(model), spelled, tmp_path / "out")
    assert report.complete and report.parts == 1
    assert done(f"{tmp_path}/link/../in", tmp_path / "other", model) == ["two"], (
        "'..' of a link is its target's"
    )


def test_files_of_unknown_type_are_reported(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    for name in ("b.csv", "part-0000", "_SUCCESS", ".hidden.csv"):
        (tmp_path / "in" / name).write_text("x")
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out")
    assert report.complete
    assert report.notes == [f"2 files of unknown type are left out, such as {tmp_path}/in/b.csv"]


def test_a_link_into_an_unreadable_folder_fails_alone_and_such_a_folder_is_reported(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    put(tmp_path / "closed/b.parquet", "two")
    put(tmp_path / "closed/folder/c.parquet", "three")
    (tmp_path / "in/l.parquet").symlink_to(tmp_path / "closed/b.parquet")
    (tmp_path / "in/v1.0").symlink_to(tmp_path / "closed/folder")
    put(tmp_path / "v/sub/deep/c.parquet", "three")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "v/sub").chmod(0o444)
    (links, folder), _ = read_without_privileges(model, tmp_path, "in", "v")
    (tmp_path / "closed").chmod(0o755)
    (tmp_path / "v/sub").chmod(0o755)
    assert "in/l.parquet: Permission denied" in links and "in/v1.0: Permission denied" in links, links
    assert f"the folder {tmp_path}/v/sub" in folder and "Permission denied" in folder, folder


def test_a_folder_that_cannot_be_searched_is_refused(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    put(tmp_path / "in/sub/b.parquet", "two")
    (tmp_path / "in/sub").chmod(0o444)
    sources = ["in", "in/sub", "in/*/*.parquet", "in/sub/b.parquet"]
    lines, _ = read_without_privileges(model, tmp_path, *sources)
    (tmp_path / "in/sub").chmod(0o755)
    refused = f"InputError the folder {tmp_path}/in/sub cannot be listed (Permission denied)"
    assert all(line.startswith(refused) for line in lines[:3]), lines
    assert lines[3].startswith("InputError") and not [*tmp_path.glob("out-*")], lines


@pytest.mark.parametrize(("source", "message"), [
    ("", "a source is empty"), ("in\0x", r"in\\x00x has a NUL character"), ("s3://b/\0", "NUL character"),
])  # fmt: skip
def test_impossible_names_are_refused(source, message, model, tmp_path, monkeypatch):
    put(tmp_path / "a.parquet", "one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=message):
        embed_parquet(faults.stage(model), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_without_input_is_reported_without_its_secrets(tmp_path):
    with pytest.raises(JobError, match="has no input.*such as CSV with dd.read_csv") as caught:
        inputs.find_inputs([f"{tmp_path}/nothing?sig=SECRET"], Target(str(tmp_path / "out")), {})
    with pytest.raises(JobError, match="both source and target") as again:
        inputs.find_inputs([f"{tmp_path}/x?sig=SECRET"], Target(f"{tmp_path}/x?sig=SECRET"), {})
    assert "SECRET" not in f"{caught.value} {again.value}"


def test_a_source_relative_to_a_removed_folder_is_one_line(model, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(JobError, match="a.parquet cannot be opened .No such file or directory"):
        embed_parquet(faults.stage(model), "a.parquet", tmp_path / "out")


@pytest.mark.parametrize(("more", "message"), [
    ({"compression": "foo"}, "compression='foo' is unknown"), ({"sample_bytes": 0}, "sample_bytes=0"),
    ({"rows_per_part": 0}, "rows_per_part=0"), ({"retries": -1}, "retries=-1"), ({"client": "tcp://x:1"}, "is an address"),
])  # fmt: skip
def test_invalid_parameters_are_refused_before_the_target_is_created(more, message, model, tmp_path):
    put(tmp_path / "a.parquet", "one")
    with pytest.raises(EmbedError, match=message):
        embed_parquet(faults.stage(model), tmp_path / "a.parquet", tmp_path / "out", **more)
    with pytest.raises(JobError, match="there is no source"):
        embed_parquet(faults.stage(model), [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_the_target_are_not_inputs(model, tmp_path):
    put(tmp_path / "in/a.parquet", "one")
    done(tmp_path / "in", tmp_path / "out", model)
    with pytest.raises(JobError, match="has only files that the job itself wrote to the target"):
        embed_parquet(faults.stage(model), f"{tmp_path}/out/*.parquet", tmp_path / "out")


@given(
    st.lists(st.sampled_from(["a", "b=c", "x=%2F", "é=ü", "k=", "n=__HIVE_DEFAULT_PARTITION__"]), max_size=4)
)
def test_columns_in_folder_names_are_the_same_as_pyarrows(folders):
    names = [folder.partition("=")[0] for folder in folders if "=" in folder]
    schema = pa.schema([(name, pa.string()) for name in dict.fromkeys(names)])
    if len(names) == len(schema):
        parsed = ds.partitioning(schema, flavor="hive").parse("/".join([*folders, "x.parquet"]))
        assert dict(partition_columns("/".join(folders))) == ds.get_partition_keys(parsed)
