"""Damaged and contradictory files of sentence-transformers' modules: the right vectors or a ModelError."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_embed_dask.errors import ModelError

from ..helpers.cards import TEXTS, assemble, load, reference, rewrite, st_models
from .test_fidelity import ours

POOLING, DENSE, NORM = "1_Pooling__config", "2_Dense__config", "3_LayerNorm__config"


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Return a model with a Pooling, a Dense that has a bias, a LayerNorm and a Normalize."""
    path = tmp_path_factory.mktemp("whole") / "m"
    model = assemble(
        st_models.Transformer(str(tiny("bert"))), pooling="cls", dense="tanh", include_prompt=False
    )
    model.append(st_models.LayerNorm(24))
    model.append(st_models.Normalize())
    model.save_pretrained(str(path))
    return path


def modules_json(path):
    return json.loads((path / "modules.json").read_text())


@pytest.mark.parametrize("lost", ["config.json", "folder", "model.safetensors"])
@pytest.mark.parametrize("folder", ["1_Pooling", "2_Dense", "3_LayerNorm"])
def test_error_for_a_module_without_its_files(folder, lost, whole, tmp_path):
    path = rewrite(whole, tmp_path / "m")
    for file in (path / folder).iterdir():
        if lost in ("folder", file.name):
            file.unlink()
    if lost == "folder":
        (path / folder).rmdir()
    if (folder, lost) == ("1_Pooling", "model.safetensors"):
        np.testing.assert_allclose(ours(path, TEXTS), reference(whole, TEXTS), atol=1e-5)
        return
    with pytest.raises(ModelError, match=folder):
        ours(path, TEXTS)


def test_the_folder_of_a_normalize_layer_may_be_lost(whole, tmp_path):
    path = rewrite(whole, tmp_path / "m")
    for file in (path / "4_Normalize").iterdir():
        file.unlink()
    (path / "4_Normalize").rmdir()
    np.testing.assert_allclose(ours(path, TEXTS), reference(path, TEXTS), atol=1e-5)


CONTRADICTIONS = [
    {POOLING: {"embedding_dimension": 64}},
    {DENSE: {"in_features": 33}}, {DENSE: {"out_features": 12}}, {DENSE: {"bias": False}},
    {DENSE: {"use_residual": True}}, {NORM: {"dimension": 12}},
]  # fmt: skip
WRONG_TYPES = [
    {"modules": "a"}, {"modules": []}, {"modules": ["a"]}, {"modules": [{"idx": 0}]},
    {POOLING: []}, {POOLING: "cls"}, {POOLING: {"pooling_mode": 3}}, {POOLING: {"pooling_mode": None}},
    {POOLING: {"pooling_mode": []}}, {POOLING: {"pooling_mode": [["cls"]]}},
    {POOLING: {"include_prompt": "false"}}, {POOLING: {"embedding_dimension": "32"}},
    {POOLING: {"embedding_dimension": None}}, {POOLING: {"unknown": 1}},
    {DENSE: []}, {DENSE: {"activation_function": None}}, {DENSE: {"activation_function": 3}},
    {DENSE: {"activation_function": {"type": "Tanh"}}}, {DENSE: {"in_features": None}},
    {DENSE: {"out_features": "24"}}, {DENSE: {"bias": "true"}}, {DENSE: {"use_residual": 1}},
    {DENSE: {"in_features": float("nan")}}, {DENSE: {"module_input_name": 3}},
    {NORM: []}, {NORM: {"dimension": 24.5}}, {NORM: {"eps": 1e-3}},
    {"sentence_bert_config": [1]}, {"sentence_bert_config": {"max_seq_length": "512"}},
    {"sentence_bert_config": {"max_seq_length": True}}, {"sentence_bert_config": {"max_seq_length": 0}},
    {"sentence_bert_config": {"do_lower_case": "true"}}, {"sentence_bert_config": {"model_args": "bf16"}},
    {"sentence_bert_config": {"processor_kwargs": {"model_max_length": "64"}}},
    {"sentence_bert_config": {"modality_config": ["text"]}},
    {"sentence_bert_config": {"modality_config": {"text": "a"}}},
    {"config_sentence_transformers": None}, {"modules": None},
    {"config_sentence_transformers": []}, {"config_sentence_transformers": {"prompts": ["a"]}},
    {"config_sentence_transformers": {"default_prompt_name": 3}},
    {"config_sentence_transformers": {"default_prompt_name": ["a"]}},
    {"config_sentence_transformers": {"truncate_dim": "8"}}, {"config_sentence_transformers": {"truncate_dim": 0}},
    {"config": []}, {"config": {"max_position_embeddings": "64"}}, {"config": {"auto_map": "a.B"}},
    {"config": {"model_type": 3}},
    {"tokenizer_config": {"model_max_length": "64"}}, {"tokenizer_config": {"auto_map": 3}},
]  # fmt: skip


