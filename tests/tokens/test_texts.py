"""Texts that cannot be tokenized, wherever the fault is in them."""

from __future__ import annotations

import pytest

from nemo_embed_dask.errors import RowError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.texts import tokenize_texts

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
