"""Rows of a GPU's column put together from two tokenizers; on the host, with a stand-in for cuDF's."""

import os

import numpy as np
import pandas as pd
import pytest

from nemo_embed_dask import (
    ColumnError,
    ConfigError,
    EmbeddingCreatorStage,
    ModelError,
    TokenizerStage,
    embed,
    embed_parquet,
)
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens import cudf as module
from nemo_embed_dask.tokens.cudf import tokenize_column
from nemo_embed_dask.tokens.texts import find_reader, tokenize_texts

from ..conftest import CORPORA
from ..helpers.nvtext import OnHost
from ..helpers.tiny import TEXT

EVERY = int(os.environ.get("NEMO_EMBED_EVERY", "20"))  # 1 for all rows of the corpora


class Watched(OnHost):
    """Counts what is left to Hugging Face, probes aside."""

    def __init__(self):
        self.left = []

    def read_texts(self, column, rows):
        if len(rows) != len(module.PROBES):
            self.left += column[rows].tolist()
        return super().read_texts(column, rows)


def same(series, **changes):
    """`tokenize_column` equals `tokenize_texts`; the rows that Hugging Face read."""
    settings, library = Settings(**changes), Watched()
    found = tokenize_column(series, library, find_reader(settings), settings)
    expected = tokenize_texts([None if pd.isna(text) else text for text in series], settings)
    assert found.ids.offsets.tolist() == expected.ids.offsets.tolist()
    assert (found.ids.values == expected.ids.values).all()
    assert (found.valid == expected.valid).all()
    assert (found.truncated == expected.truncated).all()
    for name in ("rows", "nulls", "tokens", "truncated"):
        assert getattr(found.stats, name) == getattr(expected.stats, name)
    return library.left


LONG = ["word " * 3000, "x" * 9000, "漢字" * 4000, "a b " * 4000 + "\U0001f600", "hello, " * 2000]
MIXED = [*TEXT, None, "", "[SEP] in the text", "x" * 150, "\U0001f600 smile", None, *LONG, "ab " * 61, "last"]


@pytest.mark.parametrize("limit", [3, 64, 256])
@pytest.mark.parametrize("window", [1, 50_000, 1 << 24])
def test_rows_of_both_tokenizers_come_back_in_order(minilm, limit, window, monkeypatch):
    monkeypatch.setattr(module, "_SLAB_CHARS", window)
    series = pd.Series(MIXED, dtype="str", index=np.arange(len(MIXED))[::-1])
    left = same(series, model=ModelRef(str(minilm)), max_seq_length=limit)
    assert {"[SEP] in the text", "x" * 150, "\U0001f600 smile", "x" * 9000} <= {*left}
    assert not {*TEXT, "word " * 3000, "漢字" * 4000, "a b " * 4000 + "\U0001f600"} & {*left}


@pytest.mark.parametrize(
    "knobs", [{"prompt": "query: "}, {"max_chars": 7}, {"prompt": "[CLS] ", "max_chars": 3}]
)
def test_prompts_and_the_limit_of_characters(minilm, knobs):
    left = same(pd.Series(MIXED, dtype="str"), model=ModelRef(str(minilm)), **knobs)
    assert ("[CLS]" in knobs.get("prompt", "")) == (len(left) > len(MIXED) / 2)


@pytest.mark.parametrize("texts", [[], [None, None], ["", ""], ["\U0001f600"]])
def test_columns_of_little(minilm, texts):
    same(pd.Series(texts, dtype="str"), model=ModelRef(str(minilm)))


@pytest.mark.parametrize("corpus", CORPORA)
def test_ids_of_real_text_are_hugging_face_s(minilm, data_dir, corpus):
    """Every twentieth row; `NEMO_EMBED_EVERY=1` for all."""
    texts = pd.read_parquet(data_dir / f"{corpus}.parquet").text.astype("str").iloc[::EVERY]
    left = same(texts, model=ModelRef(str(minilm)))
    print(f"{corpus}: {len(left)} of {len(texts)} rows ({len(left) / len(texts):.3%}) left to Hugging Face")
    assert len(left) < 0.15 * len(texts)


