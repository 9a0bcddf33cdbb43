"""Attention on a CPU against its definition in float64; the bits of a row do not depend on its batch."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask.runtimes import cpu_attention as blocks
from nemo_embed_dask.runtimes.cpu_attention import Blocks

from ..helpers.exact import exact

CLOSE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.bfloat16: {"rtol": 0.05, "atol": 0.05}}


def batch(lengths, heads, width, dtype=torch.float32, groups=1):
    """Return offsets, q, k and v of rows whose content depends only on their number and length."""
    rows = [
        [
            torch.randn(length, n, width, generator=torch.Generator().manual_seed(97 * i + length + k))
            for k, n in enumerate((heads, heads // groups, heads // groups))
        ]
        for i, length in enumerate(lengths)
    ]
    q, k, v = (torch.cat(parts).to(dtype) for parts in zip(*rows, strict=True))
    return np.concatenate([[0], np.cumsum(lengths)]), q, k, v


def by_definition(offsets, q, k, v, scale=None, causal=False, window=None):
    reach = -1 if window is None else window - 1
    cu = torch.from_numpy(offsets)
    return exact(q.double(), k.double(), v.double(), cu, scale, reach, 0 if causal else reach)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    heads=st.integers(1, 4),
    width=st.sampled_from([4, 24, 32]),
    scale=st.sampled_from([None, 0.7]),
    dtype=st.sampled_from(list(CLOSE)),
    scores=st.sampled_from([1, 700, 1 << 22]),
)
def test_short_rows_match_the_definition_in_blocks_of_any_size(lengths, heads, width, scale, dtype, scores):
    offsets, q, k, v = batch(lengths, heads, width, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_SCORES", scores)
        patch.setattr(blocks, "sdpa", None)  # short rows must not need it
        found = Blocks(offsets).attend(q, k, v, scale, False, None)
    torch.testing.assert_close(found.double(), by_definition(offsets, q, k, v, scale), **CLOSE[dtype])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=7),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 5, 17]),
    groups=st.sampled_from([1, 2]),
    short=st.sampled_from([1, 9, 256]),
)
def test_short_and_long_rows_in_any_order_match_the_definition(lengths, causal, window, groups, short):
    offsets, q, k, v = batch(lengths, 4, 8, groups=groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_SHORT", short)
        found = Blocks(offsets).attend(q, k, v, None, causal, window)
    expected = by_definition(offsets, q, k, v, None, causal, window)
    torch.testing.assert_close(found.double(), expected, **CLOSE[torch.float32])


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_a_row_has_the_same_bits_in_any_batch(dtype):
    lengths = [50, 3, 51, 49, 200, 56, 1, 8, 9, 50]
    offsets, q, k, v = batch(lengths, 12, 32, dtype)
    together = Blocks(offsets).attend(q, k, v, None, False, None)
    for start, stop in itertools.pairwise(offsets):
        alone = Blocks(np.array([0, stop - start])).attend(
            q[start:stop], k[start:stop], v[start:stop], None, False, None
        )
        assert torch.equal(alone, together[start:stop])


@pytest.mark.parametrize("size", [9.0, 30.0, 1e4])
def test_scores_too_large_for_a_plain_exponential_are_exact(size):
    offsets, q, k, v = batch([20, 20, 20], 2, 8)
    q, k = q.abs() * size, k.abs() * -size  # every exponential of a row underflows, and with -k overflows
    for sign in (1, -1):
        found = Blocks(offsets).attend(q, k * sign, v, None, False, None)
        expected = by_definition(offsets, q, k * sign, v)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_a_row_with_large_scores_does_not_change_other_rows():
    offsets, q, k, v = batch([20, 21, 22], 2, 8)
    calm = Blocks(offsets).attend(q, k, v, None, False, None)
    q[20:41] *= 1e4
    found = Blocks(offsets).attend(q, k, v, None, False, None)
    assert torch.equal(found[:20], calm[:20])
    assert torch.equal(found[41:], calm[41:])
    torch.testing.assert_close(found.double(), by_definition(offsets, q, k, v), rtol=1e-3, atol=1e-4)
