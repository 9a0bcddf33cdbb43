"""Poolings beyond Curator's two, against slow float64 definitions and sentence-transformers' module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from nemo_embed_dask.checks.reference import _POOLINGS
from nemo_embed_dask.models.sentence_transformers import POOLING_MODES
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.vectors.pooling import POOLINGS, is_pooling, pool, unpad

from ..helpers.strategies import filled

THEIRS = {ours: theirs for ours, theirs, _ in POOLING_MODES}


def padded(lengths, seed, left, width=5):
    block = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(lengths), max(lengths), width)))
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    mask = mask.flip(1) if left else mask
    return block.float().masked_fill(~mask[..., None], 999.0), mask.long()


def pool_after(name, states, offsets, skip):
    """As the engine does it: the prompt's tokens are left out first."""
    kept, starts = Ragged(np.arange(len(states)), offsets.numpy()).after(skip)
    left = states.index_select(0, torch.from_numpy(kept))
    return pool(name, left, torch.from_numpy(starts), normalize=False, prompt_tokens=skip)


@pytest.mark.parametrize("name", POOLINGS)
@given(lengths=filled, seed=st.integers(0, 99), left=st.booleans(), skip=st.integers(0, 3))
def test_poolings_are_their_definitions_and_sentence_transformers(name, lengths, seed, left, skip):
    lengths = [n + skip for n in lengths]  # a text beside the prompt
    block, mask = padded(lengths, seed, left)
    states, offsets = unpad(block, mask)
    got = pool_after(name, states, offsets, skip)
    rows = np.split(states.double().numpy(), offsets[1:-1].numpy())
    slow = np.stack([_POOLINGS[name](row[skip:], skip) for row in rows])
    np.testing.assert_allclose(got, slow, atol=1e-5)
    module = Pooling(block.shape[2], THEIRS[name], include_prompt=False)
    features = {"token_embeddings": block, "attention_mask": mask, "prompt_length": skip}
    torch.testing.assert_close(got, module(features)["sentence_embedding"], atol=1e-5, rtol=1e-5)


def test_names_joined_are_concatenated():
    block, mask = padded([3, 1], 0, left=False)
    states, offsets = unpad(block, mask)
    parts = [pool(name, states, offsets, normalize=False) for name in ("cls", "max")]
    assert torch.equal(pool("cls+max", states, offsets, normalize=False), torch.cat(parts, dim=1))
    assert is_pooling("cls+max")
    assert not is_pooling("cls+median")


def test_a_row_of_nothing_but_the_prompt_keeps_its_last_token():
    states = torch.arange(8.0).view(4, 2)
    out = pool_after("mean_pooling", states, torch.tensor([0, 2, 4]), 9)
    assert torch.equal(out, states[[1, 3]])
