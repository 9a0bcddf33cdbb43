"""README.md is short, its example runs and prints what it shows, and its links also work on a package index."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REPOSITORY = "https://github.com/nemo-embed-dask/nemo-embed-dask/"
RAW_FILES = "https://raw.githubusercontent.com/nemo-embed-dask/nemo-embed-dask/main/"
SITE = "https://nemo-embed-dask.github.io/nemo-embed-dask/"
LINKS = sorted(set(re.findall(r"\]\(([^)\s]+)", README)))
NUMBER = re.compile(r"-?\d\.\d+e[+-]\d+")
CUT_NUMBER = re.compile(r"-?\d\.\d+e[+-](\d+|\.\.\.)")


def file_behind(link: str) -> Path | None:
    """Return the file of this repository that a link shows, or None for other links."""
    address, _, _ = link.partition("#")
    if address.startswith(SITE):
        page = address.removeprefix(SITE).rstrip("/")
        page_file = ROOT / "docs" / f"{page or 'index'}.md"
        return page_file if page_file.exists() else ROOT / "docs" / page / "index.md"
    if address.startswith(RAW_FILES):
        return ROOT / address.removeprefix(RAW_FILES)
    if match := re.fullmatch(re.escape(REPOSITORY) + r"actions/workflows/([^/]+)(/badge\.svg)?", address):
        return ROOT / ".github" / "workflows" / match[1]
    if address.startswith(REPOSITORY):
        return ROOT / address.removeprefix(f"{REPOSITORY}blob/main/")
    return None


def test_it_is_short_enough_for_a_newcomer():
    assert len(README.splitlines()) <= 110


def test_no_link_is_relative():
    assert LINKS
    assert [link for link in LINKS if not link.startswith("https://")] == []


@pytest.mark.parametrize("link", [link for link in LINKS if file_behind(link)])
def test_links_into_the_repository_and_the_site_show_existing_files(link):
    assert file_behind(link).exists()


def test_the_example_prints_the_frame_below_it():
    """Digits differ between machines and number types, by less than 0.01; all else is equal."""
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    shown = re.search(r"```text\n(.*?)```", README, re.S)[1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert CUT_NUMBER.sub("#", printed.getvalue()) == CUT_NUMBER.sub("#", shown)
    values = [[float(number) for number in NUMBER.findall(text)] for text in (printed.getvalue(), shown)]
    assert len(values[0]) == 6
    np.testing.assert_allclose(values[0], values[1], rtol=0, atol=0.01)
