"""The layout that is found at load, for models in which a wrong one is easily taken for right."""

from __future__ import annotations

import pytest
import torch
import transformers

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.runtimes.layouts import Layout, find_layout

from ..helpers.architectures import POSITIONS, tiny_model
from .test_probe import CPU, check, rows


def test_a_shift_of_all_positions_is_not_taken_for_rounding():
    """MarkupLM's positions start at 1, and its other embeddings are much larger."""
    runtime = check(tiny_model(transformers.MarkupLMConfig))
    assert runtime._layout.first_position == 1


@pytest.mark.parametrize(("kind", "longest"), [("CLIP", POSITIONS), ("Tipsv2", None)])
def test_a_model_that_counts_the_tokens_of_the_whole_batch_is_padded(kind, longest):
    """They refuse more tokens than positions, also if they are those of several rows."""
    runtime = check(tiny_model(getattr(transformers, f"{kind}TextConfig")), [rows(100, 3, 70, 40)])
    assert runtime._layout == Layout(packed=False, first_position=0)
    assert runtime.max_length == longest


@pytest.mark.parametrize("kind", ["DPR", "Canine", "Vits"])
def test_models_without_token_states_are_refused(kind):
    with pytest.raises(ModelError, match="gives no states for token ids alone"):
        find_layout(tiny_model(getattr(transformers, f"{kind}Config")), CPU, torch.float32)
