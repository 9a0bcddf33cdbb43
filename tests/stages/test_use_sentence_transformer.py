"""Curator's parameter `use_sentence_transformer`: the model's own pooling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, SentenceTransformerEmbeddingModelStage, embed, to_matrix
from nemo_embed_dask.errors import ConfigError

from ..helpers.cards import TEXTS, alone, build


def test_vectors_are_those_of_sentence_transformers(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="cls", dense="tanh", normalize=True)
    frame = pd.DataFrame({"text": TEXTS})
    out = embed(frame, model_identifier=str(path), use_sentence_transformer=True, autocast=False)
    np.testing.assert_allclose(to_matrix(out.embeddings), alone(path, TEXTS), atol=1e-5)
    stage = EmbeddingCreatorStage(model_identifier=str(path), use_sentence_transformer=True, autocast=False)
    first, second = stage.decompose()
    assert type(second) is SentenceTransformerEmbeddingModelStage
    np.testing.assert_allclose(to_matrix(second(first(frame)).embeddings), alone(path, TEXTS), atol=1e-5)
    direct = SentenceTransformerEmbeddingModelStage(str(path), autocast=False)
    np.testing.assert_allclose(to_matrix(direct(first(frame)).embeddings), alone(path, TEXTS), atol=1e-5)


def test_it_means_auto_and_nothing_else():
    stage = EmbeddingCreatorStage(use_sentence_transformer=True)
    assert stage.embedding_pooling == "auto"
    assert stage.settings == EmbeddingCreatorStage(embedding_pooling="auto").settings
    assert replace(stage, max_chars=3).embedding_pooling == "auto"
    assert EmbeddingCreatorStage().embedding_pooling == "mean_pooling"
    assert EmbeddingCreatorStage(use_sentence_transformer=True, embedding_pooling="auto") == stage
    with pytest.raises(ConfigError, match="contradicts"):
        EmbeddingCreatorStage(use_sentence_transformer=True, embedding_pooling="mean_pooling")
    with pytest.raises(ConfigError, match="must be True or False"):
        EmbeddingCreatorStage(use_sentence_transformer="yes")
