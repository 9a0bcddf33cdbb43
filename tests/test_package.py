"""What is published: the sdist has docs and tests, the wheel neither, and the page on the index has whole links."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Build the sdist, and from it the wheel, as `python -m build` does.
BUILD = "import sys; from hatchling import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"


def run_build(kind: str, source: Path, folder: Path) -> Path:
    """Build "build_sdist" or "build_wheel" of a folder, and return the file."""
    command = [sys.executable, "-c", BUILD, kind, str(folder)]
    done = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The unpacked sdist, in a folder without a repository."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(run_build("build_sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    return run_build("build_wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def files_of_the_repository() -> set[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("needs the git repository")
    return {*done.stdout.splitlines()}


def test_the_sdist_has_every_file_of_the_repository(unpacked):
    has = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert files_of_the_repository() - has == set()


def test_the_wheel_has_only_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nemo_embed_dask"}


def test_the_page_on_the_index_has_only_whole_links(wheel):
    """A package index shows the README without the repository, so that relative links and pictures are broken."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        page = message_from_bytes(archive.read(name)).get_payload()
    links = re.findall(r"\]\(([^)\s]+)", page) + re.findall(r"(?:src|href)=\"([^\"]+)", page)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_links_of_the_project_are_those_that_an_index_knows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*project["urls"]} >= {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
