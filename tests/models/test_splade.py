"""What the files of a SparseEncoder say, in the layouts of sentence-transformers 5 and 6, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.files import missing_files
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.splade import Splade, load_head
from nemo_embed_dask.settings import Settings

from ..helpers.cards import build, rewrite
from ..helpers.hub import serving
from ..helpers.sparse import as_version_5, language_model, splade

POOLING = "1_SpladePooling__config"


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("splade")
    return splade(language_model(tiny("bert"), folder / "lm"), folder / "m", prompts={"query": "q: "})


def test_version_6(model):
    card = read_card(model)
    assert (card.pooling, card.splade, card.has_modules) == ("splade", Splade(), True)
    assert card.prompts["query"] == "q: "


def test_version_5(model, tmp_path):
    card = read_card(as_version_5(rewrite(model, tmp_path / "m")))
    assert (card.pooling, card.splade, card.max_seq_length) == ("splade", Splade(), 40)


def test_settings(model, tmp_path):
    changes = {"pooling_strategy": "sum", "activation_function": "log1p_relu"}
    options = {"max_active_dims": 12}
    path = rewrite(model, tmp_path / "m", **{POOLING: changes, "config_sentence_transformers": options})
    assert read_card(path).splade == Splade("sum", 2, 12)


def test_other_models_have_none(tiny, tmp_path):
    assert read_card(tiny("bert")).splade is None
    assert read_card(language_model(tiny("bert"), tmp_path / "lm")).pooling == "mean_pooling"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pooling_strategy": "mean"}, "its pooling_strategy is 'mean'"),
        ({"activation_function": "gelu"}, "activation_function 'gelu'"),
        ({"activation_function": ["relu"]}, r"activation_function .*relu"),
        ({"temperature": 2}, "its config.json has 'temperature'"),
    ],
)
def test_unknown_settings_are_refused(changes, match, model, tmp_path):
    with pytest.raises(ModelError, match=match):
        read_card(rewrite(model, tmp_path / "m", **{POOLING: changes}))


def test_a_lost_setting_is_missed(model, tmp_path):
    path = rewrite(model, tmp_path / "m")
    (path / "1_SpladePooling" / "config.json").unlink()
    assert missing_files(path) == ["1_SpladePooling/config.json"]
    with pytest.raises(ModelError, match="is missing, but modules.json lists this SpladePooling"):
        read_card(path)


@pytest.mark.parametrize("kind", ["SparseAutoEncoder", "SparseStaticEmbedding"])
def test_other_sparse_modules_are_refused_by_name(kind, model, tmp_path):
    listed = json.loads((model / "modules.json").read_text())
    listed[1]["type"] = f"sentence_transformers.sparse_encoder.modules.{kind}.{kind}"
    with pytest.raises(ModelError, match=kind):
        read_card(rewrite(model, tmp_path / "m", modules=listed))


def test_modules_after_the_pooling_are_refused(model, tmp_path):
    listed = json.loads((model / "modules.json").read_text())
    listed.append({"name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    with pytest.raises(ModelError, match="SpladePooling must follow the Transformer and be the last"):
        read_card(rewrite(model, tmp_path / "m", modules=listed))


def test_the_transformer_must_give_logits(model, tmp_path):
    settings = {"transformer_task": "feature-extraction"}
    with pytest.raises(ModelError, match="its task is 'feature-extraction'"):
        read_card(rewrite(model, tmp_path / "m", sentence_bert_config=settings))


def test_a_dense_pooling_of_logits_is_refused(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    with pytest.raises(ModelError, match="its task is 'fill-mask'"):
        read_card(rewrite(path, tmp_path / "n", sentence_bert_config={"transformer_task": "fill-mask"}))


def test_the_head_gives_the_logits_of_the_model(tiny, tmp_path):
    from transformers import AutoModelForMaskedLM

    path = language_model(tiny("roberta"), tmp_path / "lm")
    whole, ids = AutoModelForMaskedLM.from_pretrained(path), torch.tensor([[5, 9, 30]])
    with torch.inference_mode():
        found = load_head(path)(whole.base_model(ids).last_hidden_state[0])
        torch.testing.assert_close(found, whole(ids).logits[0], rtol=1e-5, atol=1e-5)


def test_settings_are_part_of_the_digests(model, tmp_path):
    path = rewrite(model, tmp_path / "m", **{POOLING: {"pooling_strategy": "sum"}})
    before, after = (model_digests(Settings(ModelRef(str(each)))) for each in (model, path))
    assert {name for name in before if before[name] != after[name]} == {"tokenizer_and_config"}


def test_a_repository_on_the_hub(model, tmp_path):
    code = "import sys; from nemo_embed_dask.models.locate import *; find_model(ModelRef(*sys.argv[1:2], cache_dir=sys.argv[2]))"
    with serving({"some/splade": as_version_5(rewrite(model, tmp_path / "m"))}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        subprocess.run(
            [sys.executable, "-c", code, "some/splade", str(tmp_path / "cache")], env=environment, check=True
        )
    card = read_card(find_model(ModelRef("some/splade", cache_dir=str(tmp_path / "cache"))))
    assert (card.name, card.splade) == ("some/splade", Splade())
    load_head(card.path)
