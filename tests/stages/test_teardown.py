"""`teardown` of a stage: models of this process are unloaded, and loaded again when they are used."""

from __future__ import annotations

import gc
import weakref

import pandas as pd
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, TokenizerStage, engine, runtimes, to_matrix
from nemo_embed_dask.engine import model as engine_model
from nemo_embed_dask.tokens import reader


@pytest.fixture
def frame():
    return pd.DataFrame({"text": ["one", "two words"]})


def test_everything_is_unloaded_and_loaded_again(tiny, frame):
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), embedding_pooling="cls", autocast=False)
    before = to_matrix(stage(frame).embeddings)
    loaded = weakref.ref(engine.load_model(stage.settings).runtime)
    stage.teardown()
    gc.collect()
    assert loaded() is None
    assert not (runtimes._loaded or engine_model._heads or reader._tokenizers)
    assert (to_matrix(stage(frame).embeddings) == before).all()
    TokenizerStage(str(tiny("bert"))).teardown()
    assert not reader._tokenizers
