"""Prompts, and those for documents: tests of `nemo_embed_dask.models.prompts`."""

from __future__ import annotations

import warnings

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from nemo_embed_dask import EmbeddingCreatorStage, embed, to_matrix, verify
from nemo_embed_dask.errors import ConfigError, ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.prompts import find_prompt

from ..helpers.cards import TEXTS, build, rewrite


@pytest.fixture
def with_prompts(tiny, tmp_path):
    """``with_prompts({"query": "q: "})``: the card of a model with these prompts."""

    def make(prompts, name="m", **options):
        path = build(tiny("bert"), tmp_path / f"made {name}", pooling="mean")
        options = {"prompts": prompts, **options}
        return read_card(rewrite(path, tmp_path / name, config_sentence_transformers=options))

    return make


def silent(card, *choice):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return find_prompt(card, *choice)


def test_prompts(tiny, tmp_path):
    options = {"prompts": {"query": "q: ", "doc": "d: "}, "default_prompt_name": "doc"}
    card = read_card(rewrite(tiny("bert"), tmp_path / "m", config_sentence_transformers=options))
    assert find_prompt(card, None, None) == "d: "
    assert find_prompt(card, None, "query") == "q: "
    assert find_prompt(card, "", "query") == ""
    with pytest.raises(ConfigError, match=r"\['doc', 'query'\]"):
        find_prompt(card, None, "passage")
    assert find_prompt(read_card(tiny("bert")), None, None) == ""


def test_missing_default_prompt(tiny, tmp_path):
    for name, text in (("document", ""), ("passage", None)):
        options = {"prompts": {"q": "q: "}, "default_prompt_name": name}
        card = read_card(rewrite(tiny("bert"), tmp_path / name, config_sentence_transformers=options))
        if text is None:
            with pytest.raises(ModelError, match="no prompt 'passage'"):
                find_prompt(card, None, None)
        else:
            assert find_prompt(card, None, None) == text
        assert find_prompt(card, "", None) == ""


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_one_warning_names_a_prompt_for_documents_that_is_not_used(name, with_prompts):
    card = with_prompts({"query": "q: ", name: "for documents: "})
    for choice in ((None, "auto"), ("", None), ("mine: ", None), (None, "query"), (None, name)):
        silent(card, *choice)
    with pytest.warns(UserWarning, match=f"has a prompt for documents, '{name}' .'for documents: '.*'auto'"):
        assert find_prompt(card, None, None) == ""
    assert silent(card, None, None) == ""  # given once
    assert silent(card, None, "auto") == "for documents: "


def test_nothing_is_said_where_there_is_nothing_to_choose(with_prompts):
    for k, prompts in enumerate(({}, {"query": "q: ", "document": ""}, {"query": ""})):
        card = with_prompts(prompts, name=str(k))
        assert silent(card, None, None) == ""
        assert silent(card, None, "auto") == ""
    for prompts in ({"query": "q: "}, {"sts": "s: "}):
        assert silent(with_prompts(prompts, name=str(prompts)), None, None) == ""
    chosen = with_prompts({"document": "d: "}, name="default", default_prompt_name="document")
    assert silent(chosen, None, None) == "d: "


def test_auto_is_the_prompt_for_documents_or_none(with_prompts):
    both = with_prompts({"passage": "p: ", "document": "d: "}, name="both")
    assert find_prompt(both, None, "auto") == "d: "
    hidden = with_prompts({"passage": "p: ", "document": ""}, name="hidden")
    assert find_prompt(hidden, None, "auto") == "p: "
    default = with_prompts({"query": "q: "}, name="default", default_prompt_name="query")
    with pytest.warns(UserWarning, match=r"no prompt for documents .* 'default', which have .* \['query'\]"):
        assert find_prompt(default, None, "auto") == ""
    assert silent(default, None, "auto") == ""  # given once
    none = with_prompts({"sts": "s: ", "document": ""}, name="none", default_prompt_name="sts")
    assert find_prompt(none, None, "auto") == ""
    with pytest.raises(ConfigError, match="has a prompt of this name"):
        find_prompt(with_prompts({"auto": "a: "}, name="named"), None, "auto")


@pytest.mark.parametrize("name", ["retrieval.passage", "search_document", "Document", "s2p-Doc"])
def test_other_names_of_a_prompt_for_documents(name, with_prompts):
    card = with_prompts({"query": "q: ", "document": "", "docs": "x: ", name: "d: "})
    assert silent(card, None, "auto") == "d: "
    with pytest.warns(UserWarning, match=f"has a prompt for documents, '{name}' .'d: '"):
        assert find_prompt(card, None, None) == ""
    exact = with_prompts({name: "d: ", "passage": "p: "}, name="exact")
    assert silent(exact, None, "auto") == "p: "
    two = with_prompts({name: "d: ", "nq-passage": "p: "}, name="two")
    with pytest.raises(ConfigError, match="'two' has several prompts for documents, .*'nq-passage'"):
        find_prompt(two, None, "auto")


def test_auto_does_not_take_a_default_that_encode_document_does_not_take(tiny, tmp_path):
    made = build(tiny("bert"), tmp_path / "made", pooling="mean")
    options = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    path = rewrite(made, tmp_path / "m", config_sentence_transformers=options)
    expected = SentenceTransformer(str(path), device="cpu").encode_document(TEXTS[:3])
    with pytest.warns(UserWarning, match="no prompt for documents"):
        out = embed(
            pd.DataFrame({"text": TEXTS[:3]}), model_identifier=str(path), prompt_name="auto",
            embedding_pooling="auto", autocast=False,
        )  # fmt: skip
    np.testing.assert_allclose(to_matrix(out.embeddings), expected, atol=1e-5)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_vectors_are_those_of_encode_document(include_prompt, tiny, tmp_path):
    made = build(tiny("bert"), tmp_path / "made", pooling="mean", include_prompt=include_prompt)
    prompts = {"prompts": {"query": "q: ", "document": "for documents: "}}
    path = rewrite(made, tmp_path / "m", config_sentence_transformers=prompts)
    model = SentenceTransformer(str(path), device="cpu")
    expected = np.concatenate([model.encode_document([text]) for text in TEXTS])
    options = {"model_identifier": str(path), "embedding_pooling": "auto", "autocast": False}
    frame = pd.DataFrame({"text": TEXTS})
    out = embed(frame, prompt_name="auto", **options)
    np.testing.assert_allclose(to_matrix(out.embeddings), expected, atol=1e-5)
    stage = EmbeddingCreatorStage(prompt_name="auto", **options)
    first, second = stage.decompose()
    np.testing.assert_allclose(to_matrix(second(first(frame)).embeddings), expected, atol=1e-5)
    lazy = dd.from_pandas(frame, npartitions=2).pipe(stage).compute()
    np.testing.assert_allclose(to_matrix(lazy.embeddings), expected, atol=1e-5)
    assert verify(stage, TEXTS[:3], threshold=0.9999).passed
