"""Token states to one vector a row, on whatever device the states are. Pure torch.

A new pooling is one function and its row in `POOLINGS`. Each takes ragged states, so that no padding
can leak into a vector and the padding side cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pooling = Callable[[Tensor, Tensor], Tensor]


def _rows(offsets: Tensor, total: int) -> Tensor:
    """The row of each token, int64, shape (total,); the total is named so that a GPU is not asked for it."""
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(rows, offsets.diff(), output_size=total)


def _sum(states: Tensor, offsets: Tensor) -> Tensor:
    out = states.new_zeros(len(offsets) - 1, states.shape[1], dtype=torch.float32)
    return out.index_add_(0, _rows(offsets, len(states)), states.float())


def mean_pooling(states: Tensor, offsets: Tensor) -> Tensor:
    """Mean over a row's tokens."""
    return _sum(states, offsets) / offsets.diff()[:, None]


def cls_token(states: Tensor, offsets: Tensor) -> Tensor:
    """A row's first token."""
    return states[offsets[:-1]].float()


def last_token(states: Tensor, offsets: Tensor) -> Tensor:
    """A row's last token."""
    return states[offsets[1:] - 1].float()


POOLINGS: dict[str, Pooling] = {
    "mean_pooling": mean_pooling,
    "cls": cls_token,
    "last_token": last_token,
}


def pool(name: str, states: Tensor, offsets: Tensor, *, normalize: bool = True) -> Tensor:
    """Pool ragged states.

    Parameters
    ----------
    name : str
        A key of `POOLINGS`.
    states : Tensor, shape (total, h), any float dtype
        Token states of all rows, one row after the other; no row is empty.
    offsets : Tensor of int64, shape (n + 1,)
        Where each row starts, on the states' device.
    normalize : bool
        Scale each vector to unit length.

    Returns
    -------
    Tensor of float32, shape (n, h)
    """
    pooled = POOLINGS[name](states, offsets)
    return torch.nn.functional.normalize(pooled, dim=1) if normalize else pooled


def flatten(block: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Padded states to ragged ones, for either padding side.

    Parameters
    ----------
    block : Tensor, shape (n, longest, h)
    mask : Tensor, shape (n, longest)
        Non-zero where a token is.

    Returns
    -------
    states : Tensor, shape (total, h)
    offsets : Tensor of int64, shape (n + 1,)
    """
    mask = mask.bool()
    offsets = torch.nn.functional.pad(mask.sum(dim=1).cumsum(0), (1, 0))
    return block[mask], offsets
