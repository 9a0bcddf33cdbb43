"""Models that also read images: the configuration of their text part is the one that counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ConfigError, ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.runtimes import tables
from nemo_embed_dask.settings import Settings

from ..helpers.architectures import POSITIONS, VOCABULARY, tiny_config
from ..helpers.cards import TEXTS
from ..helpers.tiny import make_tokenizer
from ..helpers.versions import TRANSFORMERS, needs

_NEW = pytest.param("embedding_gemma2", marks=needs("transformers", TRANSFORMERS, "older ones lack it"))
KINDS = ["gemma3", _NEW, "mistral3", "qwen3_5"]
pytestmark = pytest.mark.filterwarnings("ignore:.*has no modules")


@pytest.fixture(scope="module", params=KINDS)
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / request.param
    tokenizer = make_tokenizer("decoder")
    config = tiny_config(transformers.CONFIG_MAPPING[request.param])
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    assert "vocab_size" not in json.loads((path / "config.json").read_text())
    assert len(tokenizer) != VOCABULARY
    return path


def test_vectors_are_those_of_transformers(path):
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    texts = [text for text in TEXTS if text]
    expected = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=64)["input_ids"]
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0].double()
        expected.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    got = embed_texts(texts, Settings(ModelRef(str(path)), autocast=False, pooling="mean_pooling"))
    np.testing.assert_allclose(got.matrix.numpy(), np.stack(expected), atol=1e-5)


def test_sizes_are_those_of_the_text_part(path):
    model = load_weights(path, torch.float32)
    assert read_card(path).max_positions == POSITIONS
    assert tables.text_config(model).pad_token_id == make_tokenizer("decoder").pad_token_id
    model.get_input_embeddings = lambda: None  # as in a model that does not say where its table is
    assert tables.vocabulary_size(model) == len(make_tokenizer("decoder"))


def test_a_limit_beyond_the_positions_of_the_text_part(path):
    settings = Settings(ModelRef(str(path)), max_seq_length=POSITIONS + 1, autocast=False)
    with pytest.raises(ConfigError, match=str(POSITIONS)):
        embed_texts(["a"], settings)


def test_rope_limits_of_the_text_part():
    rope = {"rope_type": "dynamic", "factor": 2.0}
    text = {"rope_parameters": rope, "max_position_embeddings": 99}
    assert tables.configured_rope_limit({"text_config": text, "max_position_embeddings": 7}) == 99


def test_settings_of_the_text_part_that_transformers_ignores(path, tmp_path):
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["position_embedding_type"] = "alibi"
    for file in path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="position_embedding_type='alibi'"):
        load_weights(tmp_path, torch.float32)
