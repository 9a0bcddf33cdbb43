"""Each row has the states that it has alone in a fresh model, however long the rows of its batch are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import layouts
from nemo_embed_dask.runtimes.probe import BatchLengths
from nemo_embed_dask.runtimes.torch import TorchRuntime

from ..helpers.architectures import tiny_model

CPU = torch.device("cpu")
_SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "intermediate_size": 64, "initializer_range": 0.3, "pad_token_id": 1,
          "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip
_LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16,
             "short_factor": [1.0] * 4, "long_factor": [1.0, 4.0, 9.0, 16.0]}  # fmt: skip
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}


def longrope():
    return transformers.Phi3Config(
        **_SMALL, max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters=_LONGROPE
    )


def dynamic():
    return transformers.LlamaConfig(**_SMALL, max_position_embeddings=16, rope_parameters=_DYNAMIC)


def rows(*lengths, seed=0):
    values = np.random.default_rng(seed).integers(5, 90, sum(lengths)).astype(np.int32)
    return Ragged.from_lengths(values, lengths)


def alone(model, ids):
    """Each row alone, in a copy of the model that has seen no other."""
    with torch.inference_mode():
        tokens = [torch.from_numpy(ids.row(i).astype(np.int64))[None] for i in range(len(ids))]
        return torch.cat([copy.deepcopy(model)(input_ids=row)[0][0] for row in tokens])


def make(config):
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config, trust_remote_code=False).eval()


def distance(got, expected):
    return float((1 - torch.nn.functional.cosine_similarity(got.double(), expected.double(), dim=1)).max())


BATCHES = [rows(40, 3, 16, 17, 60), rows(3, 16, 7), rows(60, 16), rows(16), rows(17, 17, 2)]


def check(model, batches=BATCHES, dtype=torch.float32):
    fresh = copy.deepcopy(model)
    runtime = TorchRuntime(model, CPU, dtype)
    for ids in batches:
        for _ in range(2):  # the second time after itself
            states, offsets = runtime.states(ids)
            assert offsets.tolist() == ids.offsets.tolist()
            assert distance(states, alone(fresh, ids)) < 1e-6
    return runtime


@pytest.mark.parametrize("config", [longrope(), dynamic()], ids=["longrope", "dynamic"])
def test_rotary_positions_that_depend_on_the_longest_row(config):
    """Rows up to the threshold share batches; a row of exactly its length keeps its base after a longer one."""
    runtime = check(make(config))
    assert runtime._lengths.limit == 16
    assert not runtime.pads


def test_long_rows_of_longrope_do_not_change_short_ones_in_bfloat16():
    """The difference is smaller than the rounding errors of bfloat16, so no trial can find it."""
    model = make(longrope()).bfloat16()
    runtime = TorchRuntime(copy.deepcopy(model), CPU, torch.bfloat16)
    short = rows(10, 5)
    before, _ = runtime.states(short)
    both, _ = runtime.states(Ragged.concat([rows(60, seed=1), short]))
    torch.testing.assert_close(both[60:], before)


def test_recurrent_layers_do_not_read_padding():
    config = transformers.RecurrentGemmaConfig(
        **_SMALL | {"num_hidden_layers": 3}, lru_width=32, head_dim=8, attention_window_size=8
    )
    check(make(config))


@pytest.mark.parametrize("kind", ["BigBird", "Longformer", "LED", "XLNet", "BigBirdPegasus"])
def test_architectures_with_blocks_windows_and_recurrent_layers(kind):
    check(tiny_model(getattr(transformers, f"{kind}Config")))


def test_a_model_with_a_window_keeps_its_batches():
    runtime = check(tiny_model(transformers.MistralConfig))
    assert (runtime._lengths.proven, runtime._lengths.limit) == (60, None)


def test_a_long_row_has_the_same_states_before_and_after_other_models_and_rows():
    model = make(dynamic())
    runtime, long = TorchRuntime(model, CPU, torch.float32), rows(60)
    first, _ = runtime.states(long)
    runtime.states(rows(100, 40, 3))
    TorchRuntime(make(longrope()), CPU, torch.float32).states(rows(50, 20))
    again, _ = runtime.states(long)
    assert torch.equal(first, again)


def test_a_model_that_is_random_for_long_rows_is_refused():
    runtime = TorchRuntime(tiny_model(transformers.ReformerConfig), CPU, torch.float32)
    runtime.states(rows(5, 7))
    with pytest.raises(ModelError, match="different states in each run"):
        runtime.states(rows(70, 7))


def test_a_failure_is_bounded_by_the_last_length_that_agrees():
    tried = []

    def agree(lengths):
        tried.append(lengths[0])
        return lengths[0] <= 100

    for hints, proven in (((), 64), ((90, 99), 99)):
        found = BatchLengths(agree, hints)
        parts = list(found.divide(rows(5, 300, 20, proven, proven + 1)))
        assert (found.proven, found.limit) == (proven, proven)
        assert [part.lengths.tolist() for part, _ in parts] == [[5], [300], [20, proven], [proven + 1]]
        assert [is_alone for _, is_alone in parts] == [False, True, False, True]
        tried.clear()
        list(found.divide(rows(400, 3)))
        assert tried == []


def test_memory_that_is_too_small_for_a_trial_is_no_verdict_on_the_model(monkeypatch):
    model = tiny_model(transformers.MistralConfig)
    fresh, runtime = copy.deepcopy(model), TorchRuntime(model, CPU, torch.float32)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(layouts, "forward", full)
    ids = rows(50)
    states, _ = runtime.states(ids)  # alone, as the published model runs it
    assert distance(states, alone(fresh, ids)) < 1e-6
    with pytest.raises(torch.OutOfMemoryError):
        runtime.states(rows(50, 3))  # the engine divides this batch
    monkeypatch.undo()
    states, _ = runtime.states(rows(50, 3))
    assert distance(states, alone(fresh, rows(50, 3))) < 1e-6
    assert (runtime._lengths.proven, runtime._lengths.limit) == (50, None)
