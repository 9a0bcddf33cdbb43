"""Which tokenizers cuDF's WordPiece can stand for, and which texts it reads as Hugging Face does. Pure torch.

Both read a text alike unless it holds a special token written out, a very long word, or a character that
one of them knows from another edition of Unicode. Such texts are found here, on the device where they are,
from their code points, and are left to Hugging Face.
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

# Hugging Face gives up on a word of more than 100 characters, cuDF on one of 200 bytes or more, both after
# normalizing. A character weighs the bytes that it becomes, and at least two, so that a word below this
# weight is long for neither. What parts words weighs nothing, and an unsafe character as much as a long word.
LONGEST_WORD = 200
# Unassigned, surrogate, private.
_NO_CHARACTER = {"Cn", "Cs", "Co"}
# Both part words at these, beside blanks, Unicode's punctuation and ideographs.
_ASCII_MARKS = "$+<=>^`|~"
# The first code point that is never safe; those above count as this one.
_END = 0x2FFFF
# What a tokenizer must be for cuDF to read alike: where in its state, and what may stand there.
_WANTED: dict[tuple[str, str], tuple[Any, ...]] = {
    ("model", "type"): ("WordPiece",),
    ("model", "unk_token"): ("[UNK]",),
    ("model", "continuing_subword_prefix"): ("##",),
    ("model", "max_input_chars_per_word"): (100,),
    ("normalizer", "type"): ("BertNormalizer",),
    ("normalizer", "clean_text"): (True,),
    ("normalizer", "handle_chinese_chars"): (True,),
    ("pre_tokenizer", "type"): ("BertPreTokenizer",),
}


@dataclass(frozen=True, eq=False)
class WordPiece:
    """A BERT tokenizer. ``vocabulary``: the token of each id; ``specials``: tokens matched in raw text."""

    vocabulary: tuple[str, ...]
    lowercase: bool
    specials: tuple[str, ...]


def read_wordpiece(state: dict[str, Any]) -> WordPiece:
    """A tokenizer's state (its ``to_str`` as JSON) as WordPiece.

    Raises
    ------
    ConfigError
        It is another kind of tokenizer, or one of BERT's that cuDF cannot stand for.
    """
    for (part, key), allowed in _WANTED.items():
        found = (state[part] or {}).get(key)
        if found not in allowed:
            raise _no(f"its {part} has {key}={found!r}, and {allowed[0]!r} is needed")
    lowercase, strips = (state["normalizer"].get(key) for key in ("lowercase", "strip_accents"))
    if strips not in (None, lowercase):
        raise _no(f"it has lowercase={lowercase} but strip_accents={strips}, and cuDF does both or neither")
    if any(token["normalized"] for token in state["added_tokens"]):
        raise _no("it has added tokens that are matched in normalized text")
    by_id = {number: token for token, number in state["model"]["vocab"].items()}
    if sorted(by_id) != list(range(len(by_id))) or "[UNK]" not in by_id.values():
        raise _no("its ids are not 0 to n - 1, with [UNK] among them")
    specials = tuple(token["content"] for token in state["added_tokens"])
    return WordPiece(tuple(by_id[i] for i in range(len(by_id))), bool(lowercase), specials)


def _no(why: str) -> ConfigError:
    return ConfigError(
        f"tokenizer='cudf' is for BERT's WordPiece, and this model's tokenizer is not: {why}; "
        "pass tokenizer='huggingface'"
    )


@cache
def weights(device: torch.device) -> Tensor:
    """What each code point up to `_END` weighs: uint8, 0 if it parts words, `LONGEST_WORD` if it is not safe.

    Safe are those that Unicode 3.2 had already and whose category has not changed since: whatever edition a
    library's tables are of, it treats them alike.
    """
    return torch.tensor([_weight(chr(code)) for code in range(_END + 1)], dtype=torch.uint8).to(device)


def _weight(char: str) -> int:
    if char in " \t\n\r":
        return 0
    category = unicodedata.category(char)
    moves = unicodedata.combining(char) and category != "Mn"  # NFD may move it past another mark
    changed = category != unicodedata.ucd_3_2_0.category(char)
    if changed or moves or category in _NO_CHARACTER:
        return LONGEST_WORD
    ideograph = unicodedata.name(char, "").startswith(("CJK UNIFIED IDEO", "CJK COMPATIBILITY IDEO"))
    if ideograph or category[0] in "PZ" or char in _ASCII_MARKS:
        return 0
    forms = (char, unicodedata.normalize("NFD", char.lower()))
    return max(2, *(len(form.encode()) for form in forms))


def may_differ(codes: Tensor, lengths: Tensor, specials: tuple[str, ...]) -> Tensor:
    """Which texts cuDF may read otherwise than Hugging Face.

    Parameters
    ----------
    codes : Tensor of int32, shape (total,)
        Code points of all texts, one after the other.
    lengths : Tensor of int32 or int64, shape (n,)
        Characters of each text.
    specials : tuple of str
        What must not stand in a text.

    Returns
    -------
    Tensor of bool, shape (n,), on the same device
    """
    weight = weights(codes.device).index_select(0, codes.clamp(max=_END))
    offsets = pad(lengths.long().cumsum(0), (1, 0))
    edges = torch.cat([offsets, (weight == 0).nonzero()[:, 0]]).sort().values
    before = pad(weight.cumsum(0), (1, 0))
    found = [edges[:-1][before[edges].diff() >= LONGEST_WORD]]
    found += [_places(codes, token) for token in specials]
    out = torch.zeros(len(lengths), dtype=torch.bool, device=codes.device)
    out[torch.searchsorted(offsets, torch.cat(found), right=True) - 1] = True
    return out


def _places(codes: Tensor, token: str) -> Tensor:
    """Where a token begins; one that runs over the end of a text counts too."""
    count = max(0, len(codes) - len(token) + 1)
    here = torch.ones(count, dtype=torch.bool, device=codes.device)
    for k, char in enumerate(token):
        here &= codes[k : k + count] == ord(char)
    return here.nonzero()[:, 0]
