"""A pipeline that was written for crossfit: same columns, same vectors as our stages'."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from nemo_embed_dask import ConfigError, crossfit, embed, to_matrix
from nemo_embed_dask import crossfit as cf

from .helpers.tiny import TEXT

# crossfit 0.0.9's parameters, in its order, and its defaults.
SIGNATURES = {
    cf.HFModel: "path_or_name max_mem_gb=16 model_output_type='numeric' training=False start_batch_size=1 "
    "end_batch_size=2048 batch_size_increment=256 start_seq_len=1 seq_len_increment=64",
    cf.op.Tokenizer: "model tokenizer_type='subword' cols=None keep_cols=None pre=None max_length=None max_chars=None",
    cf.op.Embedder: "model pre=None cols=False keep_cols=None batch_size=512 max_mem='16GB' sorted_data_loader=True "
    "model_output_col='sentence_embedding' pred_output_col='embedding'",
    cf.op.Sequential: "ops pre=None cols=False repartition=None keep_cols=None",
}  # fmt: skip


@pytest.mark.parametrize("call", SIGNATURES)
def test_parameters_are_crossfit_s(call):
    import inspect

    found = [
        name if p.default is p.empty else f"{name}={p.default!r}"
        for name, p in inspect.signature(call).parameters.items()
    ]
    assert " ".join(found) == SIGNATURES[call]


@pytest.fixture
def frame():
    text = [*TEXT, None, "", *TEXT]
    index = pd.Index(np.arange(len(text))[::-1] // 2, name="key")
    return pd.DataFrame({"text": text, "id": range(len(text)), "more": 1.5}, index=index)


@pytest.fixture(params=["pandas", "dask"])
def data(request, frame):
    return frame if request.param == "pandas" else dd.from_pandas(frame, npartitions=3, sort=False)


def computed(out):
    if isinstance(out, pd.DataFrame):
        return out
    done = out.compute()
    assert out._meta.dtypes.to_dict() == done.dtypes.to_dict()
    return done


def same(found, expected, column="embedding"):
    assert found.index.equals(expected.index)
    assert found[column].isna().tolist() == expected.embeddings.isna().tolist()
    a, b = to_matrix(found[column].dropna()), to_matrix(expected.embeddings.dropna())
    np.testing.assert_allclose(a, b, atol=2e-2)


@pytest.mark.parametrize("keep", [None, ["id"], ["text", "id"]])
def test_a_pipeline(tiny, data, frame, keep):
    model = cf.SentenceTransformerModel(str(tiny("bert")), max_mem_gb=8)
    pipe = cf.op.Sequential(
        cf.op.Tokenizer(model, cols=["text"], tokenizer_type="sentencepiece"),
        cf.op.Embedder(model, batch_size=64),
        keep_cols=keep,
    )
    out = computed(pipe(data))
    assert out.columns.tolist() == [*(keep or []), "embedding"]
    same(out, embed(frame, model_identifier=str(tiny("bert")), embedding_pooling="auto"))


def test_the_two_operations_one_by_one(tiny, data, frame):
    model = cf.HFModel(str(tiny("bert")))
    tokens = cf.op.Tokenizer(model, cols=["text"], keep_cols=["id"], max_length=9, max_chars=30)(data)
    assert computed(tokens).columns.tolist() == ["id", "input_ids"]
    out = cf.op.Embedder(model, keep_cols=["id"], pred_output_col="v", sorted_data_loader=False)(tokens)
    assert computed(out).columns.tolist() == ["id", "v"]
    knobs = {"embedding_pooling": "auto", "max_seq_length": 9, "max_chars": 30}
    same(computed(out), embed(frame, model_identifier=str(tiny("bert")), **knobs), "v")


def _shout(part):
    return part.assign(text=part.text.str.upper())


def _lower(part):
    return part.assign(text=part.text.str.lower())


def test_pre_repartition_and_custom_functions(tiny, data, frame):
    model = cf.SentenceTransformerModel(str(tiny("roberta")))
    pipe = cf.op.Sequential(
        lambda df: df[["text", "id"]],
        cf.op.Tokenizer(model, cols=["text"], pre=_lower),
        cf.op.Embedder(model),
        pre=_shout, repartition=2, keep_cols=["id"],
    )  # fmt: skip
    out = pipe(data)
    assert isinstance(out, pd.DataFrame) or out.npartitions == 2
    same(computed(out), embed(_lower(frame), model_identifier=str(tiny("roberta")), embedding_pooling="auto"))


def test_a_pair_of_one_model_is_one_task(tiny, frame, monkeypatch):
    model, other = (cf.HFModel(str(tiny(kind))) for kind in ("bert", "roberta"))
    monkeypatch.setattr(crossfit, "TokenizerStage", lambda *_, **__: pytest.fail("tokens were made a column"))
    tokenize = cf.op.Tokenizer(model, cols=["text"])
    assert len(cf.op.Sequential(tokenize, cf.op.Embedder(model))(frame)) == len(frame)
    for last in (
        cf.op.Embedder(other),
        cf.op.Embedder(model, pre=_shout),
        cf.op.Embedder(model, keep_cols=["id"]),
    ):
        with pytest.raises(pytest.fail.Exception, match="tokens were made"):
            cf.op.Sequential(tokenize, last)(frame)


def test_unsupported_values_are_errors(tiny):
    model = cf.HFModel(str(tiny("bert")))
    for cols in (None, "text", [], ["a", "b"]):
        with pytest.raises(ConfigError, match="one Tokenizer per column"):
            cf.op.Tokenizer(model, cols=cols)
    with pytest.raises(ConfigError, match="only 'sentence_embedding'"):
        cf.op.Embedder(model, model_output_col="logits")
    for wrong in ({"model_output_type": "string"}, {"training": True}):
        with pytest.raises(ConfigError, match="leave model_output_type and training"):
            cf.HFModel("m", **wrong)
    with pytest.raises(ConfigError, match="Mine overrides load_model"):

        class Mine(cf.HFModel):
            def load_model(self, device="cuda"):
                return None
