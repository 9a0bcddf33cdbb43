"""Vectors of texts with what is known of each row: empty, in parts, put together. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from .ragged import Ints
from .settings import Output, Settings, Stats
from .tokens.texts import Bools, Spans, Tokenized
from .vectors import quantization as storage


@dataclass
class Embedded:
    """Vectors of texts.

    ``matrix``: ``[n, d]`` on the runtime's device, of the settings' ``embedding_dtype``. ``valid``: bool
    ``[n]``, False for a null or a failed row. ``failures``: row -> what is wrong with it. ``n_tokens``:
    int64 ``[n]``, tokens read, special ones among them; ``truncated``: bool ``[n]``. ``extra``: the
    settings' extra outputs by name. ``spans``: where each row is from, if texts were exploded.
    """

    matrix: torch.Tensor
    valid: Bools
    stats: Stats
    failures: dict[int, str] = field(default_factory=dict)
    n_tokens: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    truncated: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    spans: Spans | None = None

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device) -> Embedded:
        """Rows of zeros, none of them valid."""
        matrix = torch.zeros((rows, width), dtype=torch.float32, device=device)
        return cls(
            matrix, np.zeros(rows, np.bool_), Stats(), {}, np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
        )

    @classmethod
    def concat(cls, parts: Sequence[Embedded]) -> Embedded:
        """All rows of all parts, in order; at least one part."""
        if len(parts) == 1:
            return parts[0]
        names = ("valid", "n_tokens", "truncated")
        valid, n_tokens, truncated = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        out = cls(torch.cat([part.matrix for part in parts]), valid, Stats(), {}, n_tokens, truncated)
        for part in parts:
            out.stats += part.stats
        return out

    def part(self, span: slice, tokens: Tokenized) -> Embedded:
        """The rows that belong to these tokens, over the same memory."""
        lengths = tokens.ids.lengths
        self.valid[span], self.truncated[span], self.n_tokens[span] = tokens.valid, tokens.truncated, lengths
        return Embedded(
            self.matrix[span], self.valid[span], tokens.stats, tokens.failures, self.n_tokens[span],
            self.truncated[span], spans=tokens.spans,
        )  # fmt: skip

    def clear_failed(self) -> None:
        """Failed rows are not valid and hold zeros."""
        for failed in self.failures:
            self.matrix[failed], self.valid[failed] = 0.0, False

    def spread(self, places: Ints, nulls: int) -> Embedded:
        """A row for each place, which names the row to copy: vectors of equal texts."""
        stats = self.stats
        stats.shared = len(places) - nulls - (stats.rows - stats.nulls)
        stats.rows, stats.nulls = len(places), nulls
        failures = {i: self.failures[k] for i, k in enumerate(places.tolist()) if k in self.failures}
        matrix = self.matrix[torch.from_numpy(places).to(self.matrix.device)]
        return Embedded(
            matrix, self.valid[places], stats, failures, self.n_tokens[places], self.truncated[places]
        )  # fmt: skip

    def stored(self, settings: Settings, *, unit: bool, width: int) -> Embedded:
        """The same rows with vectors as they are stored, all outputs from the one matrix.

        ``width`` is that of outputs that state none.
        """
        outputs = (Output("", settings.truncate_dim, settings.embedding_dtype), *settings.extra_outputs)
        sized = (replace(output, dim=output.dim or width) for output in outputs)
        first, *others = (
            storage.quantize(self.matrix, o, normalize=unit, ranges=settings.ranges) for o in sized
        )
        self.extra = {output.name: part for output, part in zip(outputs[1:], others, strict=True)}
        self.matrix = first
        return self
