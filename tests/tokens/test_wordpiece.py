"""Which texts cuDF's WordPiece may be trusted with."""

import json

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Hf
from tokenizers import normalizers, pre_tokenizers

from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.tokens.wordpiece import (
    LONGEST_WORD,
    decode_utf8,
    may_differ,
    read_wordpiece,
    weights,
)

from ..helpers.nvtext import Normalizer, code_points, ids_of, packed_chars
from ..helpers.tiny import make_tokenizer

CPU = torch.device("cpu")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SAFE = [chr(i) for i, weight in enumerate(weights(torch.device("cpu")).tolist()) if weight < LONGEST_WORD]


def test_every_code_point_is_decoded():
    """As libcudf packs it (``to_char_utf8`` in cpp/include/cudf/strings/detail/utf8.hpp), byte by byte."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    packed = torch.tensor([int.from_bytes(chr(code).encode(), "big") for code in codes]).to(torch.int32)
    found = decode_utf8(packed)
    assert found.dtype == torch.int32
    assert found.tolist() == codes
    # The stand-in of the other tests packs them in the same way, as the docstring of cuDF shows for "é".
    assert torch.equal(packed_chars([chr(code) for code in codes])[0], packed)
    assert packed_chars(["éa", "", "\U0001f600"])[0].tolist() == [50089, 97, -257976192]


def test_whatever_comes_stays_within_the_table():
    """An index beyond a table ends a process's use of its GPU; on a CPU it raises."""
    anything = torch.randint(-(2**31), 2**31, (100_000,), generator=torch.Generator().manual_seed(0))
    extremes = torch.tensor([-(2**31), -1, 0, 2**31 - 1])
    codes = torch.cat([anything, extremes]).to(torch.int32)
    assert 0 <= decode_utf8(codes).min() <= decode_utf8(codes).max() < 1 << 21
    for numbers in (codes, decode_utf8(codes)):
        assert may_differ(numbers, torch.tensor([len(numbers)]), SPECIALS).tolist() == [True]


@pytest.mark.parametrize(
    ("text", "first_bad"),
    [(b"caf\xe9 and more", 3), (b"\xe9t\xe9 12", 0), (b"na\xefve text", 2), (b"a\xc1\x81", 1), (b"a\x80", 1),
     (b"a\xed\xa0\x80", 1), (b"\xf8\x88\x80\x80", 0), (b"a\xf0\x82\x82\xac", 1)],
)  # fmt: skip
def test_what_is_not_utf8_is_left_to_hugging_face(text, first_bad):
    """libcudf takes as many bytes as the first one says, and looks at no other one (``bytes_in_utf8_byte``)."""
    packed, start = [], 0
    while start < len(text):
        first = text[start]
        size = max(1, 1 + (first >= 0xF0) + (first >= 0xE0) + (first >= 0xC0) - (first & 0xC0 == 0x80))
        packed.append(int.from_bytes(text[start : start + size].ljust(size, b"\0"), "big"))
        start += size
    codes = decode_utf8(torch.tensor(packed).to(torch.int32))
    assert weights(CPU)[codes[first_bad].clamp(max=0x2FFFF)] == LONGEST_WORD
    assert may_differ(codes, torch.tensor([len(codes)]), SPECIALS).tolist() == [True]


def test_characters_are_judged_without_waiting_for_the_device():
    """A meta tensor has no values, so that whatever would wait for one raises."""
    chars, lengths = (torch.empty(n, dtype=torch.int32, device="meta") for n in (50, 4))
    assert may_differ(decode_utf8(chars), lengths, SPECIALS).shape == (4,)


def doubts(*texts, specials=SPECIALS):
    return may_differ(*code_points(texts), specials).tolist()


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("", False), (" ", False), ("x" * 99, False), ("x" * 100, True), ("x" * 99 + " " + "x" * 99, False),
        ("é" * 66, False), ("é" * 67, True), ("-" * 999, False), ("█" * 66, False), ("█" * 67, True), ("한" * 22, False),
        ("한" * 23, True), ("a [CLS] b", True), ("a [CLS b] [cls]", False), ("[SEP]", True), ("a[MASK]b", True),
        ("smile \U0001f600", True), ("private \ue000", True), ("soft\u00adhyphen", True), ("joined\u200d", False), ("zero\x00", False),
        ("\ufffd", False), ("20AC €, 你好 мир ١٢٣ नमस्ते", False), ("\U0002b820", True), ("\U0010ffff", True),
        ("tabs\tand\r\nlines", False), ("page\x0c\x0b", False), ("\u1e9e\ua7c1", True),
    ],
)  # fmt: skip
def test_what_is_doubtful(text, doubt):
    assert doubts(text) == [doubt]
    assert doubts("fine", "", text, "", "fine") == [False, False, doubt, False, False]


