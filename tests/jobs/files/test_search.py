"""The files of a source: names, globs, folders and links; each file once per name, or why it cannot be read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from nemo_embed_dask.jobs.files.inputs import find_inputs
from nemo_embed_dask.jobs.files.search import list_source
from nemo_embed_dask.jobs.files.target import Target

from ...helpers.file_names import not_unicode


@pytest.fixture
def folder(tmp_path):
    """A folder with visible and hidden files and subfolders."""
    for name in ("a.parquet", "b.jsonl", "sub/a.parquet", "sub/deep/c.parquet", "x.parquet/part-0.parquet",
                 ".hidden.parquet", "_hidden.parquet", ".git/d.parquet", "_temporary/e.parquet", "_day=5/f.parquet",
                 "sub/.g.parquet", "README"):  # fmt: skip
        make(tmp_path / "in" / name)
    return tmp_path / "in"


def make(path: Path, data: bytes = b"data") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def listed(source: str | Path, base: Path | None = None) -> list[str]:
    """Return the paths of a source's files, relative to `base` if it is given."""
    paths = [file.path for file in list_source(LocalFileSystem(), str(source)).files]
    return [os.path.relpath(path, base) for path in paths] if base else paths


def problems(source: str | Path) -> dict[str, str]:
    return {
        Path(file.path).name: file.problem
        for file in list_source(LocalFileSystem(), str(source)).files
        if file.problem
    }


DATA = ["README", "_day=5/f.parquet", "a.parquet", "b.jsonl", "sub/a.parquet", "sub/deep/c.parquet",
        "x.parquet/part-0.parquet"]  # fmt: skip


@pytest.mark.parametrize("spelled", [
    "{}", "{}/", "{}//", "{}/./", "{}/sub/..", "file://{}", "file://{}/", "local://{}",
])  # fmt: skip
def test_a_folder_is_searched_to_any_depth_without_hidden_files(spelled, folder):
    assert sorted(listed(spelled.format(folder), folder)) == DATA


