"""Find places where a text can be cut so that the tokens before the cut do not change."""

from __future__ import annotations

import json
import re
from typing import Any

from tokenizers import Tokenizer

# With these pre-tokenizers and normalizers, the text after a blank does not change the tokens before it. The
# splitters never join text across a blank; the normalizers look only at a character and its combining marks.
_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Split", "Metaspace"}
_KNOWN_PRE_TOKENIZERS = _SPLITTERS | {"Punctuation", "Digits", "Sequence", "UnicodeScripts"}
_KNOWN_NORMALIZERS = {
    "BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Precompiled",
    "Nmt", "Sequence", "Strip", "Replace",
}  # fmt: skip
# A text may be cut before these characters. Metaspace splits only at plain spaces; BERT also splits before
# every CJK ideograph. A letter or digit must come before the cut, because some patterns join punctuation with
# the line breaks after it.
_BLANK, _SPACE = r"[ \t\r\n]", " "
_BLANK_OR_CJK = r"[ \t\r\n\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df]"
_AFTER_LETTER_OR_DIGIT = r"(?<=[^\W_])"


def find_boundaries(backend: Tokenizer) -> re.Pattern[str] | None:
    """Return a pattern of places where a cut does not change the tokens before it.

    None means that no place is known to be safe: a part of the tokenizer is not known, it does not split at
    blanks, or one of its added tokens contains a blank. For example, BERT may be cut at the blank after "two"
    in "one two three", because its words never contain blanks.
    """
    state = json.loads(backend.to_str())
    pre_tokenizers = {part["type"] for part in _parts(state["pre_tokenizer"], "pretokenizers")}
    normalizers = _parts(state["normalizer"], "normalizers")
    splitters = pre_tokenizers & _SPLITTERS
    if not splitters or not pre_tokenizers <= _KNOWN_PRE_TOKENIZERS or not _are_safe(normalizers):
        return None
    if not _splits_at_blanks(backend):
        return None
    splits_cjk = any(part.get("handle_chinese_chars") for part in normalizers)
    if splitters == {"Metaspace"}:
        cut = _SPACE
    elif splits_cjk and "BertPreTokenizer" in splitters:
        cut = _BLANK_OR_CJK
    else:
        cut = _BLANK
    if any(re.search(cut, token["content"].strip()) for token in state["added_tokens"]):
        return None
    return re.compile(_AFTER_LETTER_OR_DIGIT + cut)


def _are_safe(normalizers: list[dict[str, Any]]) -> bool:
    """Return whether all normalizers are known, and replace nothing but repeated spaces."""
    replaced = [part["pattern"] for part in normalizers if part["type"] == "Replace"]
    are_known = {part["type"] for part in normalizers} <= _KNOWN_NORMALIZERS
    return are_known and all(pattern == {"Regex": " {2,}"} for pattern in replaced)


def _splits_at_blanks(backend: Tokenizer) -> bool:
    """Return whether the pre-tokenizer separates words at blanks; a trial, as a Split may have any pattern."""
    probe = "aa bb 12 cc"
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(probe)]
    return not any(re.search(r"\w[ \u2581\u0120]+\w", piece) for piece in pieces)


def _parts(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return a component and all components nested in it under ``key``."""
    if component is None:
        return []
    return [component, *(p for sub in component.get(key, ()) for p in _parts(sub, key))]
