"""Adapters by directory, name on the hub and folder of the model; models that are only an adapter of another."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from nemo_embed_dask import EmbeddingCreatorStage, verify
from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import find_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, alone, build, rewrite
from ..helpers.versions import TRANSFORMERS, needs

peft = pytest.importorskip("peft")
needs_right_reference = needs(
    "transformers", TRANSFORMERS, "with 5.6, sentence-transformers loads adapters wrongly"
)

LORA = {"r": 4, "target_modules": ["query", "value"], "init_lora_weights": False}
PLAIN = {"pooling": "auto", "autocast": False}


@pytest.fixture(autouse=True)
def any_peft(monkeypatch):
    """Let transformers load adapters with the peft that is installed, which it may find too old."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.17.0")


def train(base, target, seed=3, **options):
    """Write an adapter of a model, and nothing else, with random weights."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModel.from_pretrained(base)
        peft.get_peft_model(model, peft.LoraConfig(**{**LORA, **options})).save_pretrained(target)
    (target / "README.md").unlink()
    return target


def save_adapted(base, target):
    """Save a model with an adapter as sentence-transformers does."""
    torch.manual_seed(5)
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(peft.LoraConfig(**LORA))
    model.save_pretrained(str(target))
    return target


def ours(model, **options):
    return embed_texts(TEXTS, Settings(ModelRef(str(model)), **{**PLAIN, **options})).matrix


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base"
    prompts = {"prompts": {"doc": "title: "}, "default_prompt_name": "doc"}
    return build(tiny("bert"), path, pooling="cls", dense="tanh", normalize=True, **prompts)


@needs_right_reference
def test_a_directory_that_sentence_transformers_saved_with_an_adapter(base, tmp_path):
    path = save_adapted(base, tmp_path / "adapted")
    assert not (path / "config.json").exists()
    got = ours(path)
    np.testing.assert_allclose(got, alone(path, TEXTS), atol=1e-5)
    assert not np.allclose(got, ours(base), atol=1e-2)
    card = find_card(ModelRef(str(path)))
    assert (card.name, card.weights_path, card.adapter) == ("adapted", base, path)


@needs_right_reference
def test_an_adapter_with_a_tokenizer_but_no_modules_is_pooled_as_in_sentence_transformers(base, tmp_path):
    path = train(base, tmp_path / "adapter")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(path)
    with pytest.warns(UserWarning, match="'mean_pooling' is used.* Its base model has 'cls'. Look at"):
        np.testing.assert_allclose(ours(path), alone(path, TEXTS), atol=1e-5)


def test_modules_without_a_tokenizer_are_refused(base, tmp_path):
    path = train(base, tmp_path / "adapter")
    shutil.copy(base / "modules.json", path)
    shutil.copytree(base / "1_Pooling", path / "1_Pooling")
    shutil.copytree(base / "2_Dense", path / "2_Dense")
    with pytest.raises(ModelError, match="model 'adapter' has no tokenizer"):
        ours(path)


def test_a_directory_of_nothing_but_an_adapter_is_its_base_with_it(base, tmp_path):
    path = train(base, tmp_path / "adapter")
    assert np.array_equal(ours(path), ours(base, adapter=str(path)))
    card = find_card(ModelRef(str(path)))
    assert (card.path, card.adapter, card.pooling, card.default_prompt) == (base, path, "cls", "doc")


@pytest.mark.parametrize("maker", [save_adapted, train])
def test_the_reference_merges_the_adapter_too(maker, base, tmp_path):
    path = maker(base, tmp_path / "adapter")
    settings = Settings(ModelRef(str(path)), **PLAIN)
    np.testing.assert_allclose(ours(path), reference(TEXTS, settings), atol=1e-5)


def test_a_base_in_sentence_transformers_older_layout(base, tmp_path):
    """The adapter names the folder of the transformer, or the model that has it."""
    moved = tmp_path / "old"
    shutil.copytree(base, moved)
    (moved / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (moved / name).rename(moved / "0_Transformer" / name)
    modules = json.loads((moved / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (moved / "modules.json").write_text(json.dumps(modules))
    path = save_adapted(base, tmp_path / "adapted")
    for name, named in {"model": moved, "folder": moved / "0_Transformer"}.items():
        changed = rewrite(path, tmp_path / name, adapter_config={"base_model_name_or_path": str(named)})
        assert np.array_equal(ours(changed), ours(path))


def test_the_model_is_loaded_again_if_its_base_or_its_adapter_was_saved_again(base, tmp_path):
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    path = train(copy, tmp_path / "adapter")
    first, digests = ours(path), model_digests(Settings(ModelRef(str(path))))
    train(copy, path, seed=4)
    second, other = ours(path), model_digests(Settings(ModelRef(str(path))))
    assert not np.allclose(first, second, atol=1e-3)
    assert digests["weights"] != other["weights"]
    assert digests["base"] == other["base"]
    torch.manual_seed(9)
    transformers.BertModel(transformers.BertConfig.from_pretrained(copy)).save_pretrained(copy)
    assert not np.allclose(ours(path), second, atol=1e-3)
    assert model_digests(Settings(ModelRef(str(path))))["base"] != other["base"]


REFUSED = {
    "no base": ({"base_model_name_or_path": None}, "does not name its base model .* adapter='.*changed'"),
    "a base that is nowhere": (
        {"base_model_name_or_path": "some/base"},
        "model 'changed' is a PEFT adapter, and its base model 'some/base' cannot be used: .*was not found",
    ),
    "a base that is a lost directory": (
        {"base_model_name_or_path": "/nowhere/base"},
        "model 'changed' .* its base model '/nowhere/base' cannot be used",
    ),
    "a base of another kind": ({"base_model_name_or_path": 3}, r"adapter_config\.json: 'base_model_name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_error_for_a_base_model_that_cannot_be_found(case, base, tmp_path):
    options, message = REFUSED[case]
    path = rewrite(train(base, tmp_path / "adapter"), tmp_path / "changed", adapter_config=options)
    with pytest.raises(ModelError, match=message):
        ours(path)


def test_error_for_two_adapters(base, tmp_path):
    first = train(base, tmp_path / "first")
    second = rewrite(first, tmp_path / "second", adapter_config={"base_model_name_or_path": str(first)})
    with pytest.raises(
        ModelError, match="model 'second' is a PEFT adapter of '.*first', which is an adapter too"
    ):
        ours(second)
    with pytest.raises(ModelError, match="model 'first' is a PEFT adapter, and adapter='.*' would be a second"):
        ours(first, adapter=str(first))


def test_error_for_an_adapter_without_weights(base, tmp_path):
    path = train(base, tmp_path / "adapter")
    (path / "adapter_model.safetensors").rename(path / "adapter.safetensors")
    for model, options in ((path, {}), (base, {"adapter": str(path)})):
        with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
            ours(model, **options)


@needs_right_reference
def test_verify_compares_with_sentence_transformers_and_its_adapter(base, tmp_path):
    path = save_adapted(base, tmp_path / "adapted")
    stage = EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling="auto", autocast=False)
    verdict = verify(stage, TEXTS)
    assert verdict.passed
    assert verdict.third_opinion > 0.99999


def test_error_for_weighted_tokens_with_an_adapter(base, tmp_path):
    path = train(base, tmp_path / "adapter")
    with pytest.raises(ModelError, match="adapters are merged only into the transformer"):
        ours(path, pooling="splade")
