"""Static models against both libraries that write them, and in everything that this package does with a model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer

from nemo_embed_dask import EmbeddingCreatorStage, EmbeddingModelStage, TokenizerStage, embed_parquet
from nemo_embed_dask.checks.calibration import calibrate
from nemo_embed_dask.checks.estimate import plan
from nemo_embed_dask.checks.verification import verify
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.static import MODEL2VEC, MODEL2VEC_VECTORS, TEXTS, make_model2vec, make_st

STORED = json.loads(MODEL2VEC_VECTORS.read_text())
KINDS = ("bert", "roberta", "xlm-roberta")


def embed(path, texts=TEXTS, **changes):
    return embed_texts(texts, Settings(ModelRef(str(path)), **{"pooling": "auto", **changes}))


def theirs(path, texts=TEXTS, **options):
    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    return model.encode(list(texts), show_progress_bar=False, **options)


@pytest.mark.parametrize("name", MODEL2VEC)
def test_vectors_of_model2vec(name, minilm, tmp_path):
    path = make_model2vec(minilm, tmp_path / "m", dimension=8, **MODEL2VEC[name])
    out = embed(path)
    assert out.matrix.dtype == torch.float32
    accuracy = 1e-3 if name == "float16" else 1e-6  # model2vec then returns float16
    np.testing.assert_allclose(out.matrix, STORED[name], rtol=accuracy, atol=accuracy)


def test_the_stored_vectors_of_model2vec_differ_in_what_is_tested():
    rows = {name: np.array(STORED[name]) for name in MODEL2VEC}
    assert not rows["normalized"][2].any()  # no text
    assert not rows["normalized"][4].any()  # only unknown tokens
    assert (rows["normalized"][:2] == rows["20 tokens"][:2]).all()
    assert (rows["normalized"][7] != rows["any number"][7]).any()
    for name in MODEL2VEC.keys() - {"normalized", "20 tokens", "any number"}:
        assert np.abs(rows[name] - rows["normalized"])[0].max() > 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["none", "normalize", "dense"])
def test_vectors_of_sentence_transformers(head, kind, tiny, tmp_path):
    after = {
        "none": [],
        "normalize": [modules.Normalize()],
        "dense": [modules.Dense(16, 8), modules.Normalize()],
    }
    path = make_st(tiny(kind), tmp_path / "m", *after[head])
    np.testing.assert_allclose(embed(path).matrix, theirs(path), atol=1e-6)


@pytest.mark.parametrize("direction", ["right", "left"])
def test_sentence_transformers_truncates_on_either_side(direction, tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m", truncation=9)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.enable_truncation(9, direction=direction)
    tokenizer.save(str(path / "tokenizer.json"))
    out = embed(path)
    np.testing.assert_allclose(out.matrix, theirs(path), atol=1e-6)
    assert out.truncated[6]
    assert out.n_tokens.max() == 9


@pytest.mark.parametrize("prompt_name", [None, "query"])
def test_prompts_and_widths(prompt_name, tiny, tmp_path):
    options = {"prompts": {"query": "query: ", "doc": "fox "}, "default_prompt_name": "doc", "truncate_dim": 8}
    path = make_st(tiny("bert"), tmp_path / "m", **options)
    got = embed(path, prompt_name=prompt_name).matrix
    np.testing.assert_allclose(got, theirs(path, prompt_name=prompt_name), atol=1e-6)
    assert not np.allclose(got, embed(path, prompt="").matrix)


def test_texts_without_tokens_have_vectors_of_zeros_and_nulls_have_none(tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", normalize=True)
    out = embed(path, ["", None, "ꙮ", "fox", " "])
    assert out.valid.tolist() == [True, False, True, True, True]
    assert out.matrix.any(dim=1).tolist() == [False, False, False, True, False]
    assert (out.stats.nulls, out.failures) == (1, {})


@pytest.mark.parametrize("pooling", ["max", "cls", "last_token", "weighted_mean", "mean_pooling+max"])
def test_other_poolings_take_the_vectors_of_the_tokens(pooling, tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", shared=True, weighted=True)
    with pytest.warns(UserWarning, match="was made with 'mean_pooling'"):
        verdict = verify(
            EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling=pooling),
            TEXTS,
            third_opinion=False,
        )
    assert verdict.minimum > 1 - 1e-6


def test_the_default_pooling_is_the_model_s_own(tiny, tmp_path, recwarn):
    path = make_st(tiny("bert"), tmp_path / "m")
    expected = torch.nn.functional.normalize(torch.from_numpy(theirs(path)), dim=1)
    np.testing.assert_allclose(embed(path, pooling="mean_pooling").matrix, expected, atol=1e-6)
    assert not [w for w in recwarn if "pooling" in str(w.message)]


def test_options_that_need_a_transformer_are_refused(tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m")
    with pytest.raises(ConfigError, match="model 'm' is static: it has no transformer that runtime='openvino'"):
        embed(path, runtime="openvino")
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_text("{}")
    with pytest.raises(ConfigError, match="model 'm' is static, so that no adapter fits it"):
        embed(path, adapter=str(tmp_path / "adapter"))


def test_token_vectors_are_rows_of_the_table(tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", normalize=True)
    rows = load_file(path / "model.safetensors")["embeddings"]
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    unknown = tokenizer.token_to_id("[UNK]")
    frame = pd.DataFrame({"text": TEXTS[:6]})
    stage = EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling="none", normalize=False)
    for text, vectors in zip(TEXTS, stage(frame).embeddings, strict=False):
        ids = [index for index in tokenizer.encode(text, add_special_tokens=False).ids if index != unknown]
        assert len(vectors) == len(ids)  # none for a text without tokens
        if ids:
            np.testing.assert_array_equal(np.array([list(v) for v in vectors], np.float32), rows[ids])


@pytest.mark.parametrize("layout", ["sentence-transformers", "model2vec"])
def test_windows_of_long_documents(layout, tiny, tmp_path):
    make = {"sentence-transformers": make_st, "model2vec": make_model2vec}[layout]
    path = make(tiny("bert"), tmp_path / "m")
    exploded = embed(path, long_documents="explode", max_seq_length=16)
    origins = exploded.origins
    for row, text in enumerate(TEXTS):
        windows = origins.text_positions == row
        pieces = zip(origins.char_start[windows], origins.char_end[windows], strict=True)
        assert "".join(text[start:end] for start, end in pieces) == text
    mean = embed(path, long_documents="mean", max_seq_length=16).matrix
    whole = embed(path, max_seq_length=1 << 30).matrix
    np.testing.assert_allclose(mean, whole, rtol=1e-4, atol=1e-5)  # the mean of means, weighted by their tokens


def test_two_stages_one_stage_and_a_job_give_the_same_vectors(tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", normalize=True)
    frame = pd.DataFrame({"text": [*TEXTS, None, TEXTS[0]]})
    one = frame.pipe(EmbeddingCreatorStage(model_identifier=str(path), n_tokens_field="n"))
    two = frame.pipe(TokenizerStage(str(path))).pipe(EmbeddingModelStage(str(path)))
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "texts.parquet")
    report = embed_parquet(
        EmbeddingCreatorStage(model_identifier=str(path)),
        str(tmp_path / "texts.parquet"),
        str(tmp_path / "out"),
    )
    assert report.complete
    job = pq.read_table(tmp_path / "out").column("embeddings").to_pylist()
    expected = embed(path, [*TEXTS, None, TEXTS[0]]).matrix.numpy()
    for row in range(len(frame)):
        found = [one.embeddings[row], two.embeddings[row], job[row]]
        if row == len(TEXTS):
            assert all(vector is None or vector is pd.NA for vector in found)
        else:
            assert all((np.asarray(vector, np.float32) == expected[row]).all() for vector in found)
    assert one.n[0] == len(Tokenizer.from_file(str(path / "tokenizer.json")).encode(TEXTS[0]).ids) - 2


@pytest.mark.parametrize("layout", ["sentence-transformers", "model2vec"])
def test_verify_plan_and_calibrate(layout, tiny, tmp_path):
    make = {"sentence-transformers": make_st, "model2vec": make_model2vec}[layout]
    path = make(tiny("xlm-roberta"), tmp_path / "m")
    stage = EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling="auto")
    verdict = verify(stage, TEXTS)
    assert verdict.passed
    assert verdict.minimum > 1 - 1e-6
    if layout == "sentence-transformers":
        assert verdict.third_opinion > 1 - 1e-6
    else:  # it reads unknown tokens and whole texts
        assert "it tokenizes 6 of 10 texts differently from model2vec" in verdict.no_third_opinion
    texts = TEXTS * 10
    assert plan(stage, pd.DataFrame({"text": texts}), sample_rows=50, seconds=0).dimension == 16
    ranges = calibrate(stage, texts, tmp_path / "ranges.json")
    stored = replace(stage, embedding_dtype="int8", calibration=ranges)(pd.DataFrame({"text": texts}))
    assert stored.embeddings.dtype.pyarrow_dtype == pa.list_(pa.int8())


def test_verify_sees_a_table_that_was_changed_after_loading(tiny, tmp_path, monkeypatch):
    path = make_st(tiny("bert"), tmp_path / "m")
    from nemo_embed_dask.runtimes import static

    means = static.StaticRuntime.means
    monkeypatch.setattr(static.StaticRuntime, "means", lambda self, ids: means(self, ids).flip(1))
    assert not verify(
        EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling="auto"), TEXTS, third_opinion=False
    ).passed


def test_digests_tell_tables_apart_and_name_float32(tiny, tmp_path):
    first = make_model2vec(tiny("bert"), tmp_path / "first", normalize=True)
    second = make_model2vec(tiny("bert"), tmp_path / "second", normalize=False)
    one, two = (model_digests(Settings(ModelRef(str(path)))) for path in (first, second))
    assert one["weights"] == two["weights"]
    assert one["tokenizer_and_config"] != two["tokenizer_and_config"]
    assert one["computes_in"] == "float32"
