"""Pooling: from token states to one vector per row, on the device of the states.

The modes are those of sentence-transformers. Each takes ragged states, so padding cannot change a vector.
To add a mode, write one function and add it to `POOLINGS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Arguments: token states, offsets, and the number of prompt tokens that were removed from each row's start.
Pooling = Callable[[Tensor, Tensor, int], Tensor]


def _row_of_each_token(offsets: Tensor, total: int) -> Tensor:
    """Return each token's row number, int64 ``[total]``."""
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    # Without output_size torch would wait for the GPU to know the total.
    return torch.repeat_interleave(rows, offsets.diff(), output_size=total)


def sum_rows(states: Tensor, offsets: Tensor) -> Tensor:
    """Return the sum of each row's states, float32 ``[n, h]``, added in a fixed order.

    ``index_add_`` would be simpler, but has no fixed order on a GPU.
    """
    tokens = torch.arange(len(states), device=offsets.device)
    return torch.nn.functional.embedding_bag(
        tokens, states.float(), offsets, mode="sum", include_last_offset=True
    )


def mean_pooling(states: Tensor, offsets: Tensor, _prompt_tokens: int) -> Tensor:
    """Return the mean of each row's tokens."""
    return sum_rows(states, offsets) / offsets.diff()[:, None]


def mean_sqrt_len(states: Tensor, offsets: Tensor, _prompt_tokens: int) -> Tensor:
    """Return the sum of each row's tokens, divided by the square root of their number."""
    return sum_rows(states, offsets) / offsets.diff()[:, None].float().sqrt()


def weighted_mean(states: Tensor, offsets: Tensor, prompt_tokens: int) -> Tensor:
    """Return the mean of each row's tokens, weighted by position: 1 for the first token of the prompt."""
    row_starts = offsets[:-1][_row_of_each_token(offsets, len(states))]
    positions = torch.arange(len(states), device=offsets.device) - row_starts
    weights = (positions + prompt_tokens + 1).float()[:, None]
    return sum_rows(states.float() * weights, offsets) / sum_rows(weights, offsets)


def max_pooling(states: Tensor, offsets: Tensor, _prompt_tokens: int) -> Tensor:
    """Return the largest value of each dimension over a row's tokens."""
    out = states.new_zeros(len(offsets) - 1, states.shape[1], dtype=torch.float32)
    rows = _row_of_each_token(offsets, len(states))[:, None].expand_as(states)
    return out.scatter_reduce_(0, rows, states.float(), "amax", include_self=False)


def cls_token(states: Tensor, offsets: Tensor, _prompt_tokens: int) -> Tensor:
    """Return each row's first token."""
    return states[offsets[:-1]].float()


def last_token(states: Tensor, offsets: Tensor, _prompt_tokens: int) -> Tensor:
    """Return each row's last token."""
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
    """Return whether `pool` accepts this name: keys of `POOLINGS`, joined by "+"."""
    return all(part in POOLINGS for part in name.split("+"))


def pool(
    name: str, states: Tensor, offsets: Tensor, *, normalize: bool = True, prompt_tokens: int = 0
) -> Tensor:
    """Pool ragged token states to one vector per row.

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
    prompt_tokens : int
        Number of prompt tokens that were removed from the start of each row.

    Returns
    -------
    Tensor of float32, shape (n, h * number of names)
    """
    parts = [POOLINGS[part](states, offsets, prompt_tokens) for part in name.split("+")]
    pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return torch.nn.functional.normalize(pooled, dim=1) if normalize else pooled


def unpad(block: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return padded states as ragged ones; the padding may be on either side.

    Parameters
    ----------
    block : Tensor, shape (n, longest, h)
    mask : Tensor, shape (n, longest)
        Not zero where there is a token.

    Returns
    -------
    states : Tensor, shape (total, h)
    offsets : Tensor of int64, shape (n + 1,)
    """
    mask = mask.bool()
    offsets = torch.nn.functional.pad(mask.sum(dim=1).cumsum(0), (1, 0))
    return block[mask], offsets
