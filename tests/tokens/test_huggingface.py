from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError, RowError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.huggingface import Tokenizer

from ..helpers.cards import rewrite
from ..helpers.slow import slow
from ..helpers.strategies import texts
from ..helpers.tiny import make_tokenizer

NAUGHTY = [
    "", " ", "\n", "\x00", "\t\r\n", "a" * 5000, "ab " * 3000, "[CLS] [SEP] [PAD]", "e\u0301 " * 900,
    "漢字" * 2000, "漢 字 " * 1000, "ﬁ ﷺ ½ " * 800, "\u202eabc\u202c", "👩‍👩‍👧‍👦 " * 400,
    "a.\n\n b!\r\n " * 700,
    "\u00a0\u2003x " * 900, "\x1c\x1d\x1e\x1f a\x1cb " * 500, "Ünïcödé " * 700, "١٢٣ ४५६ " * 700,
    "－＝～ " * 900, ("x" + " " * 40) * 200,
]  # fmt: skip
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
STYLES = ("wordpiece", "bytes", "decoder")


@pytest.fixture(scope="module")
def tokenizers():
    return {style: make_tokenizer(style).backend_tokenizer for style in STYLES}


def plain(backend, text: str, limit: int) -> tuple[list[int], bool]:
    """What Hugging Face itself gives: the whole text tokenized, then truncated around special tokens."""
    backend.no_padding()
    backend.no_truncation()
    whole = len(backend.encode(text).ids)
    backend.enable_truncation(limit)
    ids = backend.encode(text).ids
    backend.no_truncation()
    return ids, whole > limit


@pytest.mark.parametrize("style", STYLES)
@given(batch=st.lists(texts, max_size=4), repeats=st.integers(1, 12), limit=st.integers(3, 160))
@settings(max_examples=60, deadline=None)
def test_ids_equal_full_tokenization(tokenizers, style, batch, repeats, limit):
    batch = [f"{text} " * repeats for text in batch]  # some are read in several passes
    tokens = Tokenizer(tokenizers[style]).encode(batch, limit)
    expected = [plain(tokenizers[style], text, limit) for text in batch]
    assert [tokens.ids.row(i).tolist() for i in range(len(batch))] == [ids for ids, _ in expected]
    assert tokens.truncated.tolist() == [cut for _, cut in expected]
    assert tokens.ids.values.dtype == np.int32


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("limit", [3, 16, 64, 256])
def test_naughty_and_long_texts_equal_full_tokenization(tokenizers, style, limit):
    tokens = Tokenizer(tokenizers[style]).encode(NAUGHTY, limit)
    for i, text in enumerate(NAUGHTY):
        ids, cut = plain(tokenizers[style], text, limit)
        assert tokens.ids.row(i).tolist() == ids, repr(text[:40])
        assert tokens.truncated[i] == cut, repr(text[:40])


def test_the_file_s_own_padding_and_truncation_are_overridden(minilm):
    tokens = Tokenizer.from_directory(minilm).encode(["a short one", "word " * 1000], 256)
    assert tokens.ids.lengths.tolist() == [5, 256]
    assert tokens.ids.row(1)[[0, -1]].tolist() == [101, 102]
    assert tokens.truncated.tolist() == [False, True]


@pytest.mark.parametrize("limit", [64, 256, *slow(32, 128)])
def test_real_text_equals_full_tokenization(limit, minilm, real_texts):
    tokenizer = Tokenizer.from_directory(minilm)
    tokens = tokenizer.encode(real_texts, limit)
    full = tokenizer._backend.encode_batch_fast(real_texts)
    for i, whole in enumerate(full):
        expected = whole.ids if len(whole.ids) <= limit else [*whole.ids[: limit - 1], 102]
        assert tokens.ids.row(i).tolist() == expected


def test_work_on_a_long_text_is_bounded(minilm):
    tokenizer = Tokenizer.from_directory(minilm)
    head = "some words of an ordinary text " * 60

    def seconds(text):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            tokenizer.encode([text] * 20, 256)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(head * 1000) < 10 * seconds(head)  # 1.9 MB against 1.9 KB


def test_lowercase_of_the_card_is_applied(tiny):
    directory = tiny("roberta")
    upper = Tokenizer.from_directory(directory, lowercase=True).encode(["HELLO World"], 64)
    lower = Tokenizer.from_directory(directory).encode(["hello world"], 64)
    assert upper.ids.values.tolist() == lower.ids.values.tolist()


