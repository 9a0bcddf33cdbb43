"""What a model's directory must have: without it there is an error and no vector."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from nemo_embed_dask import runtimes
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.files import (
    check_tokenizer,
    missing_files,
    missing_options,
    model_files,
)
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.loading import load_with_transformers

from ..helpers.cards import build, rewrite
from ..helpers.tiny import KINDS, MORE


def _shards(path):
    """Split a model's weights into shards of transformers' own making; return their names."""
    model = transformers.AutoModel.from_pretrained(path)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="40KB")
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    assert len(shards) > 2
    return shards


def test_missing_shards_are_named(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    shards = _shards(path)
    assert missing_files(path) == []
    load_weights(path, torch.float32)
    (path / shards[1]).unlink()
    assert missing_files(path) == [shards[1]]
    with pytest.raises(ModelError, match=shards[1]):
        load_weights(path, torch.float32)


def test_weights_of_another_name_are_named(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "model.safetensors").rename(path / "weights.safetensors")
    with pytest.raises(ModelError, match=r"lacks the weights model\.safetensors.*weights\.safetensors"):
        load_weights(path, torch.float32)
    # unless the configuration names them, as transformers allows
    named = rewrite(path, tmp_path / "n", config={"transformers_weights": "weights.safetensors"})
    expected = load_weights(tiny("bert"), torch.float32).state_dict()
    assert all(
        torch.equal(value, expected[key])
        for key, value in load_weights(named, torch.float32).state_dict().items()
    )


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", 3])
def test_names_of_weights_that_cannot_be_files(name, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(ModelError, match="has no safetensors weights"):
        load_weights(path, torch.float32)
    named = rewrite(tiny("bert"), tmp_path / "n", config={"transformers_weights": name})
    with pytest.raises(ModelError, match="lacks the weights"):
        load_weights(named, torch.float32)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": 3}])
def test_an_index_that_lists_no_weights(index, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "model.safetensors").rename(path / "model-1.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks the weights model\.safetensors"):
        load_weights(path, torch.float32)


def test_a_directory_without_config(tiny, tmp_path):
    path = rewrite(build(tiny("bert"), tmp_path / "old", pooling="cls"), tmp_path / "m")
    (path / "config.json").unlink()
    assert missing_files(path) == ["config.json"]
    with pytest.raises(ModelError, match=r"has no config\.json"):
        runtimes.load(read_card(path))


@pytest.mark.parametrize(
    "kept", [[], ["tokenizer_config.json"], ["tokenizer_config.json", "added_tokens.json"]]
)
@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_a_directory_without_tokenizer(kind, kept, tiny, tmp_path):
    path = rewrite(tiny(kind), tmp_path / "m", added_tokens={"a": 5}, special_tokens_map={"unk_token": "a"})
    for file in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        if file not in kept:
            (path / file).unlink()
    assert missing_files(path) == ["tokenizer.json"]
    with pytest.raises(ModelError, match=r"has no tokenizer: there is no tokenizer\.json"):
        embed_texts(["a"], Settings(ModelRef(str(path))))


# By class: files from which transformers builds the tokenizer.
_BERT = ("BertTokenizer", {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n"})
_ROBERTA = (
    "RobertaTokenizer",
    {"vocab.json": '{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "b": 6, "ab": 7}',
     "merges.txt": "#version: 0.2\na b\n"},
)  # fmt: skip


# transformers 5.6 warns in this way about its own call of tokenizers.
@pytest.mark.filterwarnings("ignore:Deprecated in 0.9.0:DeprecationWarning")
@pytest.mark.parametrize(("name", "files"), [_BERT, _ROBERTA])
def test_older_vocabularies_are_tokenizers_of_their_own_class_only(name, files, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", tokenizer_config={"tokenizer_class": name})
    (path / "tokenizer.json").unlink()
    for file, text in files.items():
        (path / file).write_text(text)
    assert missing_files(path) == []
    assert load_with_transformers(path)("a", add_special_tokens=False)["input_ids"] == [5]
    other = {_BERT[0]: "GPT2Tokenizer", _ROBERTA[0]: "BertTokenizer"}[name]
    foreign = rewrite(path, tmp_path / "n", tokenizer_config={"tokenizer_class": other})
    with pytest.raises(ModelError, match=r"has no tokenizer: .* and no vocab\."):
        load_with_transformers(foreign)
    (path / list(files)[-1]).unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_with_transformers(path)


def test_an_empty_vocabulary_is_no_tokenizer(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    (path / "vocab.txt").touch()
    assert missing_files(path) == ["tokenizer.json"]
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_with_transformers(path)


def test_a_tokenizer_of_bytes_needs_no_files(tmp_path):
    check_tokenizer(tmp_path, transformers.ByT5Tokenizer.vocab_files_names)
    with pytest.raises(ModelError, match="has no tokenizer"):
        check_tokenizer(tmp_path, transformers.GemmaTokenizer.vocab_files_names)


def test_files_of_modules_are_missing(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="cls", dense="tanh", normalize=True)
    assert missing_files(path) == []
    assert missing_options(path) == []
    for file in ("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"):
        (path / file).unlink()
    assert missing_files(path) == ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]


def test_options_that_may_be_missing(tiny, tmp_path):
    plain = tiny("bert")
    assert missing_options(plain) == [
        "modules.json", "chat_template.jinja",
    ]  # fmt: skip
    path = build(plain, tmp_path / "m", pooling="cls")
    (path / "sentence_bert_config.json").rename(path / "sentence_distilbert_config.json")
    (path / "config_sentence_transformers.json").unlink()
    assert missing_options(path) == [
        "config_sentence_transformers.json", "sentence_bert_config.json", "sentence_roberta_config.json",
    ]  # fmt: skip


def test_only_files_that_are_read_are_downloaded():
    read = ["config.json", "modules.json", "0_T/config.json", "0_T/model.safetensors", "0_T/tokenizer.json",
            "1_Pooling/config.json", "2_Dense/a.safetensors", "2_Dense/b.safetensors"]  # fmt: skip
    others = ["README.md", "model.safetensors", "0_T/fp16.safetensors", "0_T/pytorch_model.bin", "onnx/config.json",
              "0_T/onnx/config.json", "openvino/openvino_model.xml", "openvino/config.json", "3_x/a.json"]  # fmt: skip
    assert model_files([*read, *others], ["0_T", "1_Pooling", "2_Dense"]) == read
    assert model_files(["a.json", "a.safetensors", "b.safetensors", "x/c.safetensors"], [""]) == [
        "a.json", "a.safetensors", "b.safetensors",
    ]  # fmt: skip
