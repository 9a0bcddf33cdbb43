"""The code in the pages and in the docstrings runs; commands in the pages have flags that exist.

A block that cannot run here has a line before it, ``<!-- skip: next "reason" -->``, with a reason in `REASONS`.
All other blocks of a page run in one namespace, in order, in a folder that has texts.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from doctest import ELLIPSIS
from pathlib import Path
from unittest import SkipTest

import pandas as pd
import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers import markdown, rest

from nemo_embed_dask.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MODULES = [path for path in sorted((ROOT / "nemo_embed_dask").rglob("*.py")) if ">>>" in path.read_text()]
# Why a block does not run, and how many blocks have this reason.
REASONS = {
    "needs a GPU": 3,
    "needs a model of the hub": 2,
    "needs an object store": 1,
    "needs Kubernetes": 1,
    "needs NeMo Curator and a GPU": 2,
    "needs Ray": 1,
    "needs Slurm": 1,
    "starts a cluster": 4,
}
DOCUMENTS = {
    ".md": Sybil([markdown.PythonCodeBlockParser(), rest.DocTestParser(ELLIPSIS), markdown.SkipParser()]),
    ".py": Sybil([rest.DocTestParser(ELLIPSIS)], document_types={".py": PythonDocStringDocument}),
}
SUBJECTS = ["whales", "bread", "jazz", "storms", "chess", "glaciers", "bees", "tea"]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Change to a folder that has Parquet files with 24 texts in ``texts/``."""
    (tmp_path / "texts").mkdir()
    rows = [f"Text {i} is about {SUBJECTS[i % 8]} and nothing else." for i in range(24)]
    frame = pd.DataFrame({"id": range(24), "text": rows, "body": rows})
    for i in range(2):
        frame.iloc[i::2].to_parquet(tmp_path / f"texts/{i}.parquet", index=False)
    monkeypatch.chdir(tmp_path)


def examples(path):
    return DOCUMENTS[path.suffix].parse(path).examples()


# The code of docs/vectors runs in tests/docs/test_vectors.py, which checks its results.
RUN_HERE = [path for path in [*PAGES, *MODULES] if path.parent.name != "vectors" or path in MODULES]


@pytest.mark.parametrize("path", RUN_HERE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_run(path, texts):
    for example in examples(path):
        try:
            example.evaluate()
        except SkipTest as skipped:
            assert str(skipped) in REASONS, f"{path.name}, line {example.line}"


def test_only_listed_blocks_are_skipped():
    pages, modules = (
        "\n".join(path.read_text(encoding="utf-8") for path in paths) for paths in (PAGES, MODULES)
    )
    assert Counter(re.findall(r'skip: next "(.*)"', pages)) == REASONS
    assert not re.search("skip: (start|end|next if)|doctest: .SKIP", pages)
    assert modules.count("doctest: +SKIP") == 1  # of embed_cluster, which starts processes


def test_every_page_with_code_has_examples():
    counts = {path.name: len([*examples(path)]) for path in PAGES if "```python" in path.read_text()}
    assert min(counts.values()) > 0
    assert sum(counts.values()) > 30


def commands(page):
    """Return the arguments of each ``nemo-embed`` command in a page's blocks of shell commands."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    blocks += re.findall(r"^ {4}\S.*$", text, re.MULTILINE)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [
        shlex.split(line.partition(" | ")[0], comments=True)[1:]
        for line in lines
        if line.startswith("nemo-embed ")
    ]


COMMANDS = [(page.name, given) for page in [ROOT / "README.md", *PAGES] for given in commands(page)]


@pytest.mark.parametrize(("page", "given"), COMMANDS, ids=str)
def test_commands_are_accepted(page, given):
    context = main.make_context("nemo-embed", [*given])
    name, command, rest_of_line = main.resolve_command(context, context._protected_args + context.args)
    command.make_context(name, rest_of_line, parent=context)
