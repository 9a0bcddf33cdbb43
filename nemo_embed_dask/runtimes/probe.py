"""Check a model at load: each row must have the same token states in a batch as alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

# Greatest difference, as 1 - cosine, that counts as rounding.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def states_agree(states: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Return whether two sets of token states are equal up to the rounding errors of ``dtype``."""
    distance = 1 - cosine_similarity(states.float(), expected.float(), dim=1)
    return bool(distance.max() < _TOLERANCE[dtype])
