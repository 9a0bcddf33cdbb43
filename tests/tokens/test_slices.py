"""The slices of a text's windows: they join to the text, and hold the characters of their windows' tokens."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
import regex
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.slices import TokenSpans
from nemo_embed_dask.tokens.texts import tokenize_texts

SCRIPTS = (
    "All human beings are born free and equal in dignity and rights.",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "Все люди рождаются свободными и равными в своём достоинстве и правах, йод.",
    "すべての人間は、生まれながらにして自由であり、ガギグゲゴ。",
    "يُولَدُ جَمِيعُ النَّاسِ أَحْرَارًا مُتَسَاوِينَ",
    "👩‍👩‍👧‍👦 ❤️ 👍🏽 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🇩🇪 1️⃣ e\u0301\u0323 \u202eabc\u202c ﬁne ½ ﷺ İ",
    "  blanks\t\tbefore \n\n and  behind   ",
    "\u0301\u0301 marks first, \x00 controls \u200b\ufeff \ufffd",
    "z\u0300\u0316\u0301" * 9 + "\u0301" * 70,
)
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
KINDS = ("bert", "roberta", "xlm-roberta", "qwen3")
pieces = st.sampled_from([word for text in SCRIPTS for word in (text, *text.split(), " ", "\n")])
texts = st.builds(
    lambda parts, form, glue: unicodedata.normalize(form, glue.join(parts)),
    st.lists(pieces, max_size=6), st.sampled_from(FORMS), st.sampled_from(["", " ", "  "]),
)  # fmt: skip


def slices_of(path, text, **changes):
    found = tokenize_texts(
        ["before", text, None, "after"], Settings(ModelRef(str(path)), long_documents="explode", **changes)
    ).origins
    rows = found.text_positions.tolist()
    slices = [*zip(found.char_start.tolist(), found.char_end.tolist(), strict=True)]
    assert slices[rows.index(2)] == (0, 0) and slices[rows.index(3)][0] == 0
    return [each for row, each in zip(rows, slices, strict=True) if row == 1]


def check(path, text, *, limit, overlap, prompt="", max_chars=None):
    found = slices_of(path, text, max_seq_length=limit, overlap=overlap, prompt=prompt, max_chars=max_chars)
    read = text[:max_chars]
    assert found[0][0] == 0 and found[-1][1] == len(read)
    if not overlap:
        assert "".join(text[a:b] for a, b in found) == read
    assert {i for a, b in found for i in range(a, b)} == {*range(len(read))}
    assert found == sorted(found) and [b for _, b in found] == sorted(b for _, b in found)
    for (_, end), (start, _) in pairwise(found):
        assert start <= end
        if len(text) < 100:  # no series of marks that is too long
            assert not unicodedata.category(read[end : end + 1] or "a").startswith("M")
    return found


@pytest.mark.parametrize("kind", [*KINDS, "minilm"])
@given(text=texts, room=st.integers(1, 12), data=st.data())
@settings(max_examples=60)
def test_slices_join_to_the_text(kind, tiny, minilm, text, room, data):
    path = minilm if kind == "minilm" else tiny(kind)
    prompt = data.draw(st.sampled_from(["", "", "query: ", "Représentez 👩: "]))
    special = len(transformers_tokens(path, prompt))
    overlap = data.draw(st.integers(0, room - 1))
    max_chars = data.draw(st.sampled_from([None, None, 5, 40]))
    check(path, text, limit=special + room, overlap=overlap, prompt=prompt, max_chars=max_chars)


_loaded = {}


def transformers_tokens(path, text, **options):
    if path not in _loaded:
        _loaded[path] = transformers.AutoTokenizer.from_pretrained(path)
    return _loaded[path](text, **options)["input_ids"] if not options else _loaded[path](text, **options)


@pytest.mark.parametrize("kind", [*KINDS, "minilm"])
@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("form", FORMS)
def test_a_slice_has_the_characters_of_its_window_s_tokens(kind, overlap, form, tiny, minilm):
    """Compare with the offsets of Hugging Face's overflowing tokens.

    A slice has every character of its tokens, unless a token before the window has a part of it or it is a mark of
    a character there; and of other tokens' characters it has only such marks.
    """
    path = minilm if kind == "minilm" else tiny(kind)
    for text in SCRIPTS[:-1]:
        text = unicodedata.normalize(form, text)
        theirs = transformers_tokens(
            path, text, truncation=True, max_length=12, stride=overlap, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_special_tokens_mask=True,
        )  # fmt: skip
        windows = [
            {i for (a, b), special in zip(*pair, strict=True) if not special for i in range(a, b)}
            for pair in zip(theirs["offset_mapping"], theirs["special_tokens_mask"], strict=True)
        ]
        found = check(path, text, limit=12, overlap=overlap)
        assert len(found) == len(windows)
        of_tokens, before = set().union(*windows), set()
        for (start, end), window in zip(found, windows, strict=True):
            own = {*range(start, end)}
            assert all(i in before or continues(text, i) for i in window - own)
            assert all(continues(text, i) for i in (own & of_tokens) - window)
            before |= window


def continues(text, i):
    char, starts = text[i], {found.start() for found in regex.finditer(r"\X", text)}
    if i not in starts:
        return True
    name = unicodedata.name(char, "")
    return unicodedata.category(char)[0] == "M" or any(
        part in name for part in ("JOINER", "JUNGSEONG", "JONGSEONG", "FITZPATRICK", "TAG")
    )


@pytest.mark.parametrize("kind", ["minilm", *KINDS])
def test_decomposed_korean_keeps_its_final_consonants(kind, tiny, minilm):
    text = unicodedata.normalize("NFD", SCRIPTS[1] * 3)
    found = check(minilm if kind == "minilm" else tiny(kind), text, limit=10, overlap=0)
    composed = [unicodedata.normalize("NFC", text[a:b]) for a, b in found]
    assert len(found) > 3 and "".join(composed) == SCRIPTS[1] * 3


def test_a_text_without_tokens_has_one_whole_slice(tiny):
    for text in ("", "   ", "\u0301", "\x00\u200b"):
        assert slices_of(tiny("bert"), text) == [(0, len(text))]


def test_cuts_of_hand_made_spans():
    """Two texts; "b" has an accent without a token, and the bytes of the emoji are two tokens."""
    spans = TokenSpans(
        ["ab\u0301 c", "x👩y"], np.array([0, 4]), np.array([3, 4]),
        np.array([0, 1, 4, 0, 1, 1, 2]), np.array([1, 2, 5, 1, 2, 2, 3]),
    )  # fmt: skip
    texts, tokens = np.array([0, 0, 1, 1, 1]), np.array([1, 2, 4, 5, 6])
    assert spans.cuts(texts, tokens).tolist() == [1, 4, 1, 2, 2]


@pytest.mark.parametrize(
    "cluster",
    [
        "👨\u200d👩\u200d👧",
        "🏳\ufe0f\u200d🌈",
        "🇩🇪",
        "👍🏽",
        "\r\n",
        "กำ",
        "ກຳ",
        "e\u0301\u0323",
        "\u1112\u1161\u11ab",
    ],
)
@pytest.mark.parametrize("kind", ["roberta", "qwen3"])
def test_a_cut_is_not_within_a_character_as_readers_see_it(cluster, kind, tiny):
    text = f"{cluster}🇫🇷{cluster} a{cluster}"
    for limit in range(3, 12):
        for start, end in slices_of(tiny(kind), text, max_seq_length=limit):
            assert regex.findall(r"\X", text) == regex.findall(r"\X", text[:start]) + regex.findall(
                r"\X", text[start:end]
            ) + regex.findall(r"\X", text[end:])
