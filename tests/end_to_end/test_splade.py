"""SPLADE models on text: the weights, and their order, of sentence-transformers' SparseEncoder."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import AutoModel, AutoTokenizer

from nemo_embed_dask import EmbeddingCreatorStage, embed, embed_parquet
from nemo_embed_dask.errors import ModelError, RowError
from nemo_embed_dask.vectors.splade import SpladeHead

from ..helpers.cards import TEXTS, rewrite
from ..helpers.own_code import make_own
from ..helpers.sparse import as_version_5, check, language_model, reference, splade
from ..helpers.static import make_model2vec
from ..helpers.versions import NEEDS_OPENVINO

FRAME = pd.DataFrame({"text": pd.array(TEXTS, "string")})


@pytest.fixture
def bert(tiny, tmp_path):
    return language_model(tiny("bert"), tmp_path / "lm")


def options_of(path, **changes):
    return {"model_identifier": str(path), "embedding_pooling": "splade", "autocast": False, **changes}


def compare(path, *, frame=FRAME, expect=None, **changes):
    out = embed(frame, **options_of(path, **changes))
    check(out.embeddings_ids, out.embeddings, reference(path, TEXTS, **(expect or {})))
    return out


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "xlm-roberta", "modernbert"])
@pytest.mark.parametrize(("strategy", "activation"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")])
def test_models_of_sentence_transformers(kind, strategy, activation, tiny, tmp_path):
    source = language_model(tiny(kind), tmp_path / "lm")
    compare(splade(source, tmp_path / "m", strategy=strategy, activation=activation))


def test_models_of_version_5(bert, tmp_path):
    path = as_version_5(splade(bert, tmp_path / "m"))
    out = compare(path, n_tokens_field="n", share_equal_texts=False)
    assert out.n.max() == 40  # what its files say


def test_a_plain_language_model(bert):
    compare(bert)


def test_most_active_tokens(bert, tmp_path):
    path = splade(bert, tmp_path / "m", max_active_dims=7)
    assert compare(path).embeddings.map(len).max() == 7


@pytest.mark.parametrize("batch", [1, 8])
def test_float16_drops_the_weights_that_it_rounds_to_zero(batch, bert, monkeypatch):
    call = SpladeHead.__call__

    def tiny_last(self, *args, **options):
        lists = call(self, *args, **options)
        with torch.inference_mode():
            lists.columns[""][lists.offsets[1:] - 1] = 1e-9
        return lists

    whole = embed(FRAME, **options_of(bert))
    monkeypatch.setattr(SpladeHead, "__call__", tiny_last)
    half = embed(FRAME, **options_of(bert, embedding_dtype="float16", model_inference_batch_size=batch))
    for name in ("embeddings_ids", "embeddings"):
        for found, expected in zip(half[name], whole[name], strict=True):
            np.testing.assert_allclose(found, expected[:-1], rtol=1e-3)


@pytest.mark.parametrize("largest", [1e6, 1e-6])
def test_float16_that_cannot_hold_the_largest_weight_fails_the_row(largest, bert, monkeypatch):
    call = SpladeHead.__call__

    def changed(self, *args, **options):
        lists = call(self, *args, **options)
        with torch.inference_mode():
            lists.columns[""].mul_(largest / lists.columns[""][0])
        return lists

    monkeypatch.setattr(SpladeHead, "__call__", changed)
    options = options_of(bert, embedding_dtype="float16", model_inference_batch_size=1)
    with pytest.raises(RowError, match="float16 cannot hold .*; store float32") as caught:
        embed(FRAME, **options)
    assert "normalize" not in str(caught.value)
    out = embed(FRAME.iloc[:1], on_error="null", **options)
    assert out.embeddings.isna().all() and out.embeddings_ids.isna().all()


def test_prompts(bert, tmp_path):
    path = splade(bert, tmp_path / "m", prompts={"query": "q: ", "document": "the fox: "})
    compare(path, prompt_name="document")
    compare(path, prompt="q: ", expect={"prompt": "q: "})
    plain = embed(FRAME, **options_of(path, prompt=""))
    check(plain.embeddings_ids, plain.embeddings, reference(path, TEXTS, prompt=""))


def test_the_document_side_of_an_inference_free_model(bert, tmp_path):
    document = [Transformer(str(bert), transformer_task="fill-mask"), SpladePooling("max")]
    query = [SparseStaticEmbedding(AutoTokenizer.from_pretrained(bert), frozen=False)]
    router = Router.for_query_document(query_modules=query, document_modules=document)
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(tmp_path / "m"))
    compare(tmp_path / "m")
    with pytest.raises(ModelError, match="SparseStaticEmbedding"):
        embed(FRAME, **options_of(tmp_path / "m", prompt_name="query"))


def test_dask_and_jobs_give_the_same(bert, tmp_path):
    path = splade(bert, tmp_path / "m")
    expected = reference(path, TEXTS)
    out = embed(dd.from_pandas(FRAME, npartitions=3), **options_of(path)).compute()
    check(out.embeddings_ids, out.embeddings, expected)
    FRAME.to_parquet(tmp_path / "in.parquet")
    stage = EmbeddingCreatorStage(**options_of(path))
    embed_parquet(stage, tmp_path / "in.parquet", tmp_path / "out", rows_per_part=3)
    table = pq.read_table(tmp_path / "out").to_pandas()
    check(table.embeddings_ids, table.embeddings, expected)


def test_half_precision_is_near(bert, tmp_path):
    path = splade(bert, tmp_path / "m")
    out = embed(FRAME, **options_of(path, embedding_dtype="float16"))
    assert out.embeddings.dtype == "list<item: halffloat>[pyarrow]"
    for ids, weights, wanted in zip(out.embeddings_ids, out.embeddings, reference(path, TEXTS), strict=True):
        np.testing.assert_allclose(weights, wanted[np.array(ids, int)], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changes", [{"embedding_pooling": "auto"}, {}])
def test_one_vector_per_text_must_be_named(changes, bert, tmp_path):
    path = splade(bert, tmp_path / "m")
    with pytest.raises(ModelError, match=r"weights of tokens .* pass embedding_pooling='splade'"):
        embed(FRAME, model_identifier=str(path), **changes)


def test_a_pooling_that_is_named_pools_the_transformer(bert, tmp_path):
    path = splade(bert, tmp_path / "m")
    with pytest.warns(UserWarning, match=r"was made with 'splade'.*Pass embedding_pooling='splade'"):
        found = embed(FRAME, **options_of(path, embedding_pooling="cls")).embeddings
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    for text, vector in zip(TEXTS, found, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            state = model(**inputs).last_hidden_state[0, 0]
        np.testing.assert_allclose(vector, state / state.norm(), atol=1e-5)


def test_a_model_that_is_saved_again_is_loaded_again(bert, tmp_path):
    path = splade(bert, tmp_path / "m")
    before = compare(path)
    (path / "1_SpladePooling" / "config.json").write_text('{"pooling_strategy": "sum"}')
    assert compare(path).embeddings[0] != before.embeddings[0]


def test_static_models_and_custom_code_have_no_head(tiny, tmp_path):
    static = make_model2vec(tiny("bert"), tmp_path / "static")
    with pytest.raises(ModelError, match="'static' has no masked language model head.*it is a static model"):
        embed(FRAME, **options_of(static))
    own = make_own(tmp_path / "own")
    with (
        pytest.warns(UserWarning, match="runs code in this process"),
        pytest.raises(ModelError, match="'own' has no masked language model head.*leave trust_remote_code out"),
    ):
        embed(FRAME, **options_of(own, trust_remote_code=True))


def test_weights_without_the_head_are_refused(tiny, bert, tmp_path):
    path = rewrite(splade(bert, tmp_path / "m"), tmp_path / "n")
    (path / "model.safetensors").write_bytes((tiny("bert") / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"model 'n' has no masked language model head.*cls\.predictions"):
        embed(FRAME, **options_of(path))


@NEEDS_OPENVINO
def test_openvino_runs_the_transformer(bert, tmp_path):
    pytest.importorskip("openvino")
    compare(splade(bert, tmp_path / "m"), runtime="openvino")
