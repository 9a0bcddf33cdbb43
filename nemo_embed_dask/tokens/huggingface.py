"""Strings to ragged token ids. Knows no model and no batch.

Hugging Face tokenizers do the work, in bulk and without padding. What is ours: special tokens are put
on as arrays, and the cost of a long text is bounded. The library tokenizes a whole text before it
truncates; here only as much of the text is read as provably decides the kept tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as HfTokenizer

from ..errors import ModelError
from ..models.sentence_transformers import load_failure
from ..ragged import Ints, Ragged

# Characters read per wanted token at first, and by how much more after a miss. English runs at 4 to 5
# characters a token, so that one look is enough for nearly all texts.
_CHARS_PER_TOKEN, _GROWTH = 10, 4
# Pre-tokenizers that never join text across a blank, and normalizers that look no further than a
# character and its marks: under these, what stands before a blank has the same tokens whatever follows.
_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Split", "Metaspace"}
_PRE = _SPLITTERS | {"Punctuation", "Digits", "Sequence", "UnicodeScripts"}
_NORM = {
    "BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Precompiled",
    "Nmt", "Sequence", "Strip", "Replace",
}  # fmt: skip
# Only after a letter or digit: some patterns join punctuation to the line breaks behind it. Metaspace
# splits at plain spaces alone; BERT also puts spaces around every CJK ideograph.
_BLANK, _SPACE = r"(?<=[^\W_])[ \t\r\n]", r"(?<=[^\W_]) "
_CJK = r"(?<=[^\W_])[ \t\r\n\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df]"


@dataclass(frozen=True)
class Tokens:
    """Tokens of some texts.

    ``ids``: Ragged int32. ``truncated``: bool, shape (n,), whether tokens were cut from the row.
    """

    ids: Ragged
    truncated: npt.NDArray[np.bool_]


class Tokenizer:
    """A Hugging Face tokenizer that returns ragged ids, with work bounded by the length limit.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Its own padding and truncation are overridden.
    keep_end : bool
        Whether a text that is too long loses its first tokens instead of its last (``truncation_side``).
    """

    def __init__(self, backend: HfTokenizer, *, keep_end: bool = False) -> None:
        self._keep_end = keep_end
        self._backend = HfTokenizer.from_str(backend.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        self.prefix, self.suffix = _special_ids(self._backend)
        self._boundary = None if keep_end else _boundary(self._backend)

    @classmethod
    def from_directory(cls, path: Path, *, lowercase: bool = False) -> Tokenizer:
        """Load a model directory's tokenizer as transformers would."""
        from tokenizers import normalizers

        loaded = load_tokenizer(path)
        if not loaded.is_fast:
            raise ModelError(f"{path} has a {type(loaded).__name__}, which the tokenizers library cannot run")
        if "token_type_ids" in loaded.model_input_names and any(loaded("a")["token_type_ids"]):
            raise ModelError(f"the tokenizer of {path} gives token types, which this package does not hand on")
        backend = HfTokenizer.from_str(loaded.backend_tokenizer.to_str())
        if lowercase:
            first = [normalizers.Lowercase()]
            rest = [backend.normalizer] if backend.normalizer else []
            backend.normalizer = normalizers.Sequence(first + rest)
        return cls(backend, keep_end=loaded.truncation_side == "left")

    @property
    def state(self) -> dict[str, Any]:
        """What the tokenizer is made of, as its file has it."""
        state: dict[str, Any] = json.loads(self._backend.to_str())
        return state

    @property
    def n_special_tokens(self) -> int:
        """How many special tokens every row gets."""
        return len(self.prefix) + len(self.suffix)

    def encode(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Tokenize, truncate, and add special tokens.

        Parameters
        ----------
        texts : sequence of str
        max_length : int
            Tokens a row may have, special tokens among them; these are always kept.

        Returns
        -------
        Tokens
        """
        room = max(0, max_length - self.n_special_tokens)
        rows, truncated = self._first_ids(texts, room)
        inner = Ragged.from_rows(rows)
        return Tokens(inner.surround(self.prefix, self.suffix), truncated)

    def encode_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ints, Ints]:
        """Tokenize without a limit, and say which characters each token is of.

        Returns
        -------
        ids : Ragged
            Special tokens among them.
        begins, ends : ndarray of int64, shape (tokens without special ones,)
            Each token is of ``text[begin:end]``.
        """
        encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        inner = Ragged.from_rows([encoding.ids for encoding in encoded])
        spans = np.array([span for encoding in encoded for span in encoding.offsets], np.int64).reshape(-1, 2)
        return inner.surround(self.prefix, self.suffix), spans[:, 0], spans[:, 1]

    def _first_ids(self, texts: Sequence[str], room: int) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
        """The first ``room`` ids of each text, and which texts have more."""
        ids: list[list[int]] = [[] for _ in texts]
        truncated = np.zeros(len(texts), np.bool_)
        todo, chars = list(range(len(texts))), max(256, room * _CHARS_PER_TOKEN)
        while todo:
            again = []
            heads = [self._head(texts[i], chars) for i in todo]
            encoded = self._backend.encode_batch_fast(heads, add_special_tokens=False)
            for i, head, encoding in zip(todo, heads, encoded, strict=True):
                found = encoding.ids
                if len(head) == len(texts[i]) or len(found) > room:
                    first = max(0, len(found) - room) if self._keep_end else 0
                    ids[i], truncated[i] = found[first : first + room], len(found) > room
                else:
                    again.append(i)
            todo, chars = again, chars * _GROWTH
        return ids, truncated

    def _head(self, text: str, chars: int) -> str:
        """The text up to the first boundary after ``chars``; all of it where none is to be had."""
        found = self._boundary.search(text, chars) if self._boundary and len(text) > chars else None
        return text[: found.start()] if found else text


def load_tokenizer(path: Path) -> Any:
    """Load a model directory's tokenizer by transformers' own code, never by the model's.

    Raises
    ------
    ModelError
        It needs code of its own, or its files cannot be read.
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises no narrower type
        raise ModelError(
            f"transformers {transformers.__version__} cannot load the tokenizer of {path}, and a model's own "
            "code is never run: use a model with a tokenizer that transformers has, or a newer transformers "
            f"({load_failure(error, path / 'tokenizer_config.json')})"
        ) from error


def _special_ids(backend: HfTokenizer) -> tuple[list[int], list[int]]:
    """The ids that the post-processor puts before and after a text."""
    (bare, full), other = (
        [backend.encode(text, add_special_tokens=special).ids for special in (False, True)]
        for text in ("a", "bc d")
    )
    for start in range(len(full) - len(bare) + 1):
        before, after = full[:start], full[start + len(bare) :]
        if [*before, *bare, *after] == full and [*before, *other[0], *after] == other[1]:
            return before, after
    raise ModelError(
        "the tokenizer's post-processor does more than add special tokens around a text "
        f"({bare} became {full}); give it a TemplateProcessing that only adds them"
    )


def _parts(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if component is None:
        return []
    return [component, *(p for sub in component.get(key, ()) for p in _parts(sub, key))]


def _boundary(backend: HfTokenizer) -> re.Pattern[str] | None:
    """Where a text may be cut without changing the tokens before the cut; None where nowhere is sure."""
    state = json.loads(backend.to_str())
    pre = {part["type"]: part for part in _parts(state["pre_tokenizer"], "pretokenizers")}
    norm = _parts(state["normalizer"], "normalizers")
    known = pre.keys() <= _PRE and {part["type"] for part in norm} <= _NORM
    replaced = [p["pattern"] for p in norm if p["type"] == "Replace"]
    if not known or not pre.keys() & _SPLITTERS or any(r != {"Regex": " {2,}"} for r in replaced):
        return None
    if not _splits_at_blanks(backend):
        return None
    chinese = any(part.get("handle_chinese_chars") for part in norm)
    only_spaces = not pre.keys() & (_SPLITTERS - {"Metaspace"})
    pattern = _SPACE if only_spaces else _CJK if chinese and "BertPreTokenizer" in pre else _BLANK
    cut = re.compile(pattern.removeprefix(r"(?<=[^\W_])"))
    spanned = any(cut.search(token["content"].strip()) for token in state["added_tokens"])
    return None if spanned else re.compile(pattern)


def _splits_at_blanks(backend: HfTokenizer) -> bool:
    """Whether the pre-tokenizer really separates words, however it is put together."""
    probe = "aa bb 12 cc"
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(probe)]
    return not any(re.search(r"\w[ \u2581\u0120]+\w", piece) for piece in pieces)
