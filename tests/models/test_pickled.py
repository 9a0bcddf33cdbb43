"""Pickled weights (``pytorch_model.bin``): the same vectors as from safetensors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.checks.verification import verify
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.files import missing_files, missing_options, model_files
from nemo_embed_dask.models.json_files import JsonObject
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.sentence_transformers import Layer
from nemo_embed_dask.models.splade import load_head
from nemo_embed_dask.models.stamps import stamp_model
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.stages import EmbeddingCreatorStage
from nemo_embed_dask.vectors.layers import load_layer

from ..helpers.cards import TEXTS, alone, build, rewrite
from ..helpers.sparse import language_model
from ..helpers.versions import NEEDS_PICKLES

pytestmark = [NEEDS_PICKLES, pytest.mark.filterwarnings("ignore:.*has no safetensors")]


def pickle_weights(folder, change=lambda tensors: tensors, **options):
    """Replace the safetensors in a folder by a pickled file of the same weights."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(change(tensors), folder / "pytorch_model.bin", **options)
    return folder


def vectors(path, **changes):
    return embed_texts(
        TEXTS, Settings(ModelRef(str(path)), pooling="auto", autocast=False, **changes)
    ).matrix.numpy()


def same_weights(path, expected):
    got = load_weights(path, torch.float32).state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "t5", "gpt2", "gte"])
def test_a_whole_model_has_the_vectors_of_its_safetensors(kind, tiny, tmp_path):
    path = build(tiny(kind), tmp_path / "m", pooling="mean", dense="tanh", normalize=True)
    expected = alone(path, TEXTS)
    copy = rewrite(path, tmp_path / "c")
    pickle_weights(copy)
    pickle_weights(copy / "2_Dense")
    with pytest.warns(
        UserWarning, match=r"model 'c' has no safetensors.*pytorch_model\.bin.*weights_only=True"
    ):
        got = vectors(copy)
    np.testing.assert_allclose(got, vectors(path), atol=1e-6)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    settings = Settings(ModelRef(str(copy)), pooling="auto", autocast=False)
    np.testing.assert_allclose(reference(TEXTS[:3], settings), expected[:3], atol=1e-5)


def test_the_warning_is_given_once_per_model(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    for folder in (path, path / "2_Dense"):
        pickle_weights(folder)
    with pytest.warns(UserWarning, match="has no safetensors") as given:
        vectors(path)
        load_weights(path, torch.float32)
    assert len([one for one in given if "has no safetensors" in str(one.message)]) == 1


OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def _old_names(tensors):
    for new, old in OLD_NAMES.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    return tensors


def _with_head(tensors):
    found = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    return found | {
        "cls.predictions.decoder.weight": found["bert.embeddings.word_embeddings.weight"],  # tied: one storage
        "bert.embeddings.position_ids": torch.arange(64)[None],
    }


def _parameters(tensors):
    return {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}


WRITTEN = {
    "zip": (lambda tensors: tensors, {}),
    "legacy": (lambda tensors: tensors, {"_use_new_zipfile_serialization": False}),
    "gamma and beta": (_old_names, {}),
    "a model with a head": (_with_head, {}),
    "parameters": (_parameters, {}),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_every_way_to_write_them(written, tiny, tmp_path):
    change, options = WRITTEN[written]
    path = pickle_weights(rewrite(tiny("bert"), tmp_path / "m"), change, **options)
    assert same_weights(path, load_weights(tiny("bert"), torch.float32).state_dict())


def test_half_precision_and_shards(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    tensors = {name: tensor.half() for name, tensor in load_file(path / "model.safetensors").items()}
    (path / "model.safetensors").unlink()
    index = {}
    for shard in range(2):
        file = f"pytorch_model-{shard + 1:05d}-of-00002.bin"
        part = dict(list(tensors.items())[shard::2])
        torch.save(part, path / file)
        index |= dict.fromkeys(part, file)
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    exact = load_weights(tiny("bert"), torch.float32).state_dict()
    assert missing_files(path) == []
    assert same_weights(path, {name: tensor.half().float() for name, tensor in exact.items()})
    (path / file).unlink()
    assert missing_files(path) == [file]
    with pytest.raises(ModelError, match=rf"lacks the weights {file}"):
        load_weights(path, torch.float32)


def test_safetensors_are_preferred_and_other_pickles_not_read(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    digests = model_digests(Settings(ModelRef(str(path))))
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.bin", "2_Dense/pytorch_model.bin"):
        (path / name).write_text("damaged")
    assert model_digests(Settings(ModelRef(str(path)))) == digests
    assert missing_options(path) == []
    vectors(path)


def test_stamps_and_digests_see_pickled_weights(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    for folder in (path, path / "2_Dense"):
        pickle_weights(folder)
    assert missing_files(path) == []
    settings = Settings(ModelRef(str(path)), pooling="auto", autocast=False)
    for folder in (path, path / "2_Dense"):
        stamp, digests, before = stamp_model(path), model_digests(settings), vectors(path)
        file = folder / "pytorch_model.bin"
        torch.save({name: tensor * 1.5 for name, tensor in torch.load(file).items()}, file)
        assert stamp_model(path) != stamp
        changed = model_digests(settings)
        assert {name for name in changed if changed[name] != digests[name]} == {"weights"}
        assert np.abs(vectors(path) - before).max() > 1e-3  # loaded again
    (path / "2_Dense" / "pytorch_model.bin").unlink()
    assert missing_files(path) == ["2_Dense/model.safetensors"]


def test_only_pickled_weights_that_are_read_are_downloaded():
    read = ["a/config.json", "a/pytorch_model-00001-of-00002.bin", "a/pytorch_model-00002-of-00002.bin",
            "a/pytorch_model.bin.index.json", "b/pytorch_model.bin"]  # fmt: skip
    others = ["a/training_args.bin", "a/optimizer.bin", "b/pytorch_model-00001-of-00001.bin", "pytorch_model.bin",
              "openvino/openvino_model.bin", "b/pytorch_model.fp16.bin", "a/optimizer.pt", "a/model.pkl"]  # fmt: skip
    assert model_files([*others, *read], ["a", "b"]) == read
    for safe in ("model.safetensors", "model.safetensors.index.json"):
        assert model_files([safe, "pytorch_model.bin"], [""]) == [safe]


def test_a_cached_model_is_known_to_have_no_safetensors(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    for folder in (path, path / "2_Dense"):
        pickle_weights(folder)
    safe = ["model.safetensors", "model.safetensors.index.json"]
    assert missing_options(path) == [*safe, *(f"2_Dense/{name}" for name in safe)]


def test_verify_agrees(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    for folder in (path, path / "2_Dense"):
        pickle_weights(folder)
    stage = EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling="auto", autocast=False)
    verdict = verify(stage, TEXTS[:3])
    assert verdict.minimum > 1 - 1e-6
    assert verdict.third_opinion > 1 - 1e-6


def test_the_head_of_a_sparse_model(tiny, tmp_path):
    path = language_model(tiny("bert"), tmp_path / "m")
    expected = load_head(path)(torch.ones(3, 32))
    torch.testing.assert_close(load_head(pickle_weights(path))(torch.ones(3, 32)), expected)


def test_the_projection_of_a_stanford_model(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    pickle_weights(path, lambda tensors: tensors | {"linear.weight": torch.eye(8, 32)})
    layer = load_layer(Layer("Projection", path, JsonObject(path, {})), torch.device("cpu"))
    torch.testing.assert_close(layer(torch.ones(3, 32)), torch.ones(3, 8))
