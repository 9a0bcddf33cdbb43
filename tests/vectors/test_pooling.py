from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.vectors.pooling import pool, unpad

from ..helpers.strategies import filled

SLOW = {
    "mean_pooling": lambda rows: rows.mean(axis=0),
    "cls": lambda rows: rows[0],
    "last_token": lambda rows: rows[-1],
}


def states_of(lengths, seed, width=5):
    values = np.random.default_rng(seed).normal(size=(sum(lengths), width))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return torch.from_numpy(values).float(), torch.from_numpy(offsets)


@pytest.mark.parametrize("name", SLOW)
@given(lengths=filled, seed=st.integers(0, 999))
def test_ragged_pooling_equals_its_float64_definition(name, lengths, seed):
    states, offsets = states_of(lengths, seed)
    rows = np.split(states.double().numpy(), offsets[1:-1].numpy())
    expected = np.stack([SLOW[name](row) for row in rows])
    np.testing.assert_allclose(pool(name, states, offsets, normalize=False), expected, atol=1e-5)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(name, states, offsets), unit, atol=1e-5)


@pytest.mark.parametrize("name", SLOW)
@given(lengths=filled, seed=st.integers(0, 999), left=st.booleans())
def test_padded_pooling_equals_ragged_pooling_on_both_sides(name, lengths, seed, left):
    states, offsets = states_of(lengths, seed)
    block = torch.full((len(lengths), max(lengths) + 1, states.shape[1]), 999.0)
    mask = torch.zeros(block.shape[:2], dtype=torch.int64)
    for i, n in enumerate(lengths):
        cells = slice(block.shape[1] - n, None) if left else slice(0, n)
        block[i, cells], mask[i, cells] = states[offsets[i] : offsets[i + 1]], 1
    assert torch.equal(pool(name, *unpad(block, mask)), pool(name, states, offsets))


def test_bfloat16_states_are_pooled_in_float32():
    states = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)
    states[0] = 257.0
    out = pool("mean_pooling", states, torch.tensor([0, 4096]), normalize=False)
    assert out.dtype == torch.float32
    assert abs(float(out) - (4095 + 256) / 4096) < 1e-3 or abs(float(out) - (4095 + 258) / 4096) < 1e-3
