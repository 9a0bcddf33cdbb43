"""The layers after the pooling, compared one by one with sentence-transformers' modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

from nemo_embed_dask.checks.reference import reference as our_reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.vectors.head import Head
from nemo_embed_dask.vectors.layers import ACTIVATIONS

from ..helpers.cards import TEXTS, reference, rewrite

CPU = torch.device("cpu")


def saved(source, target, *layers):
    transformer = st.Transformer(str(source))
    pooling = st.Pooling(transformer.get_embedding_dimension(), "mean")
    SentenceTransformer(modules=[transformer, pooling, *layers], device="cpu").save_pretrained(str(target))
    return target


def test_all_kinds_of_layers_in_one_model(tiny, tmp_path):
    torch.manual_seed(0)
    norm = st.LayerNorm(32)
    torch.nn.init.normal_(norm.norm.weight)
    torch.nn.init.normal_(norm.norm.bias)
    path = saved(
        tiny("bert"), tmp_path / "m", st.Dense(32, 32, use_residual=True), norm, st.Dropout(0.5),
        st.Normalize(),
        st.Dense(32, 8, bias=False, use_residual=True, activation_function=torch.nn.GELU()),
    )  # fmt: skip
    settings = Settings(ModelRef(str(path)), pooling="auto", autocast=False)
    expected = reference(path, TEXTS)
    np.testing.assert_allclose(embed_texts(TEXTS, settings).matrix, expected, atol=1e-5)
    np.testing.assert_allclose(our_reference(TEXTS, settings), expected, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, tiny, tmp_path):
    dense = st.Dense(32, 8, activation_function=getattr(torch.nn, name)())
    head = Head(read_card(saved(tiny("bert"), tmp_path / "m", dense)), 32, CPU, pooling="auto", normalize=None)
    states, offsets = torch.randn(6, 32), torch.tensor([0, 4, 6])
    pooled = torch.stack([states[:4].mean(0), states[4:].mean(0)])
    with torch.inference_mode():
        expected = dense({"sentence_embedding": pooled})["sentence_embedding"]
    torch.testing.assert_close(head(states, offsets), expected, atol=1e-5, rtol=1e-5)


def test_errors_for_unsupported_layers(tiny, tmp_path):
    path = saved(tiny("bert"), tmp_path / "m", st.Dense(32, 8))
    card = read_card(path)
    unsupported = {"2_Dense__config": {"activation_function": "os.system"}}
    with pytest.raises(ModelError, match=r"activation 'os\.system'"):
        Head(read_card(rewrite(path, tmp_path / "a", **unsupported)), 32, CPU, pooling="auto", normalize=None)
    (path / "2_Dense" / "model.safetensors").rename(path / "2_Dense" / "weights.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors and no pytorch_model\.bin"):
        Head(card, 32, CPU, pooling="auto", normalize=None)
