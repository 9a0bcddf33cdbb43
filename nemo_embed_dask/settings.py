"""What decides a vector, and what a run reports. Plain records: no behaviour, no libraries."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from .models.locate import ModelRef
    from .ragged import Side


# The lowest and the highest value of every dimension; one such pair for each width in use.
Range = tuple[tuple[float, ...], tuple[float, ...]]
Ranges = tuple[Range, ...]


@dataclass(frozen=True)
class Output:
    """A column of vectors: its name, width (None: the model's) and number type (a key of `storage.DTYPES`)."""

    name: str
    dim: int | None = None
    dtype: str = "float32"


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
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    embedding_dtype: str = "float32"
    extra_outputs: tuple[Output, ...] = ()
    ranges: Ranges = ()
    long_documents: Literal["truncate", "mean", "explode"] = "truncate"
    overlap: int = 0
    share_equal_texts: bool = True
    adapter: str | None = None
    tokenizer: Literal["auto", "huggingface", "cudf"] = "auto"


@dataclass
class Stats:
    """What one run did; add them up over partitions. Times in seconds.

    ``tokens`` and ``truncated`` count what was embedded: of equal texts, one.
    """

    rows: int = 0
    nulls: int = 0
    tokens: int = 0
    truncated: int = 0
    shared: int = 0
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
    def share_saved(self) -> float:
        """Share of the rows that took their vector from an equal text."""
        return self.shared / self.rows if self.rows else 0.0

    @property
    def padding_waste(self) -> float:
        """Share of the tokens given to the model that were padding."""
        return 1 - self.tokens / self.padded if self.padded else 0.0
