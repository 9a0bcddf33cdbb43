"""Find the tokenizers that cuDF's WordPiece can replace, and the texts for which its ids may differ.

cuDF and Hugging Face give the same ids unless a text contains a special token, a very long word, or a character
that changed between versions of Unicode. Such texts are found from their characters, on the GPU, and are left
to Hugging Face.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ConfigError

# After normalizing, a word is unknown to Hugging Face if it has more than 100 characters, and to cuDF if it has
# 200 bytes or more. Each character has a weight: its bytes after normalizing, but at least 2. So a word that
# weighs less than this constant is short enough for both libraries. Characters that separate words have weight
# 0; unsafe characters have the weight of this constant.
LONGEST_WORD = 200
# The Unicode categories unassigned, surrogate and private use.
_NO_CHARACTER = {"Cn", "Cs", "Co"}
# Both libraries separate words at these, besides blanks, Unicode punctuation and ideographs.
_ASCII_MARKS = "$+<=>^`|~"
# From this code point on, no character is safe; the table of weights ends here.
_END = 0x2FFFF
# The code of bytes that are not UTF-8; it is beyond all characters.
_INVALID = 0x1FFFFF
# The values in a tokenizer's state that cuDF needs.
_REQUIRED: dict[tuple[str, str], Any] = {
    ("model", "type"): "WordPiece",
    ("model", "unk_token"): "[UNK]",
    ("model", "continuing_subword_prefix"): "##",
    ("model", "max_input_chars_per_word"): 100,
    ("normalizer", "type"): "BertNormalizer",
    ("normalizer", "clean_text"): True,
    ("normalizer", "handle_chinese_chars"): True,
    ("pre_tokenizer", "type"): "BertPreTokenizer",
}


@dataclass(frozen=True, eq=False)
class WordPiece:
    """A BERT tokenizer.

    ``vocabulary``: the token of each id. ``specials``: tokens that are matched before normalizing.
    """

    vocabulary: tuple[str, ...]
    lowercase: bool
    specials: tuple[str, ...]


def read_wordpiece(state: dict[str, Any]) -> WordPiece:
    """Read a WordPiece tokenizer from a tokenizer's state (its ``to_str`` as JSON).

    Raises
    ------
    ConfigError
        The tokenizer is not a WordPiece tokenizer of BERT, or cuDF does not support its options.
    """
    for (part, key), required in _REQUIRED.items():
        found = (state[part] or {}).get(key)
        if found != required:
            raise unsupported(f"its {part} has {key}={found!r}, and {required!r} is needed")
    lowercase, strips = (state["normalizer"].get(key) for key in ("lowercase", "strip_accents"))
    if strips not in (None, lowercase):
        raise unsupported(
            f"it has lowercase={lowercase} but strip_accents={strips}, and cuDF does both or neither"
        )
    if any(token["normalized"] for token in state["added_tokens"]):
        raise unsupported("it has added tokens that are matched in normalized text")
    by_id = {number: token for token, number in state["model"]["vocab"].items()}
    if sorted(by_id) != list(range(len(by_id))) or "[UNK]" not in by_id.values():
        raise unsupported("its ids are not 0 to n - 1, with [UNK] among them")
    specials = tuple(token["content"] for token in state["added_tokens"])
    return WordPiece(tuple(by_id[i] for i in range(len(by_id))), bool(lowercase), specials)


def unsupported(reason: str) -> ConfigError:
    """Return the error for a tokenizer that cuDF does not have."""
    return ConfigError(
        f"tokenizer='cudf' is for BERT's WordPiece, and this model's tokenizer is not: {reason}; "
        "pass tokenizer='huggingface'"
    )


@cache
def weights(device: torch.device) -> Tensor:
    """Return the weight of each code point up to `_END` as uint8, see `LONGEST_WORD`.

    A character is safe if it was in Unicode 3.2 and its category has not changed since, so that all libraries
    treat it in the same way, whatever version of Unicode they have.
    """
    return torch.tensor([_weight(chr(code)) for code in range(_END + 1)], dtype=torch.uint8).to(device)


def _weight(char: str) -> int:
    if char in " \t\n\r":
        return 0
    category = unicodedata.category(char)
    may_be_reordered = unicodedata.combining(char) and category != "Mn"  # by NFD, with other marks
    changed = category != unicodedata.ucd_3_2_0.category(char)
    if changed or may_be_reordered or category in _NO_CHARACTER:
        return LONGEST_WORD
    ideograph = unicodedata.name(char, "").startswith(("CJK UNIFIED IDEO", "CJK COMPATIBILITY IDEO"))
    if ideograph or category[0] in "PZ" or char in _ASCII_MARKS:
        return 0
    forms = (char, unicodedata.normalize("NFD", char.lower()))
    return max(2, *(len(form.encode()) for form in forms))


def decode_utf8(packed: Tensor) -> Tensor:
    """Return the code points of characters that are given as their UTF-8 bytes, as cuDF gives them.

    ``packed``: int32, a character's bytes as one number, the first byte highest: "é" is 0xC3A9. Characters of
    four bytes are negative. What is not UTF-8 becomes `_INVALID`.
    """
    low_bits = (packed & 0x7F) | (packed >> 2 & 0xFC0) | (packed >> 4 & 0xF000)
    high_bits = (packed >> 4 & 0x30000) | (packed >> 6 & 0x1C0000)
    codes = torch.where(packed < 0, low_bits | high_bits, low_bits)
    return torch.where(_encode_utf8(codes) == packed, codes, _INVALID)


def _encode_utf8(codes: Tensor) -> Tensor:
    """Return the bytes of characters as `decode_utf8` takes them."""
    last, middle, first = codes & 0x3F, (codes >> 6 & 0x3F) << 8, (codes >> 12 & 0x3F) << 16
    two = (codes >> 6) << 8 | last | 0xC080
    three = (codes >> 12) << 16 | middle | last | 0xE08080
    four = (codes >> 18) << 24 | first | middle | last | 0xF0808080 - (1 << 32)
    longer = torch.where(codes < 0x800, two, torch.where(codes < 0x10000, three, four))
    return torch.where(codes < 0x80, codes, longer)


def may_differ(codes: Tensor, lengths: Tensor, specials: tuple[str, ...]) -> Tensor:
    """Return for which texts the ids of cuDF and Hugging Face may differ; does not wait for the device.

    Parameters
    ----------
    codes : Tensor of int32, shape (total,)
        Code points of all texts, one text after the other.
    lengths : Tensor of int32 or int64, shape (n,)
        Number of characters of each text.
    specials : tuple of str
        Special tokens; a text that contains one may differ.

    Returns
    -------
    Tensor of bool, shape (n,), on the same device
    """
    weight = weights(codes.device).index_select(0, codes.clamp(0, _END))
    texts = pad(lengths.long().cumsum(0), (1, 0))
    weight_before = pad(weight.cumsum(0), (1, 0))
    # Words start at separators and at texts. `weight_before` never falls, so the last start has its maximum.
    at_starts = torch.where(pad(weight, (0, 1)) == 0, weight_before, 0)
    at_starts[texts] = weight_before[texts]
    differs = weight_before[1:] - at_starts.cummax(0).values[:-1] >= LONGEST_WORD
    for token in specials:
        differs |= _starts_of(codes, token)
    differing_before = pad(differs.cumsum(0), (1, 0))
    return differing_before[texts].diff() > 0


def _starts_of(codes: Tensor, token: str) -> Tensor:
    """Mark the characters where a token starts; a false match across two texts does no harm."""
    count = max(0, len(codes) - len(token) + 1)
    matches = torch.ones(count, dtype=torch.bool, device=codes.device)
    for k, char in enumerate(token):
        matches &= codes[k : k + count] == ord(char)
    return pad(matches, (0, len(codes) - count))
