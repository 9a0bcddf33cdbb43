"""Find the slice of its text that each window holds.

Characters without tokens, such as blanks or accents that the tokenizer strips, belong to the window before
them, so that the slices of a text join to the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ragged import Ints
from .windows import Windows

# Characters besides combining marks that continue the one before: vowels of Thai and Lao, joiners of emoji,
# vowels and final consonants of decomposed Korean, skin tones, and tags of flags.
_CONTINUING = (
    (0x0E33, 0x0E33),
    (0x0EB3, 0x0EB3),
    (0x200C, 0x200D),
    (0x1160, 0x11FF),
    (0xD7B0, 0xD7FF),
    (0x1F3FB, 0x1F3FF),
    (0xE0020, 0xE007F),
)
# It joins the emoji before it with the one after it.
_JOINER = "\u200d"
# Unicode's Stream-Safe Text Format allows this many marks on a character; a cut may divide a longer series.
_MOST_MARKS = 30


@dataclass(frozen=True, eq=False)
class TokenSpans:
    """The characters of the tokens of texts.

    ``texts``: with their prompts. ``rows``: the row of each text, in ascending order. ``n_tokens``: tokens of
    each text, special ones not counted. ``starts``, ``ends``: see `Tokenizer.encode_with_offsets`.
    """

    texts: Sequence[str]
    rows: Ints
    n_tokens: Ints
    starts: Ints
    ends: Ints

    def cuts(self, texts: Ints, tokens: Ints) -> Ints:
        """Return the character at which each of these texts is cut before one of its tokens.

        ``tokens``: positions in ``starts``. A character whose bytes are on both sides of a cut is before it.
        """
        sizes = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        first_chars = np.cumsum(sizes) - sizes
        shift = np.repeat(first_chars, self.n_tokens)  # so that no text reaches into the one after it
        reached = np.maximum.accumulate(self.ends + shift) - shift
        cuts = np.maximum(self.starts[tokens], reached[tokens - 1])
        pairs = zip(texts.tolist(), cuts.tolist(), strict=True)
        return np.array([_skip_marks(self.texts[text], cut) for text, cut in pairs], np.int64)


def window_slices(windows: Windows, spans: TokenSpans, *, n_prompt: int, n_constant: int) -> tuple[Ints, Ints]:
    """Return where each window starts and ends in its text without the prompt; 0 and 0 for rows without a text.

    Parameters
    ----------
    windows : Windows
    spans : TokenSpans
    n_prompt : int
        Characters of the prompt.
    n_constant : int
        Tokens of the prompt that every window repeats; ``windows.starts`` does not count them.

    Examples
    --------
    The text " ab  cd " has the tokens "ab" and "cd". In windows of one token, its slices are " ab  " and "cd ".
    """
    rows = windows.rows
    texts = np.searchsorted(spans.rows, rows)
    has_text = np.isin(rows, spans.rows)
    is_first, is_last = np.diff(rows, prepend=-1) != 0, np.diff(rows, append=-1) != 0
    first_tokens = np.append(np.cumsum(spans.n_tokens) - spans.n_tokens, 0)
    tokens = first_tokens[texts] + n_constant + windows.starts
    starts, ends = np.zeros((2, len(rows)), np.int64)
    ends[has_text] = [len(spans.texts[text]) for text in texts[has_text]]
    starts[~is_first] = spans.cuts(texts[~is_first], tokens[~is_first])
    ends[~is_last] = spans.cuts(texts[~is_last], (tokens + windows.sizes)[~is_last])
    return np.maximum(0, starts - n_prompt), np.maximum(0, ends - n_prompt)


def _skip_marks(text: str, position: int) -> int:
    """Return the position of the next character that does not continue the one before it."""
    last = min(len(text), position + _MOST_MARKS)
    while position < last and _continues(text, position):
        position += 1
    return position


def _continues(text: str, position: int) -> bool:
    before, char = text[max(0, position - 1) : position], text[position]
    if before == _JOINER or before + char == "\r\n" or unicodedata.category(char)[0] == "M":
        return True
    if _is_flag_letter(char):
        letters = next((k for k in range(position) if not _is_flag_letter(text[position - 1 - k])), position)
        return letters % 2 == 1  # a flag is two letters
    return any(low <= ord(char) <= high for low, high in _CONTINUING)


def _is_flag_letter(char: str) -> bool:
    return 0x1F1E6 <= ord(char) <= 0x1F1FF
