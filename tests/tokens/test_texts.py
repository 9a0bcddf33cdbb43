"""Texts that cannot be tokenized, wherever the fault is in them."""

from __future__ import annotations

import pytest

from nemo_embed_dask.errors import RowError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.tokens.texts import tokenize_slabs, tokenize_texts

from ..helpers.static import make_model2vec

BAD = "word " * 60 + "\ud800"


@pytest.mark.parametrize("long_documents", ["truncate", "mean", "explode"])
@pytest.mark.parametrize("kind", ["bert", "model2vec"])
def test_a_fault_far_into_a_text_fails_only_its_row(kind, long_documents, tiny, tmp_path):
    path = tiny("bert") if kind == "bert" else make_model2vec(tiny("bert"), tmp_path / "m")
    settings = Settings(ModelRef(str(path)), long_documents=long_documents, on_error="null")
    texts = ["good", BAD, None, "also good", BAD, "\ud800"]
    out = tokenize_texts(texts, settings)
    assert out.failures == dict.fromkeys([1, 4, 5], "not valid text: a lone surrogate or invalid UTF-8")
    if long_documents != "explode":
        assert out.valid.tolist() == [True, False, False, True, False, False]
    with pytest.raises(RowError, match="row 1 and 2 more rows: not valid text"):
        tokenize_texts(texts, Settings(ModelRef(str(path)), long_documents=long_documents))


def test_what_is_not_read_cannot_fail(tiny):
    settings = Settings(ModelRef(str(tiny("bert"))), max_seq_length=8)
    assert tokenize_texts(["word " * 1000 + "\ud800"], settings).failures == {}


def slabs_of(texts, settings, **limits):
    """The tokens of each slab, and its number of texts."""
    slabs = tokenize_slabs(texts, find_reader(settings), settings, **limits)
    return [(len(tokens.ids.values), len(tokens.ids)) for _, tokens in slabs]


@pytest.mark.parametrize(("text", "limit"), [("a fox and a dog ", 64), ("a fox and a dog " * 400, 256)])
def test_slabs_have_about_as_many_tokens_as_wanted(text, limit, minilm):
    """Whether the texts are short, or far longer than the limit."""
    settings = Settings(ModelRef(str(minilm)), max_seq_length=limit)
    count = 1 << 17
    each = slabs_of([text], settings, max_rows=9)[0][0]
    texts = [text] * (6 * count // each)
    slabs = slabs_of(texts, settings, max_rows=1 << 16, max_tokens=count)
    assert sum(rows for _, rows in slabs) == len(texts)
    assert 0.8 * count < slabs[0][0] < 1.25 * count
    assert all(tokens < 1.25 * count for tokens, _ in slabs)


def test_a_partition_has_several_slabs_unless_they_would_be_small(tiny):
    settings = Settings(ModelRef(str(tiny("bert"))))
    limits = {"max_rows": 1 << 20, "max_tokens": 1 << 30}
    assert len(slabs_of(["a fox and a dog"] * 100, settings, **limits)) == 1
    assert 4 <= len(slabs_of(["a fox"] * 200_000, settings, **limits)) <= 5


def test_slabs_that_are_limited_by_tokens_are_limited_by_characters_too(tiny, monkeypatch):
    monkeypatch.setattr("nemo_embed_dask.tokens.texts._SLAB_CHARS", 1 << 21)
    settings = Settings(ModelRef(str(tiny("bert"))), max_seq_length=8)
    texts = ["word " * 100_000] * 9
    assert slabs_of(texts, settings, max_rows=99, max_tokens=1 << 19) == [(32, 4), (32, 4), (8, 1)]
