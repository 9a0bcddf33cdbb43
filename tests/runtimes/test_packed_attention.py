"""Packed against padded attention; stand-ins with their signatures replace the variable-length kernels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import layouts
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes import torch as runtime_torch

from ..helpers.exact import exact

KINDS = ("bert", "roberta", "qwen3")


def as_torch_now(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    assert cu_q.dtype == torch.int32
    assert max_q == int(cu_q.diff().max())
    assert enable_gqa == (q.shape[1] != k.shape[1])
    return exact(q, k, v, cu_q, scale, *window_size)


def as_torch_2_11(q, k, v, cu_q, cu_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
    assert q.shape == k.shape
    return exact(q, k, v, cu_q, scale, *window_size)


def as_torch_2_10(q, k, v, cu_q, cu_k, max_q, max_k, is_causal=False):
    assert q.shape == k.shape
    return exact(q, k, v, cu_q, None, -1, 0 if is_causal else -1)


def as_flash_attention(
    q, k, v, cu_q, cu_k, max_q, max_k, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)
):
    assert window_size[1] == 0 or not causal
    return exact(q, k, v, cu_q, softmax_scale, *window_size)


VERSIONS = [as_torch_now, as_torch_2_11, as_torch_2_10, as_flash_attention]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 3]),
    scale=st.sampled_from([None, 0.7]),
    kernel=st.sampled_from(VERSIONS),
)
def test_every_kernel_gives_the_same_as_attention_on_a_cpu(lengths, causal, window, scale, kernel):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    generator = torch.Generator().manual_seed(int(offsets[-1]))
    q = torch.randn(int(offsets[-1]), 4, 8, generator=generator)
    k, v = (torch.randn(int(offsets[-1]), 2, 8, generator=generator) for _ in range(2))
    packing = attention.Packing(offsets, torch.device("cpu"))
    blocks = attention._attend_on_cpu(packing, q, k, v, scale, causal, window)
    attend = attention.adapt_kernel(kernel)
    if kernel is as_torch_2_10 and window is not None:
        with pytest.raises(attention.CannotPackError, match="window"):
            attend(packing, q, k, v, scale, causal, window)
        return
    torch.testing.assert_close(attend(packing, q, k, v, scale, causal, window), blocks)


def test_varlen_attention_of_this_torch_has_a_known_signature():
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="torch has it since 2.10")
    heads = {"q": 4, "k": 2}
    q, k = (torch.empty(10, n, 8, device="meta", dtype=torch.bfloat16) for n in heads.values())
    packing = attention.Packing(np.array([0, 4, 10]), torch.device("meta"))
    out = attention.adapt_kernel(varlen.varlen_attn)(packing, q, k, k, 0.5, True, 3)
    assert (out.shape, out.dtype) == (q.shape, q.dtype)


def test_without_any_kernel_a_model_cannot_pack(monkeypatch):
    monkeypatch.setattr(
        attention, "KERNELS", (("no_such_module", "f"), ("torch.nn.attention.varlen", "no_such"))
    )
    attention.varlen_attention.cache_clear()
    with pytest.raises(attention.CannotPackError):
        attention.varlen_attention()
    attention.varlen_attention.cache_clear()


@pytest.mark.parametrize("kernel", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_and_padded_models_give_the_same_states(kind, kernel, tiny, monkeypatch):
    runtime = runtime_torch.load(read_card(tiny(kind)), autocast=False)
    assert not runtime.pads
    rng = np.random.default_rng(1)
    ids = Ragged.from_rows([rng.integers(5, 100, n).tolist() for n in (9, 1, 30, 9, 4)])
    monkeypatch.setattr(attention, "_attend_on_cpu", attention.adapt_kernel(kernel))
    packed, offsets = runtime.states(ids)
    assert layouts.set_attention(runtime.model, "sdpa")
    runtime._layout = runtime._layout._replace(packed=False)
    padded, same = runtime.states(ids)
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)
    assert torch.equal(offsets, same)
