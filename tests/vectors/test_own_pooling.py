"""Poolings that are assumed, and models of other kinds: tests of `nemo_embed_dask.vectors.own_pooling`."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import CrossEncoder

from nemo_embed_dask import EmbeddingCreatorStage, EmbeddingModelStage, embed, to_matrix
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import ModelCard, read_card
from nemo_embed_dask.stage_settings import DefaultPooling
from nemo_embed_dask.vectors.own_pooling import check_pooling, warn_of_pooling

from ..helpers.cards import TEXTS, alone, build, rewrite
from ..helpers.colberts import pylate
from ..helpers.sparse import language_model, splade

DEFAULT = EmbeddingCreatorStage().embedding_pooling


def silent(card, pooling):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_pooling(card, pooling)


def test_the_default_is_curators_and_can_be_told_apart():
    assert DEFAULT == "mean_pooling"
    assert isinstance(EmbeddingModelStage("m").pooling, DefaultPooling)
    stage = EmbeddingCreatorStage(max_chars=3)
    assert isinstance(stage.settings.pooling, DefaultPooling)
    assert isinstance(pickle.loads(pickle.dumps(stage)).settings.pooling, DefaultPooling)
    assert isinstance(replace(stage, max_chars=4).settings.pooling, DefaultPooling)
    assert isinstance(stage.decompose()[1].settings.pooling, DefaultPooling)
    named = EmbeddingCreatorStage(embedding_pooling="mean_pooling")
    assert not isinstance(named.settings.pooling, DefaultPooling)
    assert named.settings == replace(stage, max_chars=None).settings


def test_one_warning_says_what_was_assumed_and_why(tiny, tmp_path):
    card = read_card(rewrite(tiny("bert"), tmp_path / "some model"))
    with pytest.warns(
        UserWarning, match="'some model' does not say .* 'mean_pooling' is used, Curator's default"
    ):
        warn_of_pooling(card, DEFAULT)
    silent(card, DEFAULT)  # given once
    silent(read_card(rewrite(tiny("bert"), tmp_path / "b")), "mean_pooling")
    silent(read_card(build(tiny("bert"), tmp_path / "c", pooling="mean")), DEFAULT)


def test_the_warning_names_what_sentence_transformers_would_take(tmp_path):
    card = ModelCard(path=tmp_path / "decoder", max_seq_length=8, pooling="last_token")
    with pytest.warns(
        UserWarning, match="Curator's default, and sentence-transformers would take 'last_token'"
    ):
        warn_of_pooling(card, DEFAULT)
    with pytest.warns(UserWarning, match="'last_token' is used, sentence-transformers' default"):
        warn_of_pooling(card, "auto")


@pytest.mark.parametrize("pooling", [DEFAULT, "auto"])
@pytest.mark.parametrize(
    "architecture", ["BertForSequenceClassification", "BertForTokenClassification", "BertReranker"]
)
def test_models_with_another_head_are_refused_by_name(architecture, pooling, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"architectures": [architecture]})
    frame = pd.DataFrame({"text": ["a"]})
    with pytest.raises(ModelError, match=f"is a {architecture}, which was not made for embeddings"):
        embed(frame, model_identifier=str(path), embedding_pooling=pooling)
    for named in ("mean_pooling", "cls"):
        embed(frame, model_identifier=str(path), embedding_pooling=named)


def test_a_cross_encoder_is_refused_unless_the_pooling_is_named(tiny, tmp_path):
    """As sentence-transformers 4 saved it, and as the installed version does."""
    CrossEncoder(str(tiny("bert")), num_labels=1, device="cpu").model.save_pretrained(tmp_path / "old")
    CrossEncoder(str(tiny("bert")), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "new"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "old" / name).write_bytes((tiny("bert") / name).read_bytes())
    frame = pd.DataFrame({"text": ["a", "b c"]})
    for name in ("old", "new"):
        with pytest.raises(ModelError):
            embed(frame, model_identifier=str(tmp_path / name))
    with pytest.raises(ModelError, match="'new' is a CrossEncoder, which was not made for embeddings"):
        embed(frame, model_identifier=str(tmp_path / "new"), embedding_pooling="auto")
    plain = embed(frame, model_identifier=str(tiny("bert")), embedding_pooling="cls", autocast=False)
    for name in ("old", "new"):
        named = embed(frame, model_identifier=str(tmp_path / name), embedding_pooling="cls", autocast=False)
        np.testing.assert_allclose(to_matrix(named.embeddings), to_matrix(plain.embeddings), atol=1e-6)


@pytest.mark.parametrize(("own", "what"), [("none", "vectors of tokens"), ("splade", "weights of tokens")])
def test_models_for_lists_say_which_pooling_to_pass(own, what, tmp_path):
    card = ModelCard(path=tmp_path / "m", max_seq_length=8, pooling=own, has_modules=True)
    for pooling in (DEFAULT, "auto"):
        with pytest.raises(ModelError, match=f"was made for {what} .*pass embedding_pooling='{own}'"):
            check_pooling(card, pooling)
    with pytest.warns(UserWarning, match=f"was made with '{own}'"):
        warn_of_pooling(card, "cls")


def refused(path, pooling, match):
    with pytest.raises(ModelError, match=match):
        embed(pd.DataFrame({"text": ["a"]}), model_identifier=str(path), embedding_pooling=pooling)


@pytest.mark.parametrize(("kind", "named"), [("ColBERT", "a ColBERT"), ("left out", "a ColBERT model")])
def test_token_vectors_need_the_layers_of_the_model(kind, named, tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m", model_type=kind)
    (path / "modules.json").unlink()
    lost = (
        f"'m' is {named}, .*modules.json is missing, which lists the modules of {named}: fetch the model again"
    )
    refused(path, "none", lost)
    refused(path, DEFAULT, f"{lost}, and pass embedding_pooling='none'")
    embed(pd.DataFrame({"text": ["a"]}), model_identifier=str(path), embedding_pooling="cls")
    (path / "config_sentence_transformers.json").unlink()
    (path / "config.json").write_text((path / "config.json").read_text().replace("BertModel", "ColBERTModel"))
    refused(path, "none", "'m' is a ColBERTModel, .*modules.json is missing")
    refused(path, "auto", "'m' is a ColBERTModel, .*modules.json is missing")


def test_weights_of_tokens_need_the_pooling_of_the_model(tiny, tmp_path):
    model = language_model(tiny("bert"), tmp_path / "lm")
    path = splade(model, tmp_path / "m", strategy="sum")
    (path / "modules.json").unlink()
    frame = pd.DataFrame({"text": ["a"]})
    for named in ("a SparseEncoder", "a SPLADE model"):
        lost = f"'m' is {named}, .*modules.json is missing, which lists the modules of {named}: fetch"
        refused(path, "splade", lost)
        refused(path, DEFAULT, f"{lost} the model again, and pass embedding_pooling='splade'")
        if named == "a SparseEncoder":
            embed(frame, model_identifier=str(path), embedding_pooling="cls")
            (path / "config_sentence_transformers.json").unlink()
    named_by_class = rewrite(model, tmp_path / "class", config={"architectures": ["SpladeForMaskedLM"]})
    refused(named_by_class, DEFAULT, "'class' was made for weights of tokens .*pass embedding_pooling='splade'")
    embed(frame, model_identifier=str(named_by_class), embedding_pooling="splade")


def test_a_list_of_modules_without_a_pooling_is_called_so(tiny, tmp_path):
    only = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    card = read_card(rewrite(tiny("bert"), tmp_path / "m", modules=[only]))
    with pytest.warns(UserWarning, match=r"pooled \(its modules.json lists no pooling\): 'mean_pooling'"):
        warn_of_pooling(card, DEFAULT)


def test_auto_without_modules_is_what_sentence_transformers_does(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    with pytest.warns(UserWarning, match="sentence-transformers' default"):
        out = embed(
            pd.DataFrame({"text": TEXTS}), model_identifier=str(path), embedding_pooling="auto", autocast=False
        )
    np.testing.assert_allclose(to_matrix(out.embeddings), alone(path, TEXTS), atol=1e-5)
