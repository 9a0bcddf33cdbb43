"""The files of late interaction models: what is read from each layout, and what is refused."""

from __future__ import annotations

import json
import string

import pytest

from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.files import missing_files, missing_options, model_files
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.cards import build, rewrite
from ..helpers.colberts import PYLATE, STANFORD, multi_vector, pylate, stanford, write


def kinds(card):
    return [layer.kind for layer in card.colbert.layers]


def test_card_of_sentence_transformers(tiny, tmp_path):
    prompts = {"query": "[Q] ", "document": "[D] "}
    card = read_card(multi_vector(tiny("bert"), tmp_path / "m", prompts=prompts, document_length=20))
    assert (card.pooling, card.default_prompt, card.prompts) == ("none", "document", prompts)
    assert kinds(card) == ["Dense", "Normalize"]
    assert card.colbert.skip_words == tuple("!.,")
    assert (card.max_seq_length, card.colbert.markers, card.layers) == (20, (), ())


def test_card_of_pylate(tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m", prompts={"document": "title: ", "other": "x"})
    card = read_card(path)
    assert card.prompts == {"query": "[Q] ", "document": "[D] title: ", "other": "x"}
    assert card.colbert.markers == ("[Q] ", "[D] ")
    assert kinds(card) == ["Dense", "Dense", "Normalize"]
    assert card.max_seq_length == PYLATE["document_length"]
    punctuation = rewrite(path, tmp_path / "n", config_sentence_transformers={"skiplist_words": None})
    assert read_card(punctuation).colbert.skip_words == tuple(string.punctuation)


def test_a_length_over_the_position_table_is_cut(tiny, tmp_path):
    assert read_card(pylate(tiny("bert"), tmp_path / "m", document_length=300)).max_seq_length == 64


def test_card_of_stanford(tiny, tmp_path):
    card = read_card(stanford(tiny("bert"), tmp_path / "m"))
    assert card.prompts == {"query": "[unused0] ", "document": "[unused1] "}
    assert kinds(card) == ["Projection", "Normalize"]
    assert (card.pooling, card.max_seq_length) == ("none", STANFORD["doc_maxlen"])
    assert card.colbert.skip_words == tuple(string.punctuation)


def test_other_models_are_none(tiny, tmp_path):
    assert read_card(tiny("bert")).colbert is None
    assert read_card(build(tiny("bert"), tmp_path / "m", pooling="cls")).colbert is None


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("2_MultiVectorMask/config", {"keep_only_token_ids": [3]}, "keep_only_token_ids are those of images"),
        ("2_MultiVectorMask/config", {"skiplist_words": 3}, "'skiplist_words' is 3, not a list"),
        ("1_Dense/config", {"module_input_name": "sentence_embedding"}, "input_name is 'sentence_embedding'"),
        ("1_Dense/config", {"module_output_name": "sentence_embedding"}, "output 'sentence_embedding'"),
        (
            "3_Normalize/config",
            {"module_input_name": "sentence_embedding"},
            "input_name is 'sentence_embedding'",
        ),
    ],
)
def test_modules_that_are_not_for_tokens_are_refused(file, changes, message, tiny, tmp_path):
    path = multi_vector(tiny("bert"), tmp_path / "m")
    with pytest.raises(ModelError, match=message):
        read_card(rewrite(path, tmp_path / "n", **{file.replace("/", "__"): changes}))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (
            "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling",
            "Hierarchical",
        ),
        ("pylate.models.Other.Other", "pylate.models.Other.Other"),
        ("sentence_transformers.models.Pooling", "Pooling"),
        ("sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm", "LayerNorm"),
    ],
)
def test_other_modules_are_refused_by_name(kind, named, tiny, tmp_path):
    path = multi_vector(tiny("bert"), tmp_path / "m")
    listed = json.loads((path / "modules.json").read_text())
    listed[3]["type"] = kind
    with pytest.raises(ModelError, match=f"{named}.*not supported"):
        read_card(rewrite(path, tmp_path / "n", modules=listed))


def test_a_mask_in_another_model_is_refused(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="cls", normalize=True)
    listed = json.loads((path / "modules.json").read_text())
    listed[2]["type"] = "sentence_transformers.multi_vector_encoder.modules.MultiVectorMask"
    with pytest.raises(ModelError, match="'MultiVectorMask', which is not supported"):
        read_card(rewrite(path, tmp_path / "n", modules=listed))


def test_the_mask_needs_its_file(tiny, tmp_path):
    path = multi_vector(tiny("bert"), tmp_path / "m")
    (path / "2_MultiVectorMask" / "config.json").unlink()
    assert missing_files(path) == ["2_MultiVectorMask/config.json"]
    with pytest.raises(ModelError, match="config.json is missing"):
        read_card(path)


def test_settings_of_stanford_are_read_downloaded_and_hashed(tiny, tmp_path):
    path = stanford(tiny("bert"), tmp_path / "m", metadata=None)
    settings = Settings(ModelRef(str(path)))
    assert "artifact.metadata" in missing_options(path)
    assert "artifact.metadata" not in missing_options(tiny("bert"))
    transformer = {"name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    with_modules = rewrite(path, tmp_path / "n", modules=[transformer])
    assert "artifact.metadata" in missing_options(with_modules)
    assert model_files(["artifact.metadata", "config.json", "x.py"], [""]) == [
        "artifact.metadata",
        "config.json",
    ]
    before, card = model_digests(settings), read_card(path)
    write(path / "artifact.metadata", STANFORD)
    after = model_digests(settings)
    assert before["tokenizer_and_config"] != after["tokenizer_and_config"]
    assert before["weights"] == after["weights"]
    assert card.max_seq_length == 64
    assert read_card(path).max_seq_length == STANFORD["doc_maxlen"]


def test_the_skip_list_is_hashed(tiny, tmp_path):
    path = multi_vector(tiny("bert"), tmp_path / "m")
    before = model_digests(Settings(ModelRef(str(path))))
    write(path / "2_MultiVectorMask" / "config.json", {"skiplist_words": ["a"]})
    assert read_card(path).colbert.skip_words == ("a",)
    assert model_digests(Settings(ModelRef(str(path)))) != before


def test_a_sentence_transformer_may_have_a_key_of_pylate(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="cls")
    path = rewrite(path, tmp_path / "n", config_sentence_transformers={"document_prefix": "[D] "})
    assert (read_card(path).colbert, read_card(path).pooling) == (None, "cls")
