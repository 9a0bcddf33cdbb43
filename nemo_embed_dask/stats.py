"""Statistics of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Self


@dataclass
class Stats:
    """Statistics of one run, in rows, tokens and seconds; those of several partitions can be added.

    Attributes
    ----------
    rows, nulls : int
        Rows, and nulls among them.
    tokens : int
        Tokens of distinct texts.
    truncated : int
        Distinct texts that were cut.
    shared : int
        Rows whose vector is that of an equal text.
    padded : int
        Tokens that the model was given, padding included.
    batches, ooms : int
        Forward passes, and those that ran out of memory.
    computed_in : dict
        Distinct rows by the number type of their vectors; "float16" and then "bfloat16" or "float32", if rows
        were computed again because their values overflow float16.
    tokenize_s, model_s, total_s : float
        Seconds.
    """

    rows: int = 0
    nulls: int = 0
    tokens: int = 0
    truncated: int = 0
    shared: int = 0
    padded: int = 0
    batches: int = 0
    ooms: int = 0
    computed_in: dict[str, int] = field(default_factory=dict)
    tokenize_s: float = 0.0
    model_s: float = 0.0
    total_s: float = 0.0

    def __iadd__(self, other: Stats) -> Self:
        for item in fields(self):
            if item.name != "computed_in":
                setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))
        for number_type, rows in other.computed_in.items():
            self.count_rows(number_type, rows)
        return self

    def count_rows(self, number_type: str, rows: int) -> None:
        """Add rows whose vectors were computed in a number type."""
        if rows:
            self.computed_in = self.computed_in | {number_type: self.computed_in.get(number_type, 0) + rows}

    @property
    def fraction_deduplicated(self) -> float:
        """Fraction of the rows whose vector is that of an equal text."""
        return self.shared / self.rows if self.rows else 0.0

    @property
    def padding_waste(self) -> float:
        """Fraction of the model's input tokens that were padding."""
        return 1 - self.tokens / self.padded if self.padded else 0.0
