"""The transformer of a stage as transformers loads it, for stages with hooks of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..device import default_device
from ..errors import ConfigError
from ..models.card import find_card
from ..models.prompts import find_prompt
from ..models.weights import load_weights
from ..vectors.head import Head

if TYPE_CHECKING:
    from ..settings import Settings


def load_plain_model(settings: Settings) -> torch.nn.Module:
    """Return the model's transformer in float32 on the best device, without its pooling and layers."""
    card = find_card(settings.model, settings.adapter)
    return load_weights(card.weights_path, torch.float32, card.adapter, code=card.code).to(default_device())


def load_plain_head(settings: Settings, model: torch.nn.Module) -> Head:
    """Return the pooling of these settings and the layers after it; warns and refuses as the engine does.

    Raises
    ------
    ConfigError
        The model leaves its prompt out of the pooling, and hooks do not know where it ends.
    """
    card = find_card(settings.model, settings.adapter)
    if not card.include_prompt and find_prompt(card, settings.prompt, settings.prompt_name):
        raise ConfigError(
            f"model {card.name!r} leaves the prompt's tokens out of its pooling, which a stage that overrides "
            "a hook cannot do; pass prompt='', or override process_model_output"
        )
    device = default_device()
    ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
    with torch.inference_mode():
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    return Head(card, states.shape[-1], device, pooling=settings.pooling, normalize=settings.normalize)
