"""Loaded models belong to the files they were read from: other files give other vectors in the same process."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from nemo_embed_dask import runtimes
from nemo_embed_dask.engine import embed_texts, load_model
from nemo_embed_dask.engine import model as engine_model
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens import reader

from ..helpers.cards import TEXTS, build, reference
from ..helpers.tiny import TEXT


def ours(path, **changes):
    settings = Settings(ModelRef(str(path)), **{"pooling": "auto", "autocast": False, **changes})
    return embed_texts(TEXTS, settings).matrix.numpy()


def agrees(path):
    got, expected = ours(path), reference(path, TEXTS)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    return got


def other_weights(path):
    model = transformers.AutoModel.from_pretrained(path)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(-1)
    model.save_pretrained(path)


def other_tokenizer(path):
    old = transformers.AutoTokenizer.from_pretrained(path)
    old.train_new_from_iterator(TEXT[:2], 200).save_pretrained(path)


def other_pooling(path):
    config = path / "1_Pooling" / "config.json"
    config.write_text(config.read_text().replace('"cls"', '"max"'))


def other_dense(path):
    shutil.rmtree(path)
    build(path.parent / "bert", path, pooling="cls", dense="none")


@pytest.mark.parametrize("change", [other_weights, other_tokenizer, other_pooling, other_dense])
def test_a_model_that_is_saved_again_gives_its_new_vectors(change, tiny, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path / "bert")
    path = build(tmp_path / "bert", tmp_path / "m", pooling="cls", dense="tanh")
    before, digests = agrees(path), model_digests(Settings(ModelRef(str(path))))
    sizes = [len(cache) for cache in (runtimes._loaded, reader._tokenizers, engine_model._heads)]
    change(path)
    assert np.abs(agrees(path) - before).max() > 0.01
    assert model_digests(Settings(ModelRef(str(path)))) != digests
    # the old model is not kept
    assert [len(cache) for cache in (runtimes._loaded, reader._tokenizers, engine_model._heads)] == sizes


def test_a_loaded_model_is_not_the_file_that_is_overwritten(tiny, tmp_path):
    """The weights of a file are mapped at first; a shorter file would kill a process that reads them."""
    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    model = load_model(Settings(ModelRef(str(path)), pooling="auto", autocast=False))
    ids = Ragged.from_rows([[2, 7, 9, 3]])
    before, _ = model.runtime.states(ids)
    file = path / "model.safetensors"
    data = file.read_bytes()
    first = 8 + int.from_bytes(data[:8], "little")  # the weights begin after the header
    with file.open("r+b") as handle:
        handle.write(data[:first] + bytes(len(data) - first))
    after, _ = model.runtime.states(ids)
    assert torch.equal(before, after)


def test_other_content_with_the_same_size_and_time_is_seen(tiny, tmp_path):
    """As ``cp -p``, ``rsync -t`` and ``tar`` write it."""
    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    agrees(path)
    file, other = path / "model.safetensors", tmp_path / "other"
    weights = {name: -tensor for name, tensor in load_file(file).items()}
    save_file(weights, other, metadata={"format": "pt"})
    shutil.copystat(file, other)
    assert other.stat().st_size == file.stat().st_size
    other.replace(file)
    agrees(path)


def test_digests_for_openvino_include_its_export(tiny, tmp_path):
    path = shutil.copytree(tiny("bert"), tmp_path / "m")

    def digests():
        settings = Settings(ModelRef(str(path)))
        return [
            model_digests(replace(settings, runtime=runtime))["weights"] for runtime in ("torch", "openvino")
        ]

    torch_before, openvino_before = digests()
    (path / "openvino").mkdir()
    (path / "openvino" / "openvino_model.bin").write_text("weights")
    torch_after, openvino_after = digests()
    assert torch_before == torch_after == openvino_before != openvino_after


def test_a_relative_path_is_of_the_current_directory(tiny, tmp_path, monkeypatch):
    for name, pooling in (("a", "cls"), ("b", "max")):
        (tmp_path / name).mkdir()
        build(tiny("bert"), tmp_path / name / "model", pooling=pooling)
    other_weights(tmp_path / "b" / "model")
    vectors, digests = [], []
    for name in ("a", "b", "a"):
        monkeypatch.chdir(tmp_path / name)
        np.testing.assert_array_equal(ours("model"), ours(tmp_path / name / "model"))
        vectors.append(agrees("model"))
        digests.append(model_digests(Settings(ModelRef("model"))))
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    assert digests[0] == digests[2] != digests[1]


def test_an_adapter_that_is_saved_again_or_lies_elsewhere(tiny, tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")

    def save(path, seed):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_pretrained(tiny("bert"))
        config = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
        peft.get_peft_model(model, config).save_pretrained(path)

    def embed():
        changes = {"pooling": "cls", "adapter": "adapter"}
        settings = Settings(ModelRef(str(tiny("bert"))), **changes)
        return ours(tiny("bert"), **changes), model_digests(settings)["adapter"]

    save(tmp_path / "a" / "adapter", 1)
    save(tmp_path / "b" / "adapter", 2)
    monkeypatch.chdir(tmp_path / "a")
    first, first_digest = embed()
    monkeypatch.chdir(tmp_path / "b")
    second, second_digest = embed()
    assert np.abs(first - second).max() > 0.01
    assert first_digest != second_digest
    save(tmp_path / "b" / "adapter", 1)
    again, again_digest = embed()
    np.testing.assert_allclose(again, first, atol=1e-6)
    assert again_digest == first_digest
