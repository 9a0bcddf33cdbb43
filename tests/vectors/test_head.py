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


def test_error_for_a_directory_whose_modules_are_lost(tiny, tmp_path):
    """sentence-transformers would ignore the prompts, and pool the mean, whatever the model's pooling was."""
    path = saved(tiny("bert"), tmp_path / "m")
    (path / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"'m' has a config_sentence_transformers\.json but no modules\.json"):
        Head(read_card(path), 32, CPU, pooling="auto", normalize=None)
    assert Head(read_card(path), 32, CPU, pooling="cls", normalize=None).dimension == 32


def test_vectors_whose_length_overflows_are_not_zeros(tiny):
    head = Head(read_card(tiny("bert")), 2, CPU, pooling="mean_pooling", normalize=True)
    vectors = head(torch.tensor([[3.0, 4.0], [1e30, 1e30], [0.0, 0.0]]), torch.tensor([0, 1, 2, 3]))
    assert torch.equal(vectors[0], torch.tensor([0.6, 0.8]))
    assert vectors[1].isnan().all()
    assert torch.equal(vectors[2], torch.zeros(2))


def test_a_tanh_does_not_hide_an_infinite_value(tiny, tmp_path):
    """The tanh of an infinite value is 1, so that the row would look finite and be wrong."""
    card = read_card(saved(tiny("bert"), tmp_path / "m", st.Dense(32, 8, activation_function=torch.nn.Tanh())))
    head = Head(card, 32, CPU, pooling="auto", normalize=None)
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    states[3, 7] = torch.inf
    vectors = head(states, torch.tensor([0, 2, 5]))
    assert vectors[0].isfinite().all()
    assert vectors[1].isnan().all()
