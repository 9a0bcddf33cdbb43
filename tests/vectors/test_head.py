from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer import modules as st

from nemo_embed_dask.errors import ConfigError, ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.vectors.head import Head

from .test_layers import saved

CPU = torch.device("cpu")


def test_error_for_layers_that_cannot_take_the_pooled_vectors(tiny, tmp_path):
    card = read_card(saved(tiny("bert"), tmp_path / "a", st.Dense(32, 8)))
    assert Head(card, 32, CPU, pooling="auto", normalize=None).dimension == 8
    with pytest.raises(ConfigError, match="embedding_pooling='cls\\+max'"):
        Head(card, 32, CPU, pooling="cls+max", normalize=None)
    foreign = read_card(saved(tiny("bert"), tmp_path / "b", st.Dense(32, 8), st.LayerNorm(16)))
    with pytest.raises(ModelError, match="cannot take the vectors of the module before it"):
        Head(foreign, 32, CPU, pooling="auto", normalize=None)


def test_error_for_a_pooling_of_another_width(tiny, tmp_path):
    card = read_card(saved(tiny("bert"), tmp_path / "m"))
    with pytest.raises(ModelError, match="of 32 dimensions, but the model's have 48"):
        Head(card, 48, CPU, pooling="auto", normalize=None)
