"""Convert a partition's vectors to the types in which they are stored; rows that do not fit fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..lists import Lists
from ..number_types import Output
from ..rows import Embedded
from ..vectors.quantization import lost_vectors, quantize
from .batches import Run


def convert_outputs(out: Embedded, run: Run) -> Embedded:
    """Return the rows with their vectors in the width and number type of each output.

    A row whose vector does not fit one of the types fails in all columns.
    """
    settings, head = run.settings, run.model.head
    lost: dict[int, str] = {}

    def convert(output: Output, where: str) -> torch.Tensor:
        sized = replace(output, dim=output.dim or head.default_dim)
        stored = quantize(out.matrix, sized, normalize=head.normalize, ranges=settings.ranges)
        lost.update({row: f"{where}: {reason}" for row, reason in lost_vectors(out.matrix, stored).items()})
        return stored

    first = Output("", settings.truncate_dim, settings.embedding_dtype)
    if out.lists is not None:
        out = replace(out, lists=_convert_lists(out.lists, first, lost, normalize=head.normalize))
    else:
        matrix = convert(first, "embedding_dtype")
        extra = {output.name: convert(output, f"column {output.name!r}") for output in settings.extra_outputs}
        out = replace(out, matrix=matrix, extra=extra)
    for row, reason in lost.items():
        out.fail(row, reason)
    out.failures = dict(sorted(out.failures.items()))
    return out


def _convert_lists(lists: Lists, output: Output, lost: dict[int, str], *, normalize: bool) -> Lists:
    """Return lists in the width and number type of an output; add the rows that it cannot hold to ``lost``."""
    values = lists.columns[""]
    if values.dim() == 1:
        return _convert_weights(lists, output, lost)
    stored = quantize(values, output, normalize=normalize)
    for place, reason in lost_vectors(values, stored).items():
        lost[int(np.searchsorted(lists.offsets, place, side="right")) - 1] = f"embedding_dtype: {reason}"
    return Lists(lists.columns | {"": stored}, lists.offsets)


def _convert_weights(lists: Lists, output: Output, lost: dict[int, str]) -> Lists:
    """As `_convert_lists` for weighted tokens, largest first: without the tokens whose weights become zero."""
    exact = lists.columns[""][:, None]
    stored = quantize(exact, output, normalize=False)
    rows = np.flatnonzero(np.diff(lists.offsets))
    largest = torch.from_numpy(lists.offsets[rows]).to(exact.device)
    reasons = lost_vectors(exact[largest], stored[largest], "store float32")
    lost.update({int(rows[place]): f"embedding_dtype: {reason}" for place, reason in reasons.items()})
    lists = Lists(lists.columns | {"": stored[:, 0]}, lists.offsets)
    return lists.where(stored[:, 0] != 0) if stored.dtype == torch.float16 else lists
