"""Folders that cannot be read are errors: nothing is left out silently."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ...helpers import faults
from .test_search import folder

__all__ = ["folder"]  # a fixture of this file too

WITHOUT_RIGHTS = """
import ctypes, json, os, sys
from fsspec.implementations.local import LocalFileSystem
from nemo_embed_dask.errors import InputError
from nemo_embed_dask.jobs.files.search import list_source
if os.geteuid() == 0:  # root can read everything because of two capabilities
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), none):
        sys.exit(77)
try:
    os.listdir(sys.argv[1])
    sys.exit(77)
except PermissionError:
    pass
for source in sys.argv[2:]:
    try:
        print(json.dumps(["listed", sorted(f.path for f in list_source(LocalFileSystem(), source).files)]))
    except InputError as error:
        print(json.dumps(["refused", str(error)]))
"""


def without_rights(locked: Path, *sources: str | Path) -> list[list]:
    """Return what a process without all permissions lists."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: another way to give up the right to read everything")
    command = [sys.executable, "-c", WITHOUT_RIGHTS, str(locked), *map(str, sources)]
    done = subprocess.run(
        command, env=faults.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 77:
        pytest.skip("this user reads everything, and cannot give up the right to")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_folder_that_cannot_be_listed_is_refused(folder):
    locked = folder / "sub" / "deep"
    (folder / "link").symlink_to("sub/deep")
    locked.chmod(0)
    try:
        sources = [folder, locked, locked / "c.parquet", f"{folder}/sub/*", f"{folder}/**/c.parquet", f"{folder}/sub/deep/*",
                   f"{folder}/sub/d*/c.parquet", f"{folder}/link", f"{folder}/lin*/c.parquet"]  # fmt: skip
        found = without_rights(locked, *sources, f"{folder}/*.jsonl")
    finally:
        locked.chmod(0o755)
    assert found.pop() == ["listed", [str(folder / "b.jsonl")]], "a source beside it is not harmed"
    for source, (verdict, said) in zip(sources, found, strict=True):
        assert verdict == "refused" and "\n" not in said, source
        assert str(folder) in said and "ermission" in said, said


def test_a_folder_that_can_be_listed_but_not_searched_is_refused_or_reported(folder):
    """A folder with the permission r but without x gives names only."""
    (folder / "sub").chmod(0o400)
    (folder / "no").mkdir()
    (folder / "no").chmod(0)
    try:
        ((verdict, said),) = without_rights(folder / "no", folder / "sub")
    finally:
        (folder / "sub").chmod(0o755)
        (folder / "no").chmod(0o755)
    assert verdict == "refused" or str(folder / "sub" / "a.parquet") in said, "nothing is left out in silence"