alphabet = st.one_of(
    st.sampled_from(SAFE), st.characters(exclude_categories=("Cs",)), st.sampled_from("ab [CLSEP]")
)
some = st.lists(st.text(alphabet, max_size=120), max_size=6)


@settings(max_examples=200, deadline=None)
@given(some)
def test_it_is_found_row_by_row(texts):
    """The definition, a text at a time."""
    weight = weights(torch.device("cpu")).tolist()

    def slow(text):
        words = "".join(c if ord(c) > 0x2FFFF or weight[ord(c)] else " " for c in text).split(" ")
        heavy = any(sum(weight[min(ord(c), 0x2FFFF)] for c in word) >= LONGEST_WORD for word in words)
        return heavy or any(token in text for token in SPECIALS)

    expected = [slow(text) for text in texts]
    found = doubts(*texts)
    # A token that runs from one text into the next is one too many, never one too few.
    assert all(b or not a for a, b in zip(expected, found, strict=True))
    if not any(token in "".join(texts) for token in SPECIALS):
        assert found == expected


def test_no_texts():
    assert doubts() == []
    assert doubts("", "") == [False, False]


@pytest.mark.parametrize("lowercase", [True, False])
def test_every_safe_character_is_normalized_alike(lowercase):
    """Alone between letters, where it is joined, parted, lowered or dropped: by Hugging Face as by the stand-in."""
    normalizer, stand_in = normalizers.BertNormalizer(lowercase=lowercase), Normalizer(lowercase)
    weight = weights(torch.device("cpu")).tolist()
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for char in SAFE:
        text = f"a{char}b"
        theirs = [word for word, _ in split(normalizer.normalize_str(text))]
        assert theirs == [word for word in text.translate(stand_in).split(" ") if word], hex(ord(char))
        assert weight[ord(char)] or theirs[0] == "a", hex(ord(char))
    assert len(SAFE) > 90_000


@pytest.fixture(scope="module")
def both(minilm):
    backend = Hf.from_file(str(minilm / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return backend, read_wordpiece(json.loads(backend.to_str()))


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet, max_size=300))
@example("e\u0301\u0323" * 40 + " İıſß ǅ Σς")
@example("\u0345\u05b0\u3099か\u1161\u11a8ㄱ")
def test_texts_without_doubt_have_hugging_face_s_ids(both, text):
    backend, wordpiece = both
    if doubts(text, specials=wordpiece.specials) == [False]:
        assert ids_of(text, wordpiece) == backend.encode(text, add_special_tokens=False).ids


def test_minilm_is_wordpiece(both):
    _, wordpiece = both
    assert (len(wordpiece.vocabulary), wordpiece.lowercase, wordpiece.vocabulary[101]) == (
        30_522,
        True,
        "[CLS]",
    )
    assert sorted(wordpiece.specials) == sorted(SPECIALS)


CHANGES = {
    "unk_token": lambda s: s["model"].update(unk_token="<unk>"),
    "max_input_chars_per_word": lambda s: s["model"].update(max_input_chars_per_word=50),
    "clean_text": lambda s: s["normalizer"].update(clean_text=False),
    "strip_accents": lambda s: s["normalizer"].update(strip_accents=False),
    "normalizer has type=None": lambda s: s.update(normalizer=None),
    "pre_tokenizer has type": lambda s: s.update(pre_tokenizer={"type": "Whitespace"}),
    "normalized text": lambda s: s["added_tokens"][0].update(normalized=True),
    "0 to n - 1": lambda s: s["model"]["vocab"].update(far=10**6),
}  # fmt: skip


@pytest.mark.parametrize("why", CHANGES)
def test_other_tokenizers_are_refused_and_it_is_said_why(why):
    state = json.loads(make_tokenizer("wordpiece").backend_tokenizer.to_str())
    assert read_wordpiece(state).lowercase
    CHANGES[why](state)
    with pytest.raises(ConfigError, match=f"(?s){why}.*huggingface"):
        read_wordpiece(state)


@pytest.mark.parametrize("style", ["bytes", "unigram", "decoder"])
def test_other_kinds_are_refused(style):
    state = json.loads(make_tokenizer(style).backend_tokenizer.to_str())
    with pytest.raises(ConfigError, match="type='(BPE|Unigram)', and 'WordPiece' is needed"):
        read_wordpiece(state)
