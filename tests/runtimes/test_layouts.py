"""The layout that is found at load, for models in which a wrong one is easily taken for right."""

from __future__ import annotations

import pytest
import torch
import transformers

from nemo_embed_dask.device_ragged import DeviceRagged
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.layouts import Layout, find_layout, forward, set_attention
from nemo_embed_dask.runtimes.packed_attention import NAME
from nemo_embed_dask.runtimes.torch import load

from ..helpers.architectures import POSITIONS, tiny_model
from ..helpers.versions import TRANSFORMERS, needs
from .test_probe import CPU, check, rows


def test_a_shift_of_all_positions_is_not_taken_for_rounding():
    """MarkupLM's positions start at 1, and its other embeddings are much larger."""
    runtime = check(tiny_model(transformers.MarkupLMConfig))
    assert runtime._layout.first_position == 1


_NEW = needs("transformers", TRANSFORMERS, "older ones lack it")


@pytest.mark.parametrize(("kind", "longest"), [("CLIP", POSITIONS), pytest.param("Tipsv2", None, marks=_NEW)])
def test_a_model_that_counts_the_tokens_of_the_whole_batch_is_padded(kind, longest):
    """They refuse more tokens than positions, also if they are those of several rows."""
    runtime = check(tiny_model(getattr(transformers, f"{kind}TextConfig")), [rows(100, 3, 70, 40)])
    assert runtime._layout == Layout(packed=False, first_position=0)
    assert runtime.max_length == longest


@pytest.mark.parametrize("layout", [Layout(True, 0), Layout(True, 2), Layout(False, 2), Layout(False, None)])
def test_ids_on_the_device_have_the_states_of_those_on_the_host(tiny, layout):
    """Also with padding ids in the text, which have no position of their own in such a model."""
    runtime = load(read_card(tiny("roberta")), autocast=False)
    ids = Ragged.from_rows([[5, 1, 6, 1, 1, 7], [8], [1, 9, 4], [3, 2, 2, 1]])
    assert set_attention(runtime.model, NAME if layout.packed else "sdpa")
    on_device = DeviceRagged.from_host(ids, CPU)
    with torch.inference_mode():
        expected, found = (forward(runtime.model, layout, rows, CPU) for rows in (ids, on_device))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["DPR", "Canine", "Vits"])
def test_models_without_token_states_are_refused(kind):
    with pytest.raises(ModelError, match="gives no states for token ids alone"):
        find_layout(tiny_model(getattr(transformers, f"{kind}Config")), CPU, torch.float32)
