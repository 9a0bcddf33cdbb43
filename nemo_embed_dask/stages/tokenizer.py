"""Text to tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..options import option, option_from
from ..ragged import Side
from ..settings import Batching, Reading, Shared
from ..stage_settings import CuratorNames, TextColumns
from ..tokens.cudf import wordpiece_of
from ..tokens.reader import find_reader
from .base import INPUT_ID_FIELD, Names, Stage
from .mapping import map_column
from .signature import parameters
from .tasks import TokenizeTask


@parameters("model_identifier", "hf_token", "text_field", "max_chars", "max_seq_length", "padding_side",
            "sort_by_length", "unk_token")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class TokenizerStage(Stage, TextColumns, Reading, Shared):
    """Text to tokens: adds a column ``input_ids`` of ragged ``list<int32>``, null where the text is null.

    Curator pads and sorts the rows, and adds a mask and an order column. Here rows keep their length and order.
    With ``long_documents="mean"`` a row holds all tokens of its text; with "explode" there is one row per
    window.
    """

    hf_token: str | None = option_from(CuratorNames, "hf_token")
    padding_side: Side = option_from(Batching, "padding_side", help="No effect: tokens are not padded.")
    sort_by_length: bool = option_from(Batching, "sort_by_length", help="No effect: rows are not sorted.")
    unk_token: bool = option(False, keeps_vectors=True, help="No effect: tokens are not padded.")

    def inputs(self) -> Names:
        """Return the names of what the stage reads: the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Names:
        """Return the names of the text column, which stays, and of the token column."""
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
