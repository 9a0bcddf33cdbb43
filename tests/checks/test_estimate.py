from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import torch

from nemo_embed_dask import EmbeddingCreatorStage, engine, plan
from nemo_embed_dask.checks import estimate
from nemo_embed_dask.checks.sampling import sample_texts
from nemo_embed_dask.errors import ColumnError, ConfigError


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    texts = ["word " * n for n in rng.integers(1, 120, 400)]
    return pd.DataFrame({"text": [*texts, None], "id": range(401)})


def test_plan_estimates_the_whole_frame(frame, tiny):
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), truncate_dim=20)
    found = plan(stage, dd.from_pandas(frame, npartitions=4), sample_rows=200, seconds=0.5, workers=2)
    assert (found.rows, found.sample, found.dimension, found.workers) == (401, 200, 20, 2)
    fraction = frame.text.dropna().str.count("word").gt(40).mean()
    assert found.truncated[0] < found.truncated[1]
    assert 0 < fraction < 1
    low, high = found.hours
    assert 0 < low < high
    assert np.isclose(low, 401 * found.tokens[0] / found.tokens_per_s[1] / 2 / 3600)
    assert found.output == {
        "float32": 401 * 80, "float16": 401 * 40, "int8": 401 * 20, "uint8": 401 * 20, "binary": 401 * 3,
        "ubinary": 401 * 3,
    }  # fmt: skip
    assert found.max_rows_per_partition == (2**31 - 1) // 20
    assert found.memory > 1e8
    assert "95 %" in str(found)


def test_token_counts_are_within_their_interval(frame, tiny):
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")))
    all_of_it = plan(stage, frame, sample_rows=1000, seconds=0.0)
    half = plan(stage, frame, sample_rows=200, seconds=0.0)
    exact = np.mean(all_of_it.tokens)
    assert half.tokens[0] < exact < half.tokens[1]
    assert half.tokens[1] - half.tokens[0] > all_of_it.tokens[1] - all_of_it.tokens[0]


def test_gpu_memory_is_the_sum_of_its_parts(frame, tiny, monkeypatch):
    """The runtime's memory on a GPU is faked. On a CPU there is no GPU memory to estimate."""
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")))
    found = plan(stage, frame, sample_rows=50, seconds=0.0)
    assert (found.device_memory, "GPU" in str(found)) == ({}, False)
    model = engine.load_model(stage.settings)
    monkeypatch.setattr(model.runtime, "batch_memory", lambda tokens: tokens * 1000)
    monkeypatch.setattr(model.runtime, "device", SimpleNamespace(type="cuda"))
    parts = estimate._device_memory(model, 401, outputs=2)
    weights = sum(weight.numel() for weight in model.runtime.model.parameters())
    size = 2 if model.runtime.dtype == torch.bfloat16 else 4
    assert parts == {"weights": parts["weights"], "one batch": 4_096_000, "vectors": 4 * 32 * 401 * 3}
    assert weights * size <= parts["weights"] <= weights * 4
    shown = str(dataclasses.replace(found, device_memory={"weights": 10**9, "vectors": 5 * 10**8}))
    assert "GPU memory: 1.50 GB (weights 1.00, vectors 0.50), without the frames' own" in shown


def test_errors_of_plan(frame, tiny):
    with pytest.raises(ConfigError, match="sample_rows"):
        plan(EmbeddingCreatorStage(), frame, sample_rows=3)
    with pytest.raises(ColumnError, match="no column 'body'"):
        plan(EmbeddingCreatorStage(text_field="body"), frame)
    with pytest.raises(ColumnError, match="no text"):
        sample_texts(frame[frame.text.isna()], "text", 5)


def test_a_frame_of_few_texts_is_refused(tiny):
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")))
    with pytest.raises(ConfigError, match="at least 10 texts, and the partitions that were sampled have 9"):
        plan(stage, pd.DataFrame({"text": ["a"] * 9}), seconds=0.0)
