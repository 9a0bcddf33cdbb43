"""Batches and slabs on a GPU, with a runtime on a CPU that says that it is on one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nemo_embed_dask import engine
from nemo_embed_dask.engine.model import Model
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.rows import Tokenized
from nemo_embed_dask.settings import Settings


class Counting:
    """A runtime that records the rows of its batches."""

    pads, max_length, weight_bytes, budget, number_type = False, 512, 0, 1 << 20, "float32"

    def __init__(self, runtime, kind):
        self.device, self.dimension, self.vocabulary = torch.device(kind), runtime.dimension, runtime.vocabulary
        self.rows = []

    def states(self, ids):
        self.rows.append(len(ids))
        return torch.ones(len(ids.values), self.dimension), torch.from_numpy(ids.offsets)


@pytest.fixture
def on(tiny, monkeypatch):
    """``on(kind, **options)``: settings, and a model that says that it is on this kind of device."""

    def make(kind, **options):
        settings = Settings(ModelRef(str(tiny("bert"))), share_equal_texts=False, **options)
        model = engine.load_model(settings)
        model = replace(model, runtime=Counting(model.runtime, kind))
        monkeypatch.setattr(engine, "load_model", lambda _: model)
        monkeypatch.setattr(Model, "zeros", lambda self, count: torch.zeros(count, self.width))
        return settings, model

    return make


@pytest.mark.parametrize(
    ("kind", "options", "rows"),
    [
        ("cuda", {}, [17_000]),
        ("cuda", {"model_inference_batch_size": 9_000}, [9_000, 8_000]),
        ("cuda", {"model_inference_batch_size": 1_023}, [1_023] * 16 + [632]),
        ("cpu", {}, [1_024] * 16 + [616]),
    ],
)
def test_a_batch_of_short_rows_is_large_on_a_gpu(kind, options, rows, on):
    settings, model = on(kind, **options)
    assert engine.embed_texts(["a fox"] * 17_000, settings).valid.all()
    assert model.runtime.rows == rows


def test_a_batch_on_a_gpu_has_no_more_rows_than_a_grid_of_cuda(on):
    settings, model = on("cuda")
    ids = Ragged.from_lengths(np.full(70_000, 7, np.int32), np.ones(70_000))
    engine.embed_tokens(Tokenized.from_ids(ids, np.ones(70_000, np.bool_)), settings, model=model)
    assert model.runtime.rows == [65_535, 4_465]