def test_a_difference_in_a_probe_is_an_error(minilm, monkeypatch):
    class Wrong(OnHost):
        def tokenize_heads(self, column, wordpiece, chars):
            ids, doubt = super().tokenize_heads(column, wordpiece, chars)
            ids.values[ids.values == wordpiece.vocabulary.index("quick")] += 1
            return ids, doubt

    class Timid(OnHost):
        def tokenize_heads(self, column, wordpiece, chars):
            ids, _ = super().tokenize_heads(column, wordpiece, chars)
            return ids, np.ones(len(ids), bool)

    monkeypatch.setattr(module, "_checked", set())
    settings = Settings(ModelRef(str(minilm)))
    with pytest.raises(ModelError, match="tokenizes .The quick"):
        tokenize_column(pd.Series(["a"], dtype="str"), Wrong(), find_reader(settings), settings)
    with pytest.raises(ModelError, match="none of the probe texts"):
        tokenize_column(pd.Series(["a"], dtype="str"), Timid(), find_reader(settings), settings)
    tokenize_column(pd.Series(["a"], dtype="str"), OnHost(), find_reader(settings), settings)
    tokenize_column(pd.Series(["a"], dtype="str"), Wrong(), find_reader(settings), settings)  # it is asked once


def test_every_probe_but_few_is_read_on_the_gpu(minilm, monkeypatch):
    monkeypatch.setattr(module, "_checked", set())
    library, settings = OnHost(), Settings(ModelRef(str(minilm)))
    reader = find_reader(settings)
    _, host = module._encode(
        library.make_column(module.PROBES), library, module.wordpiece_of(reader.tokenizer), reader
    )
    assert host.sum() == 0


def test_a_frame_on_the_gpu_takes_this_way(minilm, monkeypatch):
    """The whole stage, with pandas for cuDF and the stand-in for its tokenizer."""
    from nemo_embed_dask.stages import mapping, tasks

    for user in (mapping, tasks):
        monkeypatch.setattr(user, "gpu_text_ops", lambda _: OnHost())
    frame = pd.DataFrame({"text": pd.Series(MIXED, dtype="str")})
    knobs = {
        "model_identifier": str(minilm),
        "n_tokens_field": "n",
        "truncated_field": "cut",
        "autocast": False,
    }
    expected, found = embed(frame, **knobs), embed(frame, tokenizer="cudf", **knobs)
    pd.testing.assert_frame_equal(found.drop(columns="embeddings"), expected.drop(columns="embeddings"))
    assert found.embeddings.isna().tolist() == expected.embeddings.isna().tolist()
    from nemo_embed_dask import to_matrix

    np.testing.assert_allclose(
        to_matrix(found.embeddings.dropna()), to_matrix(expected.embeddings.dropna()), atol=1e-6
    )
    tokens = frame.pipe(TokenizerStage(str(minilm), tokenizer="cudf"))
    pd.testing.assert_frame_equal(tokens, frame.pipe(TokenizerStage(str(minilm))))


def test_where_it_cannot_be_it_is_refused(tiny, minilm):
    frame = pd.DataFrame({"text": ["a"]})
    with pytest.raises(ColumnError, match="needs a cuDF frame, not one of pandas"):
        embed(frame, model_identifier=str(minilm), tokenizer="cudf")
    with pytest.raises(ConfigError, match="does nothing else with them"):
        EmbeddingCreatorStage(tokenizer="cudf", long_documents="mean")
    with pytest.raises(ConfigError, match="tokenizer='sentencepiece' is unknown"):
        EmbeddingCreatorStage(tokenizer="sentencepiece")
    with pytest.raises(ConfigError, match="cannot be used in jobs"):
        embed_parquet(EmbeddingCreatorStage(tokenizer="cudf"), "in", "out")
    with pytest.raises(ConfigError, match="'BPE', and 'WordPiece' is needed"):
        TokenizerStage(str(tiny("roberta")), tokenizer="cudf").setup()
    TokenizerStage(str(tiny("bert")), tokenizer="cudf").setup()
