"""Number types on a GPU: float16 within 1e-3 of float32, and wider types where values overflow it.

A rehearsal tries the types of a GPU on the CPU, which has all three.
"""

import numpy as np
import pytest
import torch

from nemo_embed_dask import engine, runtimes
from nemo_embed_dask.engine import digests
from nemo_embed_dask.models import card as cards
from nemo_embed_dask.runtimes import torch as runtime_torch

from ..runtimes.test_number_types import TEXTS, changed, distance, gpu_types, plain, token_of
from .device import REHEARSAL, cosines, settings_of

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(autouse=True)
def _types_of_a_gpu(monkeypatch):
    for module in (runtime_torch, digests) if REHEARSAL else ():
        monkeypatch.setattr(module, "number_types", gpu_types)


@pytest.mark.parametrize("pooling", ["mean_pooling", "last_token"])
def test_minilm_in_float16_is_within_the_tolerance_of_curator_s_tests(minilm, texts, on_cpu, pooling):
    some, expected = texts[:200], on_cpu[pooling][:200]
    settings = settings_of(minilm, pooling=pooling)
    out = engine.embed_texts(some, settings)
    found, near = out.matrix.cpu(), cosines(out.matrix, expected)
    largest = (found - expected).abs().amax(1)
    print(f"{pooling}: difference to float32 at most {largest.max():.2e}, median row {largest.median():.2e}; "
          f"cosine least {near.min():.7f}")  # fmt: skip
    assert out.stats.computed_in == {"float16": len({*some})}
    assert digests.model_digests(settings)["computes_in"] == "float16"
    assert largest.max() < 1e-3
    assert near.min() > 0.99999


def test_only_the_texts_that_overflow_float16_are_computed_again(tiny, tmp_path):
    """A decoder whose states overflow float16 after the token "Z", as Gemma's do after others."""

    def scale(weights):
        row = weights["embed_tokens.weight"][token_of("Z", tiny("qwen3"))]
        row *= 3e5 / row.abs().max()

    path = changed(tiny("qwen3"), tmp_path / "loud", scale)
    some = [text for text in TEXTS if text]
    out = engine.embed_texts([*some, "Z"], settings_of(path))
    expected = plain(path, [*some, "Z"])
    assert out.stats.computed_in == {"float16": len(some), "bfloat16": 1}
    assert out.valid.all()
    assert distance(out.matrix[:-1].cpu(), expected[:-1]) < 1e-3
    assert distance(out.matrix.cpu(), expected) < 2e-2


def test_a_model_whose_states_always_overflow_runs_in_a_wider_type(tiny, tmp_path):
    path = changed(tiny("bert"), tmp_path / "big", lambda w: w["encoder.layer.0.output.dense.weight"].mul_(1e6))
    out = engine.embed_texts(TEXTS, settings_of(path))
    assert out.stats.computed_in == {"bfloat16": len(TEXTS)}
    assert distance(out.matrix.cpu(), plain(path, TEXTS)) < 2e-2


def test_a_value_that_no_type_holds_fails_its_row_only(tiny, tmp_path):
    def damage(weights):
        weights["embed_tokens.weight"][token_of("Z", tiny("qwen3"))] = np.nan

    path = changed(tiny("qwen3"), tmp_path / "damaged", damage)
    out = engine.embed_texts(["quick", "Z"], settings_of(path, on_error="null"))
    assert out.failures == {1: "the model gave NaN or infinite values"}
    assert out.valid.tolist() == [True, False]


@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("bert", torch.float32, "float16"),
        ("bert", torch.float16, "float16"),
        ("bert", torch.bfloat16, "bfloat16"),
        ("gemma3", torch.float32, "bfloat16"),
    ],
)
def test_the_type_that_is_chosen(kind, stored, expected, tiny, tmp_path):
    def convert(weights):
        weights.update({name: value.to(stored) for name, value in weights.items()})

    path = changed(tiny(kind), tmp_path / "m", convert)
    runtime = runtimes.load(cards.read_card(path))
    assert runtime.number_type == expected
    out = engine.embed_texts(TEXTS, settings_of(path))
    assert [*out.stats.computed_in] == [expected]
    assert distance(out.matrix.cpu(), plain(path, TEXTS)) < 2e-2
