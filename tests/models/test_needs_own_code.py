"""Models whose class in transformers does not fit are refused, with the ways that there are."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.weights import load_weights

from ..helpers.cards import rewrite

WAYS = r"trust_remote_code=True.*'Alibaba-NLP/gte-base-en-v1\.5' or 'jinaai/jina-embeddings-v3-hf'"


def test_jina_v2(tiny, tmp_path):
    """Its type is "bert", with ALiBi for positions and a gated layer."""
    changes = {
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    }
    path = rewrite(tiny("bert"), tmp_path / "m", config=changes)
    with pytest.raises(ModelError, match=rf"position_embedding_type='alibi'.* BertModel .*{WAYS}"):
        load_weights(path, torch.float32)


def test_nomic_with_experts(tiny, tmp_path):
    """nomic-embed-text-v2-moe has the type "nomic_bert", and experts in every second layer."""
    changes = {
        "num_experts": 8,
        "moe_every_n_layers": 2,
        "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    }
    path = rewrite(tiny("nomic_bert"), tmp_path / "m", config=changes)
    weights = load_file(path / "model.safetensors")
    moved = {name.replace("layers.1.mlp.", "layers.1.mlp.experts."): weight for name, weight in weights.items()}
    assert moved.keys() != weights.keys()
    save_file(moved, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"lacks weights that NomicBertModel needs.*{WAYS}"):
        load_weights(path, torch.float32)


def test_a_model_without_code_has_no_such_way(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"position_embedding_type": "alibi"})
    with pytest.raises(ModelError, match="use another model$"):
        load_weights(path, torch.float32)
