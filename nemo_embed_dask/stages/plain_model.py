"""The transformer of a stage as transformers loads it, for stages with hooks of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..device import default_device
from ..models.card import find_card
from ..models.weights import load_weights

if TYPE_CHECKING:
    from ..settings import Settings


def load_plain_model(settings: Settings) -> torch.nn.Module:
    """Return the model's transformer in float32 on the best device, without its pooling and layers."""
    card = find_card(settings.model, settings.adapter)
    return load_weights(card.weights_path, torch.float32, card.adapter, code=card.code).to(default_device())
