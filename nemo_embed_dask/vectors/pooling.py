"""Token states to one vector a row, on whatever device the states are. Pure torch.

A new pooling is one function and its row in `POOLINGS`. Each takes ragged states, so that no padding
can leak into a vector and the padding side cannot matter. (The modes are sentence-transformers'.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pooling = Callable[[Tensor, Tensor, int], Tensor]


def _rows(offsets: Tensor, total: int) -> Tensor:
    """The row of each token, int64, shape (total,); the total is named so that a GPU is not asked for it."""
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(rows, offsets.diff(), output_size=total)


def sum_rows(states: Tensor, offsets: Tensor) -> Tensor:
    """Sums over rows, float32 ``[n, h]``, each in its order: adding by index has no fixed order on a GPU."""
    tokens = torch.arange(len(states), device=offsets.device)
    return torch.nn.functional.embedding_bag(
        tokens, states.float(), offsets, mode="sum", include_last_offset=True
    )


def mean_pooling(states: Tensor, offsets: Tensor, _skipped: int = 0) -> Tensor:
    """Mean over a row's tokens."""
    return sum_rows(states, offsets) / offsets.diff()[:, None]


def mean_sqrt_len(states: Tensor, offsets: Tensor, _skipped: int = 0) -> Tensor:
    """Sum over a row's tokens, divided by the square root of their number."""
    return sum_rows(states, offsets) / offsets.diff()[:, None].sqrt()


def weighted_mean(states: Tensor, offsets: Tensor, skipped: int = 0) -> Tensor:
    """Mean over a row's tokens, each weighted by its place in the row, from 1; a skipped prompt counts."""
    places = torch.arange(len(states), device=offsets.device) - offsets[:-1][_rows(offsets, len(states))]
    weights = (places + skipped + 1).float()[:, None]
    return sum_rows(states.float() * weights, offsets) / sum_rows(weights, offsets)


def max_pooling(states: Tensor, offsets: Tensor, _skipped: int = 0) -> Tensor:
    """Largest value of each dimension over a row's tokens."""
    out = states.new_zeros(len(offsets) - 1, states.shape[1], dtype=torch.float32)
    rows = _rows(offsets, len(states))[:, None].expand_as(states)
    return out.scatter_reduce_(0, rows, states.float(), "amax", include_self=False)


def cls_token(states: Tensor, offsets: Tensor, _skipped: int = 0) -> Tensor:
    """A row's first token."""
    return states[offsets[:-1]].float()


def last_token(states: Tensor, offsets: Tensor, _skipped: int = 0) -> Tensor:
    """A row's last token."""
    return states[offsets[1:] - 1].float()


POOLINGS: dict[str, Pooling] = {
    "mean_pooling": mean_pooling,
    "cls": cls_token,
    "last_token": last_token,
    "max": max_pooling,
    "weighted_mean": weighted_mean,
    "mean_sqrt_len": mean_sqrt_len,
}


def is_pooling(name: str) -> bool:
    """Whether `pool` takes this name: keys of `POOLINGS`, joined by "+"."""
    return all(part in POOLINGS for part in name.split("+"))


def pool(name: str, states: Tensor, offsets: Tensor, *, normalize: bool = True, skip: int = 0) -> Tensor:
    """Pool ragged states.

    Parameters
    ----------
    name : str
        A key of `POOLINGS`, or several joined by "+", whose vectors are concatenated.
    states : Tensor, shape (total, h), any float dtype
        Token states of all rows, one row after the other; no row is empty.
    offsets : Tensor of int64, shape (n + 1,)
        Where each row starts, on the states' device.
    normalize : bool
        Scale each vector to unit length.
    skip : int
        Tokens of a prompt before each row's first, which are left out of ``states`` (`Ragged.after`).

    Returns
    -------
    Tensor of float32, shape (n, h) times the number of names
    """
    parts = [POOLINGS[part](states, offsets, skip) for part in name.split("+")]
    pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
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
