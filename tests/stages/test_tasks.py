"""What runs on one partition: models are found once, and further columns come with the vectors."""

from __future__ import annotations

import dask.dataframe as dd
import pandas as pd
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, EmbeddingModelStage, TokenizerStage
from nemo_embed_dask.engine import model as engine_model
from nemo_embed_dask.models import card
from nemo_embed_dask.tokens import reader

PARTITIONS = 3


@pytest.fixture
def calls(monkeypatch):
    """How often a model was found, and a reader made, by name."""
    counts = {"find_model": 0, "make_reader": 0}

    def counted(name, function):
        def call(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    for module, name in ((card, "find_model"), (engine_model, "make_reader"), (reader, "make_reader")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return counts


@pytest.mark.parametrize("mode", ["truncate", "mean", "explode"])
def test_a_partition_finds_its_model_once(mode, tiny, calls):
    frame = pd.DataFrame({"text": [f"text {i}" * i for i in range(1, 12)]})
    ddf = dd.from_pandas(frame, npartitions=PARTITIONS)
    options = {"long_documents": mode, "prompt": "query: ", "max_seq_length": 24}
    embedded = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), autocast=False, **options)(ddf)
    assert calls == {"find_model": 0, "make_reader": 0}  # the graph needs no model
    embedded.compute(scheduler="sync")
    assert calls == {"find_model": PARTITIONS, "make_reader": PARTITIONS}


def test_each_of_the_two_stages_finds_its_model_once(tiny, calls):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(12)]})
    ddf = dd.from_pandas(frame, npartitions=PARTITIONS)
    tokens = TokenizerStage(str(tiny("bert")))(ddf)
    vectors = EmbeddingModelStage(str(tiny("bert")))(tokens)
    vectors.compute(scheduler="sync")
    assert calls == {"find_model": 2 * PARTITIONS, "make_reader": 2 * PARTITIONS}
