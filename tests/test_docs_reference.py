"""The reference pages have each public name once, and no other names."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import nemo_embed_dask
from nemo_embed_dask import crossfit

PAGES = Path(__file__).parents[1] / "docs/reference"


def documented():
    """Return how often each name has an entry in a reference page."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md"))]
    return Counter(re.findall(r"^::: nemo_embed_dask\.([\w.]+)$", "\n".join(pages), re.MULTILINE))


def test_the_reference_has_exactly_the_public_names():
    public = [*nemo_embed_dask.__all__, *(f"crossfit.{name}" for name in crossfit.__all__)]
    assert documented() == Counter(public)


def test_the_overview_lists_the_public_names():
    overview = (PAGES / "index.md").read_text(encoding="utf-8")
    listed = {*re.findall(r"`(\w+)`", overview.partition("| page")[2])}
    errors = {name for name in nemo_embed_dask.__all__ if name.endswith("Error")}
    assert {*nemo_embed_dask.__all__} - listed == errors - {"EmbedError"}
