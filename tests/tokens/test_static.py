"""Tokens of static models against the tokenizers library."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.tokens.cudf import wordpiece_of
from nemo_embed_dask.tokens.reader import load_tokenizer

from ..helpers.static import TEXTS, make_model2vec, make_st

KINDS = ("bert", "roberta", "xlm-roberta")


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_sentence_transformers_are_those_of_the_file(kind, tiny, tmp_path):
    path = make_st(tiny(kind), tmp_path / "m")
    tokenizer, plain = load_tokenizer(read_card(path)), Tokenizer.from_file(str(path / "tokenizer.json"))
    empty = read_card(path).static.empty_id
    for limit in (5, 100, 1 << 40):
        found = tokenizer.encode(TEXTS, limit)
        for row, text in enumerate(TEXTS):
            ids = plain.encode(text, add_special_tokens=False).ids
            assert found.ids.row(row).tolist() == (ids[:limit] or [empty])
            assert found.truncated[row] == (len(ids) > limit)


@pytest.mark.parametrize("kind", KINDS)
def test_model2vec_truncates_and_then_leaves_out_unknown_tokens(kind, tiny, tmp_path):
    path = make_model2vec(tiny(kind), tmp_path / "m")
    tokenizer, plain = load_tokenizer(read_card(path)), Tokenizer.from_file(str(path / "tokenizer.json"))
    unknown = plain.token_to_id("[UNK]" if kind == "bert" else "<unk>")
    lengths = sorted(map(len, plain.get_vocab()))
    middle = len(lengths) // 2
    median = lengths[middle] if len(lengths) % 2 else (lengths[middle - 1] + lengths[middle]) // 2
    for limit in (5, 100):
        found = tokenizer.encode(TEXTS, limit)
        for row, text in enumerate(TEXTS):
            ids = plain.encode(text[: limit * median], add_special_tokens=False).ids
            known = [index for index in ids[:limit] if kind == "roberta" or index != unknown]
            assert found.ids.row(row).tolist() == (known or [read_card(path).static.empty_id])
            assert found.truncated[row] == (len(ids) > limit or len(text) > limit * median)


def test_offsets_of_tokens_that_are_left_out(tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m")
    tokenizer = load_tokenizer(read_card(path))
    ids, starts, ends = tokenizer.encode_with_offsets(["ꙮ fox ꙮ", "", "ꙮ"])
    empty = read_card(path).static.empty_id
    assert [ids.row(row).tolist() for row in (1, 2)] == [[empty], [empty]]
    texts = ["ꙮ fox ꙮ"[start:end] for start, end in zip(starts[:-2], ends[:-2], strict=True)]
    assert "".join(texts) == "fox"
    assert starts[-2:].tolist() == ends[-2:].tolist() == [0, 0]


def test_copies_give_the_same_ids(tiny, tmp_path):
    tokenizer = load_tokenizer(read_card(make_model2vec(tiny("bert"), tmp_path / "m")))
    first = tokenizer._copies[0]
    assert first.copy().encode(TEXTS, 20).ids.values.tolist() == first.encode(TEXTS, 20).ids.values.tolist()


def test_cudf_does_not_tokenize_for_static_models(tiny, tmp_path):
    tokenizer = load_tokenizer(read_card(make_st(tiny("bert"), tmp_path / "m")))
    with pytest.raises(ConfigError, match="adds no special token before a text; pass tokenizer='huggingface'"):
        wordpiece_of(tokenizer)
