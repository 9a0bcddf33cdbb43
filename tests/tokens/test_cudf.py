"""Rows of a GPU's column put together from two tokenizers; on the host, with a stand-in for cuDF's."""

import json
import os
import shutil
from functools import partial

import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask import (
    ColumnError,
    ConfigError,
    EmbeddingCreatorStage,
    ModelError,
    RowError,
    TokenizerStage,
    embed,
    embed_parquet,
    engine,
    to_matrix,
)
from nemo_embed_dask.device_ragged import DeviceRagged
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.stages import mapping, tasks
from nemo_embed_dask.tokens import cudf as module
from nemo_embed_dask.tokens.cudf import tokenize_column
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.tokens.texts import tokenize_texts

from ..conftest import CORPORA
from ..helpers.nvtext import OnHost, check_room_for_words
from ..helpers.sparse import language_model
from ..helpers.tiny import TEXT

EVERY = int(os.environ.get("NEMO_EMBED_EVERY", "20"))  # 1 for all rows of the corpora


class Watched(OnHost):
    """Counts what is left to Hugging Face, probes aside."""

    def __init__(self):
        self.left = []

    def read_texts(self, column):
        self.left += column.tolist()
        return super().read_texts(column)


def same(series, **changes):
    """`tokenize_column` equals `tokenize_texts`; the rows that Hugging Face read."""
    settings, library = Settings(**changes), Watched()
    found = tokenize_column(series, library, find_reader(settings), settings)
    expected = tokenize_texts([None if pd.isna(text) else text for text in series], settings)
    assert isinstance(found.ids, DeviceRagged)
    assert found.ids.offsets.tolist() == expected.ids.offsets.tolist()
    assert (found.ids.to_host().values == expected.ids.values).all()
    low, high = found.ids.extremes()
    assert (found.ids.values >= low).all()
    assert (found.ids.values <= high).all()
    assert (found.valid == expected.valid).all()
    assert (found.truncated == expected.truncated).all()
    for name in ("rows", "nulls", "tokens", "truncated"):
        assert getattr(found.stats, name) == getattr(expected.stats, name)
    return library.left


LONG = ["word " * 3000, "x" * 9000, "漢字" * 4000, "a b " * 4000 + "\U0001f600", "hello, " * 2000]
MIXED = [*TEXT, None, "", "[SEP] in the text", "x" * 150, "\U0001f600 smile", None, *LONG, "ab " * 61, "last"]


@pytest.mark.parametrize("limit", [3, 64, 256])
@pytest.mark.parametrize("tokens", [1, 3_000, 1 << 20])
def test_rows_of_both_tokenizers_come_back_in_order(minilm, limit, tokens, monkeypatch):
    monkeypatch.setattr(module, "_SLAB_TOKENS", tokens)
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


@pytest.mark.parametrize("texts", [[], [None, None], ["", ""], ["\U0001f600"], [" "], [" a b c"], ["\t", None]])
def test_columns_of_little(minilm, texts):
    same(pd.Series(texts, dtype="str"), model=ModelRef(str(minilm)))


@pytest.mark.parametrize("corpus", CORPORA)
def test_ids_of_real_text_are_hugging_face_s(minilm, data_dir, corpus):
    """Every twentieth row; `NEMO_EMBED_EVERY=1` for all."""
    texts = pd.read_parquet(data_dir / f"{corpus}.parquet").text.astype("str").iloc[::EVERY]
    left = same(texts, model=ModelRef(str(minilm)))
    print(f"{corpus}: {len(left)} of {len(texts)} rows ({len(left) / len(texts):.3%}) left to Hugging Face")
    assert len(left) < 0.15 * len(texts)


WORDS = st.sampled_from(["a", "night", "Zürich", "!", "[SEP]", "x" * 120, "\U0001f600", "漢", " ", "unaffable"])
ROWS = st.lists(st.none() | st.lists(WORDS, max_size=12).map(" ".join), max_size=30)
VALUES = {"prompt": ["", "query: "], "max_chars": [None, 9], "share_equal_texts": [True, False]}


