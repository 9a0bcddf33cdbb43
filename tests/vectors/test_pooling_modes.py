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


def pool_without_prompt(name, states, offsets, prompt_tokens):
    """Pool as the engine does: remove the prompt's tokens first."""
    kept, starts = Ragged(np.arange(len(states)), offsets.numpy()).drop_first(prompt_tokens)
    left = states.index_select(0, torch.from_numpy(kept))
    return pool(name, left, torch.from_numpy(starts), normalize=False, prompt_tokens=prompt_tokens)


@pytest.mark.parametrize("name", POOLINGS)
@given(lengths=filled, seed=st.integers(0, 99), left=st.booleans(), prompt_tokens=st.integers(0, 3))
def test_poolings_equal_their_definitions_and_sentence_transformers(name, lengths, seed, left, prompt_tokens):
    lengths = [n + prompt_tokens for n in lengths]  # prompt and text
    block, mask = padded(lengths, seed, left)
    states, offsets = unpad(block, mask)
    got = pool_without_prompt(name, states, offsets, prompt_tokens)
    rows = np.split(states.double().numpy(), offsets[1:-1].numpy())
    slow = np.stack([_POOLINGS[name](row[prompt_tokens:], prompt_tokens) for row in rows])
    np.testing.assert_allclose(got, slow, atol=1e-5)
    if name in THEIRS:
        module = Pooling(block.shape[2], THEIRS[name], include_prompt=False)
        features = {"token_embeddings": block, "attention_mask": mask, "prompt_length": prompt_tokens}
        torch.testing.assert_close(got, module(features)["sentence_embedding"], atol=1e-5, rtol=1e-5)


def test_every_pooling_of_sentence_transformers_is_compared_with_it():
    assert {*Pooling.POOLING_MODES} == {*THEIRS.values()} and THEIRS.keys() <= POOLINGS.keys()


def test_joined_names_concatenate_vectors():
    block, mask = padded([3, 1], 0, left=False)
    states, offsets = unpad(block, mask)
    parts = [pool(name, states, offsets, normalize=False) for name in ("cls", "max")]
    assert torch.equal(pool("cls+max", states, offsets, normalize=False), torch.cat(parts, dim=1))
    assert is_pooling("cls+max")
    assert not is_pooling("cls+median")


def test_a_row_with_only_the_prompt_keeps_its_last_token():
    states = torch.arange(8.0).view(4, 2)
    out = pool_without_prompt("mean_pooling", states, torch.tensor([0, 2, 4]), 9)
    assert torch.equal(out, states[[1, 3]])
