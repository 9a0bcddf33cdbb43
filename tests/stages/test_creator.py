from __future__ import annotations

import inspect
import pickle
from dataclasses import fields

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import nemo_embed_dask as ned
from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, EmbeddingModelStage, TokenizerStage
from nemo_embed_dask.stages import INPUT_ID_FIELD

from ..helpers.tiny import TEXT

CURATOR = {
    "model_identifier": "sentence-transformers/all-MiniLM-L6-v2", "text_field": "text",
    "embedding_field": "embeddings", "max_chars": None, "max_seq_length": None, "padding_side": "right",
    "embedding_pooling": "mean_pooling", "model_inference_batch_size": 1024, "autocast": True,
    "sort_by_length": True, "hf_token": None,
}  # fmt: skip
OTHER = {
    "model_identifier": "test-model", "text_field": "content", "embedding_field": "vectors", "max_chars": 1000,
    "max_seq_length": 256, "padding_side": "left", "embedding_pooling": "last_token",
    "model_inference_batch_size": 128, "autocast": False, "sort_by_length": False, "hf_token": "test-token",
}  # fmt: skip


def test_parameters_and_defaults_are_curator_s():
    parameters = inspect.signature(EmbeddingCreatorStage).parameters
    assert [*parameters][: len(CURATOR)] == [*CURATOR]
    assert {name: parameters[name].default for name in CURATOR} == CURATOR
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())


def test_decompose_forwards_every_parameter():
    stage = EmbeddingCreatorStage(**OTHER)
    tokenizer, model = stage.decompose()
    assert (type(tokenizer), type(model)) == (TokenizerStage, EmbeddingModelStage)
    renamed = {"embedding_pooling": "pooling", "sort_by_length": "has_seq_order"}
    for name, value in OTHER.items():
        owners = [part for part in (tokenizer, model) if hasattr(part, name) and name != "max_seq_length"]
        assert all(getattr(owner, name) == value for owner in owners), name
        if name in renamed:
            assert getattr(model, renamed[name]) == value
        else:
            assert owners or tokenizer.max_seq_length == 256, name
    assert tokenizer.max_seq_length == 256
    assert tokenizer.unk_token is False
    # This one has become the pooling.
    for extra in {f.name for f in fields(stage)} - {*OTHER, "use_sentence_transformer"}:
        assert any(hasattr(part, extra) for part in (tokenizer, model)), extra


def test_inputs_and_outputs():
    stage = EmbeddingCreatorStage(text_field="content", embedding_field="vectors")
    tokenizer, model = stage.decompose()
    assert stage.inputs() == tokenizer.inputs() == (["data"], ["content"])
    assert stage.outputs() == model.outputs() == (["data"], ["vectors"])
    assert tokenizer.outputs() == (["data"], ["content", INPUT_ID_FIELD])
    assert model.inputs() == (["data"], [INPUT_ID_FIELD])


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_the_composite_equals_its_stages(tiny, kind, lazy):
    frame = pd.DataFrame({"text": [*TEXT, None, "", TEXT[0]]}, index=[5, 5, 4, 3, 2, 1, 0, 9])
    stage = EmbeddingCreatorStage(
        model_identifier=str(tiny(kind)), autocast=False, embedding_pooling="last_token", max_seq_length=12
    )
    tokenizer, model = stage.decompose()
    df = dd.from_pandas(frame, npartitions=2, sort=False) if lazy else frame
    whole, parts = df.pipe(stage), df.pipe(tokenizer).pipe(model)
    if lazy:
        assert whole._meta.dtypes.to_dict() == parts._meta.dtypes.to_dict()
        whole, parts = whole.compute(), parts.compute()
    assert whole.columns.tolist() == parts.columns.tolist() == ["text", "embeddings"]
    pd.testing.assert_index_equal(whole.index, parts.index)
    assert whole.embeddings.isna().tolist() == parts.embeddings.isna().tolist()
    a, b = (ned.to_matrix(x.embeddings.dropna()) for x in (whole, parts))
    np.testing.assert_allclose(a, b, atol=1e-6)


BAD = [
    ({"embedding_pooling": "median"}, "embedding_pooling='median'.*mean_pooling"),
    ({"padding_side": "middle"}, "padding_side='middle'.*left, right"),
    ({"on_error": "ignore"}, "on_error"),
    ({"max_chars": 0}, "max_chars=0 must be a positive"),
    ({"max_seq_length": -1}, "max_seq_length=-1"),
    ({"model_inference_batch_size": 0}, "model_inference_batch_size=0"),
    ({"model_inference_batch_size": 1.5}, "model_inference_batch_size=1.5"),
    ({"model_inference_batch_size": True}, "model_inference_batch_size=True"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD)
def test_values_that_cannot_work_are_refused_at_once(parameters, message):
    with pytest.raises(ConfigError, match=message):
        EmbeddingCreatorStage(**parameters)


def test_a_stage_is_a_value_and_keeps_its_secret():
    stage = EmbeddingCreatorStage(hf_token="hf_secret")
    assert stage == EmbeddingCreatorStage(hf_token="hf_other")
    assert "hf_secret" not in repr(stage) + repr(stage.decompose()) + repr(stage.settings)
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert pickle.loads(pickle.dumps(stage)).hf_token is None
    with pytest.raises(AttributeError):
        stage.text_field = "other"


def test_embed_is_the_stage(tiny):
    frame = pd.DataFrame({"body": TEXT})
    parameters = {"model_identifier": str(tiny("bert")), "text_field": "body", "embedding_field": "v"}
    out = frame.pipe(ned.embed, **parameters)
    np.testing.assert_array_equal(
        ned.to_matrix(out.v), ned.to_matrix(EmbeddingCreatorStage(**parameters).process(frame).v)
    )


def test_setup_loads_tokenizer_and_model_once(tiny):
    from nemo_embed_dask import runtimes

    runtimes.unload()
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), autocast=False)
    stage.setup_on_node()
    stage.setup()
    stage.setup()
    assert len(runtimes._loaded) == 1