@pytest.mark.parametrize("spelled", ["in", "./in", "in/", "in/sub/..", "../{}/in"])
def test_a_relative_source_starts_at_the_current_folder(spelled, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert sorted(listed(spelled.format(folder.parent.name), folder)) == DATA
    monkeypatch.chdir(folder / "sub")
    assert listed("a.parquet") == [str(folder / "sub" / "a.parquet")]
    assert sorted(listed("..", folder)) == DATA and sorted(listed(".", folder)) == DATA[4:6]


@pytest.mark.parametrize(("glob", "expected"), [
    ("*.parquet", ["a.parquet", "x.parquet/part-0.parquet", "_hidden.parquet", ".hidden.parquet"]),
    ("[ab].*", ["a.parquet", "b.jsonl"]), ("?.parquet", ["a.parquet", "x.parquet/part-0.parquet"]),
    ("sub/*.parquet", ["sub/a.parquet", "sub/.g.parquet"]), ("*/a.parquet", ["sub/a.parquet"]),
    ("sub*", ["sub/a.parquet", "sub/deep/c.parquet"]), ("_day=*/*", ["_day=5/f.parquet"]),
    ("**/*.jsonl", ["b.jsonl"]), ("**/c.parquet", ["sub/deep/c.parquet"]), ("sub/**", ["sub/a.parquet", "sub/deep/c.parquet", "sub/.g.parquet"]),
    (".git/*", [".git/d.parquet"]), ("_temp*/*.parquet", ["_temporary/e.parquet"]), ("*/e.parquet", []),
    ("**/d.parquet", []), ("nothing*", []), ("s?b/d*p/*", ["sub/deep/c.parquet"]),
])  # fmt: skip
def test_globs_match_files_and_folders(glob, expected, folder):
    """Hidden files only if the glob matches them; folders as if each were a source."""
    found = listed(folder / glob, folder)
    assert set(found) <= set(expected)
    assert {name for name in expected if not Path(name).name.startswith((".", "_"))} <= set(found)


def test_a_glob_below_a_file_matches_nothing(folder):
    """In some folders the name is a file, in others a folder."""
    make(folder / "other" / "deep", b"a file")
    assert listed(folder / "*" / "deep" / "*", folder) == ["sub/deep/c.parquet"]
    assert listed(folder / "a.parquet" / "*") == listed(folder / "a.parquet" / "b") == []


def test_an_existing_name_with_glob_characters_is_a_name(tmp_path):
    odd = ["[1].parquet", "*.parquet", "a?.parquet", "b#c&d%20e.parquet", "-x.parquet", " .parquet", "ü 漢.parquet",
           "'\".parquet", "a::b.parquet", "~.parquet", "$HOME.parquet", "x\ny.parquet", *not_unicode(b"\xff.parquet")]  # fmt: skip
    for name in [*odd, "1.parquet"]:
        make(tmp_path / name)
    for name in odd:
        assert listed(tmp_path / name) == [str(tmp_path / name)]
    assert sorted(listed(tmp_path)) == sorted(str(tmp_path / name) for name in [*odd, "1.parquet"])
    make(tmp_path / "[d]" / "in.parquet")
    assert (
        listed(tmp_path / "[d]") == listed(tmp_path / "[[]d]" / "*") == [str(tmp_path / "[d]" / "in.parquet")]
    )


# ---- links ------------------------------------------------------------------------------------------


def test_links_to_files_and_folders_are_followed(folder, tmp_path):
    (folder / "link.parquet").symlink_to("sub/a.parquet")
    (folder / "absolute.parquet").symlink_to(folder / "a.parquet")
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    make(tmp_path / "elsewhere" / "more" / "z.parquet", b"some more data")
    (tmp_path / "elsewhere" / "again").symlink_to("more")
    (tmp_path / "whole").symlink_to("in")
    more = ["absolute.parquet", "away/more/z.parquet", "link.parquet"]
    for source in (folder, tmp_path / "whole", tmp_path / "wh*"):
        found = {Path(file.path).name: file for file in list_source(LocalFileSystem(), str(source)).files}
        base = folder if source == folder else tmp_path / "whole"
        assert sorted(listed(source, base)) == sorted([*DATA, *more])
        seen = (tmp_path / "elsewhere/more/z.parquet").stat()
        assert (found["z.parquet"].identity.size, found["z.parquet"].identity.version) == (
            14,
            str(seen.st_mtime_ns),
        )


@pytest.mark.parametrize("target", [".", "..", "../../in", "../sub", "../../loop"])
@pytest.mark.timeout(60)
def test_a_link_loop_ends_and_no_file_is_lost(target, folder):
    (folder / "sub" / "loop").symlink_to(target)
    (folder.parent / "loop").symlink_to("in/sub")
    found = listed(folder, folder)
    assert set(DATA) <= set(found) and len(found) == len(set(found)) < 40
    assert set(DATA[4:6]) <= set(listed(folder / "**" / "*.parquet", folder))
    assert listed(folder / "sub" / "loop" / "*")


@pytest.mark.parametrize("source", ["{}", "{}/*", "{}/**/*.parquet", "{}/**/**/*.parquet", "{}/*/*"])
@pytest.mark.timeout(60)
def test_folders_that_link_to_each_other_are_searched_once(source, tmp_path):
    """Following every path would give 10 million files."""
    names = "abcdefghij"
    for a in names:
        make(tmp_path / f"in/{a}/x.parquet")
        make(tmp_path / f"in/{a}/deep/y.parquet")
        for b in names:
            (tmp_path / f"in/{a}/0{b}").symlink_to(f"../{b}")
    result = list_source(LocalFileSystem(), source.format(tmp_path / "in"))
    found = {file.path for file in result.files}
    own = {str(path) for path in (tmp_path / "in").glob("*/**/*.parquet")}
    assert own <= found and len(found) <= len(own) + len(names)
    assert result.duplicate_folders[f"{tmp_path}/in/b/0c"] in {f"{tmp_path}/in/c", f"{tmp_path}/in/a/0c"}


def test_a_linked_folder_is_searched_under_the_path_with_the_fewest_links_and_reported(tmp_path):
    make(tmp_path / "in/lang=en/a.parquet")
    (tmp_path / "in/lang=de").symlink_to("lang=en")
    make(tmp_path / "more/deep/b.parquet")
    (tmp_path / "more/0").symlink_to("deep")
    for name in ("one", "two"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "more")
    (tmp_path / "in/name.parquet").symlink_to("lang=en/a.parquet")
    expected = ["lang=en/a.parquet", "name.parquet", "one/deep/b.parquet"]
    for source in ("in", "in/*", "in/**"):
        assert sorted(set(listed(tmp_path / source, tmp_path / "in"))) == expected
    target = Target(str(tmp_path / "out"))
    both = find_inputs([f"{tmp_path}/in", f"{tmp_path}/in/lang=de/*"], target, {})[0]
    assert {("lang", "de"), ("lang", "en")} <= {column for file in both for column in file.partition}
    notes = find_inputs([str(tmp_path / "in")], target, {})[1]
    assert notes == [
        f"3 linked folders were searched under another path, such as {tmp_path}/in/lang=de as {tmp_path}/in/lang=en"
    ]


def test_a_link_in_a_glob_is_searched_after_the_folder_itself(tmp_path):
    make(tmp_path / "b/data/x.parquet")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/data").symlink_to("../b/data")
    result = list_source(LocalFileSystem(), f"{tmp_path}/*/data/*")
    (file,) = result.files
    assert file.path == f"{tmp_path}/b/data/x.parquet"
    assert result.duplicate_folders == {f"{tmp_path}/a/data": f"{tmp_path}/b/data"}


@pytest.mark.parametrize("glob", ["*/b.parquet", "**/b.parquet", "*/sub/b.parquet", "v*", "**"])
def test_a_broken_link_that_may_be_a_folder_of_a_glob_is_reported(glob, tmp_path):
    make(tmp_path / "in/a/b.parquet")
    (tmp_path / "in/v1.0").symlink_to("nowhere")
    (tmp_path / "in/a/sub").symlink_to("nowhere")
    assert problems(tmp_path / "in" / glob).keys() == {
        "*/b.parquet": {"v1.0"}, "*/sub/b.parquet": {"v1.0", "sub"}, "v*": {"v1.0"}}.get(glob, {"v1.0", "sub"})  # fmt: skip


def test_broken_links_and_links_to_themselves_are_reported(folder):
    (folder / "dangling.parquet").symlink_to("nothing.parquet")
    (folder / "self.parquet").symlink_to("self.parquet")
    (folder / "folder").symlink_to("nowhere/at/all")
    (folder / "through.parquet").symlink_to("a.parquet/b.parquet")
    found = problems(folder)
    assert found.keys() == {"dangling.parquet", "self.parquet", "folder", "through.parquet"}
    assert "link" in found["dangling.parquet"] and all("remove it" in problem for problem in found.values())
    assert (
        problems(folder / "dangling.parquet").keys()
        == problems(folder / "dang*").keys()
        == {"dangling.parquet"}
    )


def test_what_is_not_a_regular_file_is_reported(folder, tmp_path, monkeypatch):
    os.mkfifo(folder / "fifo.parquet")
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.parquet")
        (folder / "device.parquet").symlink_to("/dev/null")
        found = problems(folder)
    assert found.keys() == {"fifo.parquet", "socket.parquet", "device.parquet"}
    assert all("not a regular file" in problem for problem in found.values())


def test_the_layout_of_a_hugging_face_cache(tmp_path):
    """Data is in blobs/ under its hash; a snapshot has named links to it."""
    hub = tmp_path / "datasets--x--y"
    make(hub / "blobs" / ("ab" * 32), b"one")
    make(hub / "blobs" / ("cd" * 32), b"three")
    data = hub / "snapshots" / ("0" * 40) / "data"
    data.mkdir(parents=True)
    (data / "train-0.parquet").symlink_to("../../../blobs/" + "ab" * 32)
    (data / "train-1.parquet").symlink_to("../../../blobs/" + "cd" * 32)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("0" * 40)
    for source in (hub, data, data.parent, f"{hub}/snapshots/*/data/*.parquet"):
        files = find_inputs([str(source)], Target(str(tmp_path / "out")), {})[0]
        assert [(Path(f.address).name, f.identity.size) for f in files] == [
            ("train-0.parquet", 3),
            ("train-1.parquet", 5),
        ]
