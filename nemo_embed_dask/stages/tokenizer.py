"""Text to tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..ragged import Side
from ..tokens.cudf import wordpiece_of
from ..tokens.texts import find_reader
from .base import INPUT_ID_FIELD, Fields, Stage
from .mapping import map_column
from .tasks import TokenizeTask


@dataclass(frozen=True)
class TokenizerStage(Stage):
    """Text to tokens: a column ``input_ids`` of ragged list<int32>, null where the text is.

    Unlike Curator's, rows are neither padded nor reordered and there is no mask column: the model stage
    sorts by itself, so that no order column is needed either.

    Parameters
    ----------
    model_identifier : str
        A directory, or a name on the Hugging Face hub.
    hf_token : str, optional
        For gated models; it stays in this process (other processes read HF_TOKEN).
    text_field : str
        The column with the text. It is never changed.
    max_chars : int, optional
        Characters of a text that are read.
    max_seq_length : int, optional
        Tokens a row, special tokens among them. Default: the model's own sentence-transformers
        configuration, then ``model_max_length``, then its position table. (Curator: ``model_max_length``.)
    padding_side, sort_by_length, unk_token
        Curator's; without effect here, since tokens are not padded.
    revision, cache_dir : str, optional
        Which commit of a hub model, and where the Hugging Face cache is.
    on_error : "raise" or "null"
        What a row that is no valid text does: stop with its position, or get a null.
    prompt, prompt_name, long_documents, overlap, n_tokens_field, truncated_field, tokenizer
        See `EmbeddingCreatorStage`. With "mean", rows hold all tokens of a text; with "explode", there is a row
        a window.
    """

    model_identifier: str
    hf_token: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    text_field: str = field(default="text", kw_only=True)
    max_chars: int | None = field(default=None, kw_only=True)
    max_seq_length: int | None = field(default=None, kw_only=True)
    padding_side: Side = field(default="right", kw_only=True)
    sort_by_length: bool = field(default=True, kw_only=True)
    unk_token: bool = field(default=False, kw_only=True)
    revision: str | None = field(default=None, kw_only=True)
    cache_dir: str | None = field(default=None, kw_only=True)
    on_error: Literal["raise", "null"] = field(default="raise", kw_only=True)
    prompt: str | None = field(default=None, kw_only=True)
    prompt_name: str | None = field(default=None, kw_only=True)
    long_documents: Literal["truncate", "mean", "explode"] = field(default="truncate", kw_only=True)
    overlap: int = field(default=0, kw_only=True)
    n_tokens_field: str | None = field(default=None, kw_only=True)
    truncated_field: str | None = field(default=None, kw_only=True)
    tokenizer: Literal["auto", "huggingface", "cudf"] = field(default="auto", kw_only=True)

    def inputs(self) -> Fields:
        """Reads the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Fields:
        """Keeps the text column and adds the tokens."""
        return ["data"], [self.text_field, INPUT_ID_FIELD]

    def setup(self, _: Any = None) -> None:
        """Load the tokenizer into this process."""
        reader = find_reader(self.settings)
        if self.tokenizer == "cudf":
            wordpiece_of(reader.tokenizer)

    def __call__(self, df: Any) -> Any:
        """Add the token column."""
        task = TokenizeTask(self.settings, INPUT_ID_FIELD, self.n_tokens_field, self.truncated_field)
        return map_column(df, self.text_field, task, label="tokenize")
