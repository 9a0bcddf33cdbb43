"""The OpenVINO runtime must give the vectors of sentence-transformers, as the torch runtime does."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from ..helpers.slow import slow
from ..helpers.versions import NEEDS_OPENVINO

pytest.importorskip("openvino")

from nemo_embed_dask import runtimes
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.openvino import (
    OpenVinoRuntime,
    _check_conversion,
    _convert,
    _FirstOutput,
    _load_module,
)

from ..end_to_end.test_fidelity import check
from ..helpers.architectures import tiny_config
from ..helpers.cards import TEXTS, alone, build
from .test_probe import dynamic, longrope, rows

ALL_POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.mark.parametrize("kind", ["bert", *slow("modernbert", "t5", "qwen3")])
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=NEEDS_OPENVINO)])
def test_vectors_are_those_of_sentence_transformers(runtime, kind, tiny, tmp_path):
    """All poolings are tested at once, as one concatenated vector."""
    path = build(tiny(kind), tmp_path / "m", pooling=ALL_POOLINGS, dense="tanh", normalize=True)
    check(path, alone(path, TEXTS), runtime=runtime)


@pytest.mark.parametrize("kind", ["mistral", "embeddinggemma"])
def test_models_with_a_sliding_window_are_refused(kind, tiny):
    with pytest.raises(ModelError, match="sliding window"):
        runtimes.load(read_card(tiny(kind)), runtime="openvino", autocast=False)


@NEEDS_OPENVINO
def test_a_damaged_export_is_an_error(tiny, tmp_path):
    """OpenVINO raises errors of its own, and ends the process for a file that cannot be opened."""
    import openvino

    path = build(tiny("bert"), tmp_path / "m", pooling="cls")
    (path / "openvino").mkdir()
    xml, weights = (path / "openvino" / f"openvino_model.{ending}" for ending in ("xml", "bin"))
    openvino.save_model(_convert(_load_module(read_card(path)), read_card(path)), xml)

    def assert_refused():
        with pytest.raises(
            ModelError, match=r"m/openvino/openvino_model\.xml cannot be run .*export the model again"
        ):
            runtimes.load(read_card(path), runtime="openvino", autocast=False)

    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert_refused()
    weights.unlink()
    assert_refused()
    weights.symlink_to(weights.name)
    assert_refused()
    weights.unlink()
    weights.write_bytes(whole)
    assert runtimes.load(read_card(path), runtime="openvino", autocast=False).dimension == 32
    runtimes.unload()
    xml.write_bytes(xml.read_bytes()[:-1000])
    assert_refused()


def test_a_model_that_mixes_rows_is_refused():
    class Mixing:
        inputs = (SimpleNamespace(names={"input_ids"}),)

        def __call__(self, inputs):
            shape = inputs["input_ids"].shape
            return [np.random.default_rng(shape).normal(size=(*shape, 8)).astype(np.float32)]

    with pytest.raises(ModelError, match="use runtime='torch'"):
        OpenVinoRuntime(Mixing(), 300, torch.float32, 0)


def save(config, path):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config, trust_remote_code=False).eval()
    model.save_pretrained(path)
    return model


def rows_alone(model, ids):
    with torch.inference_mode():
        rows = [torch.from_numpy(ids.row(i).astype(np.int64))[None] for i in range(len(ids))]
        return torch.cat([model(input_ids=row)[0][0] for row in rows])


@pytest.mark.parametrize("config", [dynamic(), longrope()], ids=["dynamic", "longrope"])
def test_models_that_openvino_cannot_convert_are_refused(config, tmp_path):
    save(config, tmp_path)
    with pytest.raises(ModelError, match=r"OpenVINO cannot convert model .*use runtime='torch'"):
        runtimes.load(read_card(tmp_path), runtime="openvino", autocast=False)


class Lossy:
    """A conversion that has lost the sliding window of its model."""

    inputs = (SimpleNamespace(names={"input_ids"}), SimpleNamespace(names={"attention_mask"}))

    def __init__(self, model):
        self.model = copy.deepcopy(model)
        self.model.config.sliding_window = None

    def __call__(self, inputs):
        with torch.inference_mode():
            return [self.model(**{name: torch.from_numpy(array) for name, array in inputs.items()})[0].numpy()]


@pytest.mark.parametrize(("window", "longest"), [(8, None), (16, 16), (32, 32)])
def test_rows_that_a_conversion_changes_are_beyond_its_limit(window, longest, tmp_path):
    config = tiny_config(transformers.MistralConfig)
    config.sliding_window = window
    module, card = _FirstOutput(save(config, tmp_path)), read_card(tmp_path)
    runtime = OpenVinoRuntime(Lossy(module.model), config.vocab_size, torch.float32, 0, max_length=128)
    if longest is None:
        with pytest.raises(ModelError, match="different token states"):
            _check_conversion(runtime, module, card)
    else:
        _check_conversion(runtime, module, card)
        assert runtime.max_length == longest


@pytest.mark.slow
def test_windows_that_the_conversion_keeps_do_not_limit_rows(tmp_path):
    config = tiny_config(transformers.ModernBertConfig)
    model = save(config, tmp_path)
    runtime = runtimes.load(read_card(tmp_path), runtime="openvino", autocast=False)
    assert (runtime.max_length, runtime.vocabulary) == (config.max_position_embeddings, config.vocab_size)
    ids = rows(100, 3, 60)
    states, _ = runtime.states(ids)
    torch.testing.assert_close(states, rows_alone(model, ids), atol=1e-4, rtol=1e-3)


class DependsOnTheLongest:
    """An export with a threshold of 20 tokens, as LongRoPE has one."""

    inputs = (SimpleNamespace(names={"input_ids"}),)

    def __call__(self, inputs):
        block = inputs["input_ids"]
        angles = block[..., None] * np.arange(1, 9) * (3.0 if block.shape[1] > 20 else 1.0)
        return [np.cos(angles).astype(np.float32)]


def test_rows_of_an_export_that_depends_on_the_longest_row_run_alone():
    runtime = OpenVinoRuntime(DependsOnTheLongest(), 300, torch.float32, 0, hints=[20])
    ids = rows(30, 3, 20, 21)
    states, _ = runtime.states(ids)
    expected = [DependsOnTheLongest()({"input_ids": ids.row(i)[None]})[0][0] for i in range(len(ids))]
    np.testing.assert_array_equal(states, np.concatenate(expected))


@NEEDS_OPENVINO
def test_an_export_in_the_directory_is_used(tiny, tmp_path):
    import openvino

    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    other = build(tiny("roberta"), tmp_path / "other", pooling="mean")
    (path / "openvino").mkdir()
    openvino.save_model(
        _convert(_load_module(read_card(other)), read_card(other)),
        path / "openvino" / "openvino_model.xml",
    )
    ids = Ragged.from_rows([[5, 6, 7], [9]])
    runtime = runtimes.load(read_card(path), runtime="openvino", autocast=False)
    got, _ = runtime.states(ids)
    expected, _ = runtimes.load(read_card(other), autocast=False).states(ids)
    np.testing.assert_allclose(got, expected, atol=5e-3)  # exports are stored in float16
    weights = sum(weight.numel() for weight in load_weights(other, torch.float32).parameters())
    assert 1.9 * weights <= runtime.weight_bytes <= 4 * weights  # those of unused token types are left out
    assert runtime.batch_memory(1000) == 0
