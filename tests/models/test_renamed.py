"""Models of Alibaba's type "new" have the vectors of their authors' code, which is not run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.settings import Settings

from ..helpers.alibaba import make_new, token_states
from ..helpers.cards import TEXTS, rewrite
from ..helpers.versions import NEEDS_GTE

pytestmark = pytest.mark.filterwarnings("ignore:.*custom model code", "ignore:.*has no modules")
NTK8 = {"factor": 8.0, "type": "ntk"}
# What the published models differ in.
PUBLISHED = {
    "gte-base-en-v1.5": {},
    "gte-large-en-v1.5": {"type_vocab_size": 2},
    "gte-multilingual-base": {
        "prefix": "new.", "style": "unigram", "type_vocab_size": 1, "rope_theta": 20000, "rope_scaling": NTK8,
        "architectures": ["NewModel", "NewForTokenClassification"],
    },
    "snowflake-arctic-embed-m-v2.0": {
        "style": "unigram", "model_type": "gte", "architectures": ["GteModel"], "type_vocab_size": 1,
        "rope_theta": 160000, "rope_scaling": None, "unpad_inputs": "true",
        "use_memory_efficient_attention": "true",
    },
    "gte with ntk": {"model_type": "gte", "architectures": ["GteModel"], "type_vocab_size": 1},
    "stella_en_400M_v5": {"type_vocab_size": 2, "rope_theta": 160000, "unpad_inputs": True},
    "no scaling": {"rope_scaling": None, "rope_theta": 10000},
}  # fmt: skip


@pytest.fixture(params=PUBLISHED)
def path(request, tmp_path):
    return make_new(tmp_path / "m", **PUBLISHED[request.param])


def expected(path):
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    ids = [tokenizer(text, truncation=True, max_length=64)["input_ids"] for text in TEXTS]
    means = np.stack([token_states(path, row).mean(0) for row in ids])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@NEEDS_GTE
def test_published_layouts(path):
    settings = Settings(ModelRef(str(path)), autocast=False)
    wanted = expected(path)
    np.testing.assert_allclose(embed_texts(TEXTS, settings).matrix.numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(reference(TEXTS[:3], settings), wanted[:3], atol=1e-5)


def test_the_reference_tells_models_apart(tmp_path):
    """Each setting of the positions changes the states of the reference."""
    paths = [make_new(tmp_path / str(i), rope_scaling=scaling, rope_theta=theta)
             for i, (scaling, theta) in enumerate([(None, 500000), (NTK8, 500000), (NTK8, 10000)])]  # fmt: skip
    states = [token_states(path, list(range(5, 40))) for path in paths]
    assert min(np.abs(states[a] - states[b]).max() for a, b in [(0, 1), (0, 2), (1, 2)]) > 1e-2


@NEEDS_GTE
def test_defaults_of_the_authors_code(tmp_path):
    path = make_new(tmp_path / "m", rope_theta=10000.0, rope_scaling=None, type_vocab_size=1)
    config = json.loads((path / "config.json").read_text())
    for name in ("rope_theta", "rope_scaling", "pack_qkv", "type_vocab_size", "position_embedding_type"):
        config.pop(name)
    short = rewrite(path, tmp_path / "n", config=[])
    (short / "config.json").write_text(json.dumps(config))
    ids = list(range(5, 30))
    with torch.inference_mode():
        states = load_weights(short, torch.float32)(input_ids=torch.tensor([ids]))[0][0]
    np.testing.assert_allclose(states, token_states(path, ids), atol=1e-5)


REFUSED = [
    {"pack_qkv": False},
    {"position_embedding_type": "absolute"},
    {"layer_norm_type": "rms_norm"},
    {"logn_attention_scale": True},
    {"rope_scaling": {"factor": 2.0, "type": "ntk", "mixed_b": 0.625}},
    {"rope_scaling": {"factor": 2.0, "type": "linear"}},
    {"rope_scaling": {"factor": 0.5, "type": "ntk"}},
    {"rope_parameters": {"rope_type": "ntk", "factor": 2.0, "rope_theta": 500000}},
]


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_settings_that_transformers_lacks_are_refused(change, tmp_path):
    path = rewrite(make_new(tmp_path / "m"), tmp_path / "n", config=change)
    (name,) = change
    with pytest.raises(ModelError, match=rf"config\.json has {name}=.*trust_remote_code=True"):
        load_weights(path, torch.float32)


@pytest.mark.parametrize(
    "change", [{"rope_scaling": {"type": "ntk"}}, {"rope_theta": "x"}, {"hidden_size": "x"}]
)
def test_damaged_settings(change, tmp_path):
    path = rewrite(make_new(tmp_path / "m"), tmp_path / "n", config=change)
    with pytest.raises(ModelError):
        load_weights(path, torch.float32)


def test_the_warning_of_custom_code_names_the_type_of_transformers(tmp_path):
    with pytest.warns(UserWarning, match="transformers' own 'gte' is used instead"):
        read_card(make_new(tmp_path / "m"))
