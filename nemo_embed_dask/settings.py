"""What decides a vector, and what a run reports. Plain records: no behaviour, no libraries."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from .models import ModelRef
    from .ragged import Side


@dataclass(frozen=True)
class Settings:
    """Everything that decides a vector, and how it is computed. See `stages.EmbeddingCreatorStage`."""

    model: ModelRef
    pooling: str = "mean_pooling"
    max_chars: int | None = None
    max_seq_length: int | None = None
    padding_side: Side = "right"
    model_inference_batch_size: int = 1024
    autocast: bool = True
    sort_by_length: bool = True
    runtime: str = "torch"
    on_error: Literal["raise", "null"] = "raise"


@dataclass
class Stats:
    """What one run did; add them up over partitions. Times in seconds."""

    rows: int = 0
    nulls: int = 0
    tokens: int = 0
    truncated: int = 0
    padded: int = 0
    batches: int = 0
    ooms: int = 0
    tokenize_s: float = 0.0
    model_s: float = 0.0
    total_s: float = 0.0

    def __iadd__(self, other: Stats) -> Self:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))
        return self

    @property
    def padding_waste(self) -> float:
        """Share of the tokens given to the model that were padding."""
        return 1 - self.tokens / self.padded if self.padded else 0.0