@hypothesis.settings(max_examples=60, deadline=None)
@given(ROWS, st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}))
def test_a_column_has_the_vectors_and_rows_of_its_texts(minilm, rows, values):
    """With nulls, repeats, empty and long texts, over several slabs, by the real model."""
    texts = [*rows, *rows[:7]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SLAB_TOKENS", 40)
        config = Settings(ModelRef(str(minilm)), autocast=False, max_seq_length=16, **values)
        found = engine.embed_column(pd.Series(texts, dtype="str"), OnHost(), config)
    expected = engine.embed_texts(texts, config)
    assert (found.valid == expected.valid).all()
    assert (found.n_tokens == expected.n_tokens).all()
    assert (found.truncated == expected.truncated).all()
    torch.testing.assert_close(found.matrix, expected.matrix, atol=2e-6, rtol=0)
    assert (found.stats.rows, found.stats.nulls) == (expected.stats.rows, expected.stats.nulls)
    assert found.stats.rows - found.stats.shared >= len({text for text in texts if text is not None})


def test_equal_texts_are_tokenized_and_embedded_once(minilm):
    config = Settings(ModelRef(str(minilm)))
    texts = ["one", None, "two", "one", "\U0001f600", None, "two", "\U0001f600"]
    library = Watched()
    found = engine.embed_column(pd.Series(texts, dtype="str"), library, config)
    assert (found.stats.rows, found.stats.nulls, found.stats.shared) == (8, 2, 3)
    assert library.left.count("\U0001f600") == 1
    assert found.stats.tokens == found.n_tokens[[0, 2, 4]].sum()
    assert torch.equal(found.matrix[0], found.matrix[3])
    few = [*map(str, range(300)), "7"]  # fewer than 1 % repeat
    assert engine.embed_column(pd.Series(few, dtype="str"), library, config).stats.shared == 0


@pytest.mark.parametrize("pooling", ["none", "splade"])
def test_lists_of_a_column(tiny, tmp_path, pooling):
    """Their tokens are selected on the host."""
    model = language_model(tiny("bert"), tmp_path / "model")
    config = Settings(ModelRef(str(model)), pooling=pooling, prompt="a ")
    found = engine.embed_column(pd.Series(["a b", None, "c"], dtype="str"), OnHost(), config)
    expected = engine.embed_texts(["a b", None, "c"], config)
    for name, values in expected.lists.columns.items():
        torch.testing.assert_close(found.lists.columns[name], values)
    assert (found.lists.offsets == expected.lists.offsets).all()


def test_the_stand_in_knows_the_limit_of_libcudf():
    """Without removing the blanks at its start, a column would write beyond libcudf's memory."""
    for texts in ([" "], ["", " "], [" a b"]):
        with pytest.raises(AssertionError, match="beyond the memory"):
            check_room_for_words(texts)
    check_room_for_words(["", "a b", " c d"])


def test_a_difference_in_a_probe_is_an_error(minilm, monkeypatch):
    class Wrong(OnHost):
        def tokenize(self, column, wordpiece):
            ids, offsets = super().tokenize(column, wordpiece)
            ids[ids == wordpiece.vocabulary.index("quick")] += 1
            return ids, offsets

    class Timid(OnHost):
        def packed_chars(self, column):
            return super().packed_chars(column) * 0 + 0xEE8080  # for private use

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
    column = library.make_column(module.PROBES)
    chars = column.str.len().to_numpy()
    _, host, _ = module._encode(column, chars, library, module.wordpiece_of(reader.tokenizer), reader)
    assert host.sum() == 0


def test_a_frame_on_the_gpu_takes_this_way(minilm, monkeypatch):
    """The whole stage, with pandas for cuDF and the stand-in for its tokenizer."""

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


def test_a_tokenizer_that_keeps_the_end_of_texts_is_refused(minilm, tmp_path):
    """cuDF's tokens are cut at the end; sentence-transformers obeys truncation_side."""
    copy = shutil.copytree(minilm, tmp_path / "left")
    options = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(options | {"truncation_side": "left"}))
    with pytest.raises(ConfigError, match="keeps the end of long texts"):
        same(pd.Series(["one two"], dtype="str"), model=ModelRef(str(copy)))


