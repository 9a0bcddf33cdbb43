"""Packed linear layers equal plain ones for any shape, and only plain ones are replaced."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nemo_embed_dask.runtimes.cpu_linear import PackedLinear, pack_linears

SIZES = st.integers(1, 70)


def _packs_bfloat16():
    """Older versions of torch pack bfloat16 only on CPUs with AVX512; models stay as they are on others."""
    try:
        PackedLinear(nn.Linear(2, 2).to(torch.bfloat16))
    except RuntimeError as error:
        return "bf16 path needs the cpu support" not in str(error)
    return True


DTYPES = [torch.float32, torch.bfloat16] if _packs_bfloat16() else [torch.float32]


@settings(deadline=None, max_examples=60)
@given(SIZES, SIZES, SIZES, st.booleans(), st.sampled_from(DTYPES), st.integers(1, 3))
def test_a_packed_layer_equals_a_plain_one(rows, width, out, bias, dtype, batch):
    plain = nn.Linear(width, out, bias=bias).to(dtype)
    x = torch.randn(batch, rows, width).to(dtype)
    with torch.inference_mode():
        exact = nn.functional.linear(x.double(), plain.weight.double(), plain.bias.double() if bias else None)
        found = PackedLinear(plain)(x)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), exact, atol=1e-5 if dtype == torch.float32 else 3e-2, rtol=1e-2)


def test_a_model_keeps_its_states():
    config = transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    model = transformers.T5EncoderModel(config).eval()  # reads the weights of its layers directly
    ids = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        expected = model(ids)[0]
        assert pack_linears(model, torch.float32) is model
        assert any(isinstance(module, PackedLinear) for module in model.modules())
        assert torch.allclose(model(ids)[0], expected, atol=1e-5)


class Block(nn.Module):
    """A layer and its activation, as in transformers' BERT."""

    def __init__(self, activation, turn=False):
        super().__init__()
        self.dense, self.act, self.turn = nn.Linear(24, 48), activation, turn

    def forward(self, x):
        return self.act(-self.dense(x) if self.turn else self.dense(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("block", "fused"),
    [
        (Block(nn.GELU()), True),
        (Block(transformers.activations.GELUActivation()), True),
        (Block(nn.GELU(approximate="tanh")), False),
        (Block(transformers.activations.QuickGELUActivation()), False),
        (Block(nn.ReLU()), False),
        (Block(nn.Dropout()), False),
        (Block(nn.LayerNorm(48)), False),
        (Block(nn.GELU(), turn=True), False),
    ],
)
def test_only_a_gelu_is_fused_with_its_layer(block, fused, dtype):
    model = nn.Sequential(copy.deepcopy(block)).eval().to(dtype)
    x = torch.randn(7, 24).to(dtype)
    with torch.inference_mode():
        expected = model(x)
        pack_linears(model, dtype)
        assert isinstance(model[0].act, nn.Identity) == fused
        close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(model(x), expected, **close)


def test_subclasses_are_not_replaced():
    class Mine(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    model = pack_linears(nn.Sequential(Mine(4, 4), nn.Linear(4, 4)), torch.float32)
    assert [type(layer) for layer in model] == [Mine, PackedLinear]


def test_layers_of_an_unsupported_dtype_are_not_replaced():
    model = nn.Sequential(nn.Linear(4, 4).to(torch.float64))
    assert type(pack_linears(model, torch.float64)[0]) is nn.Linear


def test_the_check_for_support_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    pack_linears(nn.Identity(), torch.float16)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_packed_layer_has_its_own_copy_of_the_weights(rows):
    plain = nn.Linear(8, 8)
    packed, x = PackedLinear(plain), torch.randn(rows, 8)
    expected = plain(x).detach()
    with torch.no_grad():
        plain.weight.zero_()
        plain.weight = nn.Parameter(torch.zeros(8, 8))
    assert torch.allclose(packed(x), expected, atol=1e-5)