def test_a_tokenizer_whose_words_span_blanks_is_never_cut(tokenizers):
    from tokenizers import Tokenizer as Hf

    spanning = Hf.from_str(tokenizers["decoder"].to_str())
    spanning.add_tokens(["two words"])
    assert Tokenizer(spanning)._boundary is None
    assert Tokenizer(tokenizers["decoder"])._boundary is not None


def test_a_post_processor_that_changes_the_text_is_refused(tokenizers):
    from tokenizers import Tokenizer as Hf
    from tokenizers import processors

    odd = Hf.from_str(tokenizers["wordpiece"].to_str())
    odd.post_processor = processors.TemplateProcessing(single="$A [SEP] $A", special_tokens=[("[SEP]", 3)])
    with pytest.raises(ValueError, match="post-processor"):
        Tokenizer(odd)


@pytest.mark.parametrize("style", STYLES)
def test_texts_that_lose_their_beginning_are_as_hugging_face_cuts_them(tokenizers, style):
    backend, limit = tokenizers[style], 9
    got = Tokenizer(backend, keep_end=True).encode(NAUGHTY, limit)
    backend.no_padding()
    backend.enable_truncation(limit, direction="left")
    expected = [backend.encode(text).ids for text in NAUGHTY]
    backend.no_truncation()
    assert [got.ids.row(i).tolist() for i in range(len(NAUGHTY))] == expected


def test_tokenizers_that_cannot_be_run_are_named(tiny, tmp_path):
    pieces = transformers.ByT5Tokenizer()
    pieces.save_pretrained(tmp_path / "bytes")
    with pytest.raises(ModelError, match="ByT5Tokenizer"):
        Tokenizer.from_directory(tmp_path / "bytes")
    loaded = transformers.AutoTokenizer.from_pretrained(tiny("bert"))
    cls, sep = loaded.cls_token, loaded.sep_token
    loaded.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A:0 {sep}:0 {cls}:2",
        special_tokens=[(t, loaded.convert_tokens_to_ids(t)) for t in (cls, sep)],
    )
    loaded.save_pretrained(tmp_path / "types")
    rewrite(tmp_path / "types", tmp_path / "xlnet", tokenizer_config={"model_input_names": INPUTS})
    with pytest.raises(ModelError, match="token types"):
        Tokenizer.from_directory(tmp_path / "xlnet")


def damaged(source, path, change):
    """Return a copy of a model directory with a change of its tokenizer.json."""
    shutil.copytree(source, path)
    content = json.loads((path / "tokenizer.json").read_text())
    change(content)
    (path / "tokenizer.json").write_text(json.dumps(content))
    return path


def test_error_for_a_tokenizer_that_cannot_be_used_names_the_model(tiny, tmp_path):
    def repeat(content):
        content["post_processor"]["single"].insert(1, content["post_processor"]["single"][1])

    def lose_a_name(content):
        content["post_processor"]["single"][0]["SpecialToken"]["id"] = ""  # the library panics

    typed = rewrite(
        tiny("bert"), tmp_path / "typed", tokenizer_config={"add_prefix_space": [], "do_lower_case": {}}
    )
    rewrite(typed, tmp_path / "case", tokenizer_config={"tokenizer_class": "BertTokenizer"})
    damaged(tiny("bert"), tmp_path / "twice", repeat)
    damaged(tiny("bert"), tmp_path / "name", lose_a_name)
    for name, why in (("case", "TypeError"), ("twice", "post-processor repeats the text"), ("name", "Panic")):
        with pytest.raises(
            ModelError, match=f"the tokenizer of model '{name}' cannot be used .*{why}.*fetch the model"
        ):
            Tokenizer.from_directory(tmp_path / name)


@pytest.mark.parametrize("long_documents", ["truncate", "explode"])
def test_a_text_for_which_a_tokenizer_has_no_tokens_is_a_failed_row(long_documents, tiny, tmp_path):
    path = damaged(tiny("bert"), tmp_path / "m", lambda content: content["model"].update(unk_token="[NONE]"))
    chosen = Settings(ModelRef(str(path)), long_documents=long_documents)
    with pytest.raises(RowError, match=r"row 1: not valid text.*\[UNK\]"):
        embed_texts(["a dog", "\u2603", "a fox"], chosen)
    got = embed_texts(["a dog", "\u2603", "a fox"], replace(chosen, on_error="null"))
    assert got.valid.tolist() == [True, False, True]
    whole = embed_texts(["a dog", "\u2603", "a fox"], replace(chosen, model=ModelRef(str(tiny("bert")))))
    np.testing.assert_array_equal(got.matrix[[0, 2]], whole.matrix[[0, 2]])
