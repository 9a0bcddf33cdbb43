"""cuDF's WordPiece in Python, for tests without a GPU; it follows the code of libcudf 26.10, not its tables.

A character is normalized by itself; words stand between spaces; a word of 200 bytes is unknown; the longest
piece that is in the vocabulary comes first. Unicode is Python's, where libcudf's tables are of an older edition.
"""

from __future__ import annotations

import itertools
import unicodedata
from functools import lru_cache

import numpy as np
import pandas as pd
import torch

from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.tokens.wordpiece import decode_utf8

CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
       (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))  # fmt: skip

MARKS = {*"$+<=>^`|~"}


class Normalizer(dict):
    """For `str.translate`: what each code point becomes."""

    def __init__(self, lowercase):
        self.lowercase = lowercase

    def __missing__(self, code):
        self[code] = self.become(chr(code))
        return self[code]

    def become(self, char):
        category = unicodedata.category(char)
        if char in "\t\n\r" or category[0] == "Z":
            return " "
        if category[0] == "C" or char == "\ufffd":
            return ""
        padded = any(a <= ord(char) <= b for a, b in CJK) or category[0] == "P" or char in MARKS
        if self.lowercase:
            apart = unicodedata.normalize("NFD", char.lower())
            char = "".join(c for c in apart if unicodedata.category(c) != "Mn")
            padded |= len(char) == 1 and (unicodedata.category(char)[0] == "P" or char in MARKS)
        return f" {char} " if padded and len(char) == 1 else char


@lru_cache(maxsize=4)
def tools(wordpiece):
    known = {token: i for i, token in enumerate(wordpiece.vocabulary)}

    @lru_cache(maxsize=1 << 18)
    def pieces(word):
        if len(word.encode()) >= 200:
            return [known["[UNK]"]]
        out, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                found = known.get(("##" if start else "") + word[start:end])
                if found is not None:
                    break
            else:
                return [known["[UNK]"]]
            out.append(found)
            start = end
        return out

    return Normalizer(wordpiece.lowercase), pieces


def packed_chars(texts):
    """Return what cuDF's ``str.code_points`` returns: each character's UTF-8 bytes as one int32.

    By libcudf's ``to_char_utf8`` the first byte is the highest, and by the docstring of cuDF "é" is 50089.
    """
    text = "".join(texts)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000).astype(np.int64)
    utf8 = np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
    char = np.repeat(np.arange(len(codes)), sizes)
    bytes_after = np.cumsum(sizes)[char] - 1 - np.arange(len(utf8))
    packed = np.zeros(len(codes), np.uint32)
    np.add.at(packed, char, utf8 << (8 * bytes_after).astype(np.uint32))
    return torch.from_numpy(packed.view(np.int32)), torch.tensor([len(text) for text in texts])


def code_points(texts):
    packed, lengths = packed_chars(texts)
    return decode_utf8(packed), lengths


def words_of(text, wordpiece):
    _, pieces = tools(wordpiece)
    return [i for word in text.split(" ") if word for i in pieces(word)]


def ids_of(text, wordpiece):
    return words_of(text.translate(tools(wordpiece)[0]), wordpiece)


def check_room_for_words(texts):
    """Raise if libcudf would write beyond its memory: it makes room for a start of a word in two bytes."""
    text = "".join(texts).encode()
    after_blank = sum(a == 32 != b for a, b in itertools.pairwise(text))
    assert (text[:1] == b" ") + after_blank <= len(text) // 2, "beyond the memory of libcudf's d_edges"


class OnHost:
    """`tokens.cudf.GpuTextOps` over pandas strings: the calls of cuDF, and nothing of ours.

    pandas has the other methods that are called on columns, with the same results for columns without nulls:
    ``str.slice``, ``str.slice_replace``, ``str.len``, ``str.lstrip``, ``iloc``, ``nunique``.
    """

    def make_column(self, texts):
        return pd.Series(list(texts), dtype="str")

    def read_texts(self, column):
        return column.tolist()

    def factorize(self, column):
        codes, distinct = column.factorize()
        return codes, pd.Series(distinct)

    def int_tensor(self, column):
        return torch.from_numpy(column.to_numpy(np.int32))

    def packed_chars(self, column):
        return packed_chars(column.tolist())[0]

    def normalize(self, column, wordpiece):
        normalizer, _ = tools(wordpiece)
        return pd.Series([text.translate(normalizer) for text in column], dtype="str")

    def tokenize(self, column, wordpiece):
        texts = column.tolist()
        check_room_for_words(texts)
        rows = Ragged.from_rows([words_of(text, wordpiece) for text in texts])
        return torch.from_numpy(rows.values), torch.from_numpy(rows.offsets.astype(np.int32))