class Damaged(OnHost):
    """`frames.cudf.read_texts` gives invalid UTF-8 as lone surrogates."""

    def read_texts(self, column):
        return [text.replace("\U0001f600", "\udce9") for text in column.tolist()]


BAD = ["one", None, "caf\U0001f600", "\U0001f601", "caf\U0001f600", "two"]


@pytest.mark.parametrize("share", [True, False])
def test_a_text_that_is_not_unicode_fails_alone(share, minilm, monkeypatch):
    for user in (mapping, tasks):
        monkeypatch.setattr(user, "gpu_text_ops", lambda _: Damaged())
    options = {"model_identifier": str(minilm), "tokenizer": "cudf", "share_equal_texts": share}
    frame = pd.DataFrame({"text": pd.Series(BAD, dtype="str")})
    found = embed(frame, on_error="null", **options)
    assert found.embeddings.isna().tolist() == [False, True, True, False, True, False]
    tokens = TokenizerStage(str(minilm), tokenizer="cudf", on_error="null")(frame)
    assert tokens.input_ids.isna().tolist() == [False, True, True, False, True, False]
    for run in (partial(embed, **options), TokenizerStage(str(minilm), tokenizer="cudf")):
        with pytest.raises(RowError, match="row 2 .*lone surrogate or invalid UTF-8"):
            run(frame)
    alone = embed(frame.iloc[[0, 5]], **options)
    assert np.allclose(to_matrix(found.embeddings.dropna())[[0, 2]], to_matrix(alone.embeddings), atol=1e-6)


class Wrong(OnHost):
    """A cuDF that gives one word another id."""

    def tokenize(self, column, wordpiece):
        values, offsets = super().tokenize(column, wordpiece)
        quick = wordpiece.vocabulary.index("quick")
        return torch.where(values == quick, quick + 1, values), offsets


def test_the_comparison_of_ids_does_not_depend_on_the_first_limit(minilm, monkeypatch):
    monkeypatch.setattr(module, "_checked", set())
    for limit in (3, 256):
        settings = Settings(ModelRef(str(minilm)), max_seq_length=limit)
        with pytest.raises(ModelError, match="cuDF's WordPiece tokenizes"):
            tokenize_column(pd.Series(["a"], dtype="str"), Wrong(), find_reader(settings), settings)


def test_a_word_that_the_cut_divides_is_left_to_hugging_face(minilm):
    """61 words, blanks up to the cut, and a word across it: the GPU has enough tokens only without the last."""
    limit = 64
    text = "a " * (limit - 3)
    text += " " * (module._MAX_CHARS_PER_TOKEN * (limit - 2 + module.LONGEST_WORD) - 1 - len(text))
    same(
        pd.Series([f"{text}unaffable and more"], dtype="str"), model=ModelRef(str(minilm)), max_seq_length=limit
    )


def test_a_large_column_is_tokenized_in_slabs_of_bounded_size(minilm, monkeypatch):
    monkeypatch.setattr(module, "_SLAB_TOKENS", 1 << 12)
    seen = []

    class Sizes(OnHost):
        def packed_chars(self, column):
            seen.append(int(column.str.len().sum()))
            return super().packed_chars(column)

    settings = Settings(ModelRef(str(minilm)))
    texts = pd.Series([f"{i} {'some words ' * 40}" for i in range(200)], dtype="str")
    tokenize_column(texts, Sizes(), find_reader(settings), settings)
    assert len(seen) > 5
    assert max(seen) <= module._MAX_CHARS_PER_TOKEN << 12