@pytest.mark.parametrize("change", CONTRADICTIONS + WRONG_TYPES, ids=str)
def test_error_for_wrong_values(change, whole, tmp_path):
    (name,) = change
    path = rewrite(whole, tmp_path / "m", **change)
    match = "[Pp]ooling|Dense|LayerNorm" if name[0].isdigit() else name.replace("_config", ".*")
    with pytest.raises(ModelError, match=match):
        ours(path, TEXTS)


@pytest.mark.parametrize("change", CONTRADICTIONS[1:], ids=str)
def test_sentence_transformers_refuses_contradictory_layers_too(change, whole, tmp_path):
    with pytest.raises((RuntimeError, ValueError)):
        load(rewrite(whole, tmp_path / "m", **change))


@pytest.mark.parametrize(
    ("folder", "name"), [("2_Dense", "linear.bias"), ("2_Dense", "linear.weight"), ("3_LayerNorm", "norm.bias")]
)
@pytest.mark.parametrize("change", ["missing", "other name", "other shape", "one more"])
def test_error_for_weights_that_do_not_fit_the_config(folder, name, change, whole, tmp_path):
    file = rewrite(whole, tmp_path / "m") / folder / "model.safetensors"
    weights = load_file(file)
    weight = weights[name]
    if change != "one more":
        del weights[name]
    if change != "missing":
        other = "norm.scale" if change == "other name" else name if change == "other shape" else "extra.weight"
        weights[other] = (
            weight.repeat(2, *[1] * (weight.ndim - 1)) if change == "other shape" else weight.clone()
        )
    save_file(weights, file)
    with pytest.raises(ModelError, match=folder):
        ours(tmp_path / "m", TEXTS)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None], ids=["empty", "zeros", "cut"])
def test_error_for_a_damaged_layer_file(damage, whole, tmp_path):
    file = rewrite(whole, tmp_path / "m") / "2_Dense" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(ModelError, match="2_Dense"):
        ours(tmp_path / "m", TEXTS)


def test_modules_run_in_the_order_of_the_list_whatever_their_idx(whole, tmp_path):
    modules = modules_json(whole)
    for entry in modules:
        entry["idx"] = -entry["idx"]
    path = rewrite(whole, tmp_path / "m", modules=modules)
    np.testing.assert_allclose(ours(path, TEXTS), reference(path, TEXTS), atol=1e-5)
    for entry in modules:
        del entry["idx"]
    path = rewrite(whole, tmp_path / "n", modules=modules)
    np.testing.assert_allclose(ours(path, TEXTS), reference(path, TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"name": "1"}, {"path": "../m/2_Dense"}, {"path": "/2_Dense"}, {"path": None}]
)
def test_error_for_a_module_outside_of_the_model_or_named_twice(change, whole, tmp_path):
    modules = modules_json(whole)
    modules[2] |= change
    with pytest.raises(ModelError, match=r"modules\.json"):
        ours(rewrite(whole, tmp_path / "m", modules=modules), TEXTS)


@pytest.mark.parametrize(
    "changes",
    [
        {POOLING: {"pooling_mode": ["cls"]}}, {POOLING: {"include_prompt": None}},
        {DENSE: {"unknown": 1}}, {DENSE: {"in_features": 32.0}},
        {POOLING: {"embedding_dimension": 32, "pooling_mode": "cls", "pooling_mode_max_tokens": True}},
        {"sentence_bert_config": {"max_seq_length": None}},
    ],
    ids=str,
)  # fmt: skip
def test_unusual_values_that_sentence_transformers_accepts(changes, whole, tmp_path):
    path = rewrite(whole, tmp_path / "m", **changes)
    for prompt in ("", "query: "):
        if "32.0" in str(changes):
            expected = reference(whole, TEXTS, prompt=prompt)  # PyTorch does not take the size 32.0
        else:
            expected = reference(path, TEXTS, prompt=prompt)
        np.testing.assert_allclose(ours(path, TEXTS, prompt=prompt), expected, atol=1e-5)


def test_a_repeated_pooling_mode_is_pooled_twice(tiny, tmp_path):
    path = tmp_path / "m"
    torch.manual_seed(0)
    assemble(st_models.Transformer(str(tiny("bert"))), pooling=["cls", "mean", "cls"]).save_pretrained(
        str(path)
    )
    expected = reference(path, TEXTS)
    assert expected.shape[1] == 96
    np.testing.assert_allclose(ours(path, TEXTS), expected, atol=1e-5)
