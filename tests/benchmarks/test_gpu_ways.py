"""Ways to run a model in the GPU benchmark, on a CPU: states, batches, and padding to fixed shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from benchmarks.gpu import Options, models, ways
from benchmarks.gpu.fixed_shape import FixedShape, pad_offsets
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.torch import TorchRuntime

from ..helpers.slow import slow
from ..helpers.tiny import make_tiny


def test_random_rows_have_about_the_requested_number_of_tokens():
    ids = models.random_rows(np.random.default_rng(0), 10_000, 64, 30_000)
    assert abs(len(ids.values) - 10_000) < 1000
    assert (np.diff(ids.lengths) <= 0).all()
    assert 32 <= ids.lengths.min() <= ids.lengths.max() <= 64


def test_batches_of_a_budget_have_all_rows_in_order():
    ids = models.random_rows(np.random.default_rng(0), 5000, 64, 30_000)
    parts = ways.split(ids, 300)
    assert max(len(part.values) for part in parts) <= 300
    assert min(len(part.values) for part in parts[:-1]) > 300 - 64
    assert np.array_equal(np.concatenate([part.values for part in parts]), ids.values)
    assert len(ways.split(ids, 10)) == len(ids)  # a row that is longer than the budget is a batch


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, as it compiles
@pytest.mark.parametrize("peer", ["eager", *slow(*sorted(ways.WAYS.keys() - {"eager"}))])
def test_ways_give_the_states_of_the_model_in_float32(peer, minilm, tmp_path):
    small = Options(0.004, 0.0, tmp_path)
    run = ways.load(peer, small)("bfloat16, rows of 32, batches of 131,072")
    assert run["cosine_min"] > 0.995
    assert run["computed_in"] == {"bfloat16": run["rows"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_the_compiled_way_runs_compiled_code(minilm, tmp_path):
    counters = torch._dynamo.utils.counters
    ways.load_runtime.cache_clear()
    torch.compiler.reset()
    counters.clear()
    ways.load("torch.compile", Options(0.001, 0.0, tmp_path))("bfloat16, rows of 32, batches of 131,072")
    assert counters["stats"]["unique_graphs"] > 0


def test_padding_to_a_fixed_shape_changes_no_state(tmp_path):
    path = make_tiny("bert", tmp_path / "bert")
    model = transformers.AutoModel.from_pretrained(path, add_pooling_layer=False).eval()
    runtime = TorchRuntime(model, torch.device("cpu"), torch.float32)
    rng = np.random.default_rng(0)
    batches = [
        Ragged.from_lengths(rng.integers(5, 20, sum(n)).astype(np.int32), n) for n in ([7, 3, 2], [4], [9, 9])
    ]
    forward = FixedShape(runtime, batches, 32)
    for batch in batches:
        found = forward(batch)
        assert forward._states.shape[0] == 32
        torch.testing.assert_close(found, runtime.states(batch)[0], rtol=1e-4, atol=1e-5)


def test_padding_rows_are_not_longer_than_the_longest():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 20, rng.integers(1, 9))
        tokens = int(lengths.sum() + rng.integers(0, 60))
        spare = -(-(tokens - lengths.sum()) // lengths.max()) + 1
        padded = pad_offsets(np.concatenate([[0], np.cumsum(lengths)]), tokens, len(lengths) + spare)
        assert np.array_equal(np.diff(padded)[: len(lengths)], lengths)
        assert padded[-1] == tokens
        assert len(padded) == len(lengths) + spare + 1
        assert 0 <= np.diff(padded).min() <= np.diff(padded).max() <= lengths.max()


@pytest.mark.parametrize("peer", models.jobs())
def test_the_decoder_has_the_same_states_packed_and_padded(peer, tmp_path):
    run = models.load(peer, Options(0.001, 0.0, tmp_path))("32 tokens")
    assert run["cosine_min"] > 0.995
