"""docs/guide/which-models-work.md: what it says to pass is accepted, and gives right vectors without a warning."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, to_matrix

from .helpers.cards import build, load
from .helpers.own_code import make_own

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/guide/which-models-work.md").read_text(encoding="utf-8")
TEXTS = ["A text, with two marks.", "人人生而自由，在尊严和权利上一律平等。", "one more text"]
QUERY = {"prompts": {"query": "query: "}}
# name -> (architecture, its head), for the layouts that are loaded here
LAYOUTS = {
    "bert, mean": ("bert", {"pooling": "mean", "normalize": True}),
    "bert, cls": ("bert", {"pooling": "cls", "normalize": True, **QUERY}),
    "bert, cls, Dense": ("bert", {"pooling": "cls", "dense": "tanh", "normalize": True}),
    "distilbert, mean, Dense": ("distilbert", {"pooling": "mean", "dense": "tanh"}),
    "mpnet, mean": ("mpnet", {"pooling": "mean", "normalize": True}),
    "mpnet, cls": ("mpnet", {"pooling": "cls"}),
    "roberta, cls": ("roberta", {"pooling": "cls", "normalize": True}),
    "xlm-roberta, mean": ("xlm-roberta", {"pooling": "mean", "normalize": True}),
    "xlm-roberta, cls": ("xlm-roberta", {"pooling": "cls", "normalize": True, **QUERY}),
    "modernbert, mean": ("modernbert", {"pooling": "mean", "normalize": True}),
    "modernbert, cls": ("modernbert", {"pooling": "cls"}),
    "t5, mean, Dense": ("t5", {"pooling": "mean", "dense": "none", "normalize": True}),
    "nomic_bert, mean": ("nomic_bert", {"pooling": "mean", "normalize": True}),
    "embeddinggemma, mean, two Dense": (
        "embeddinggemma",
        {"pooling": "mean", "dense": "none twice", "normalize": True,
         "prompts": {"query": "task: search result | query: ", "document": "title: none | text: "}},
    ),
    "qwen3, last token": (
        "qwen3",
        {"pooling": "lasttoken", "normalize": True, "prompts": {"query": "Instruct: x\nQuery:", "document": ""}},
    ),
    "mistral, last token": ("mistral", {"pooling": "lasttoken", "normalize": True, **QUERY}),
}  # fmt: skip


def tables(first, second):
    """Return the rows of all tables whose header begins with these two columns."""
    rows, wanted = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("|") else []
        if not cells or cells[:2] == [first, second]:
            wanted = bool(cells)
        elif wanted and set(cells[0]) != {"-"}:
            rows.append(cells)
    return rows


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def arguments(cell):
    """Return the keyword arguments in a cell, such as ``prompt="passage: "``."""
    call = ast.parse(f"f({cell.strip('`')})", mode="eval").body
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}


WORKING, REFUSED = tables("Model", "Pass"), tables("Model", "Why")
TESTED = {
    layout: (names(file)[0], names(mention)[0]) for layout, file, mention in tables("Layout", "Tested in")
}
LOADED = sorted({(row[3], row[1]) for row in WORKING if row[3] in LAYOUTS})


def test_the_page_has_all_its_rows():
    assert all(len(row) == 5 for row in WORKING + REFUSED)
    models = [name for row in WORKING + REFUSED for name in names(row[0])]
    assert len(models) == len(set(models)) > 80
    assert all(name.count("/") == 1 for name in models)
    assert {row[4] for row in WORKING} == {"files", "partly", "no"}


@pytest.mark.parametrize("row", WORKING, ids=lambda row: row[0].strip("`"))
def test_a_stage_takes_what_to_pass(row, tmp_path):
    given, models = arguments(row[1]), names(row[0])
    if given.get("trust_remote_code"):  # a stage looks up the commit, and there is no hub here
        models = [str(make_own(tmp_path / "m"))]
    for name in models:
        stage = EmbeddingCreatorStage(model_identifier=name, **given)
        assert {key: getattr(stage, key) for key in given} == given


def test_each_layout_is_tested():
    used = {row[3] for row in WORKING + REFUSED} - {""}
    assert used | {"qwen2 bidirectional"} == TESTED.keys()
    for file, mention in TESTED.values():
        assert mention in (ROOT / file).read_text(encoding="utf-8"), (file, mention)
    here = {layout for layout, (file, _) in TESTED.items() if file == "tests/test_docs_which_models.py"}
    assert here == LAYOUTS.keys() == {layout for layout, _ in LOADED}


@pytest.mark.parametrize(("layout", "cell"), LOADED, ids=str)
def test_what_to_pass_gives_the_vectors_of_documents(layout, cell, tiny, tmp_path):
    """The reference is sentence-transformers, one text at a time. No warning is given."""
    kind, head = LAYOUTS[layout]
    path, given = build(tiny(kind), tmp_path / "m", **head), arguments(cell)
    model = load(path)
    if "prompt" in given:
        expected = model.encode(TEXTS, batch_size=1, prompt=given["prompt"])
    else:
        expected = model.encode_document(TEXTS, batch_size=1)
    stage = EmbeddingCreatorStage(model_identifier=str(path), autocast=False, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = stage(pd.DataFrame({"text": TEXTS}))
    np.testing.assert_allclose(to_matrix(found.embeddings), expected, atol=1e-5)
