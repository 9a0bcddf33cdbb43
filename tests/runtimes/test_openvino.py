"""The OpenVINO runtime must give the vectors of sentence-transformers, as the torch runtime does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("openvino")

from nemo_embed_dask import runtimes
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import openvino as openvino_runtime
from nemo_embed_dask.runtimes.openvino import OpenVinoRuntime

from ..end_to_end.test_fidelity import check
from ..helpers.cards import TEXTS, alone, build

ALL_POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.mark.parametrize("kind", ["bert", "modernbert", "t5", "qwen3"])
@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_vectors_are_those_of_sentence_transformers(runtime, kind, tiny, tmp_path):
    """All poolings are tested at once, as one concatenated vector."""
    path = build(tiny(kind), tmp_path / "m", pooling=ALL_POOLINGS, dense="tanh", normalize=True)
    check(path, alone(path, TEXTS), runtime=runtime)


@pytest.mark.parametrize("kind", ["mistral", "embeddinggemma"])
def test_models_with_a_sliding_window_are_refused(kind, tiny):
    with pytest.raises(ModelError, match="sliding window"):
        runtimes.load(read_card(tiny(kind)), runtime="openvino", autocast=False)


def test_a_damaged_export_is_an_error(tiny, tmp_path):
    """OpenVINO raises errors of its own, and ends the process for a file that cannot be opened."""
    import openvino

    path = build(tiny("bert"), tmp_path / "m", pooling="cls")
    (path / "openvino").mkdir()
    xml, weights = (path / "openvino" / f"openvino_model.{ending}" for ending in ("xml", "bin"))
    module = openvino_runtime._load_module(read_card(path), None)
    openvino.save_model(openvino_runtime._convert_module(module, read_card(path)), xml)

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


def test_an_export_in_the_directory_is_used(tiny, tmp_path):
    import openvino

    from nemo_embed_dask.runtimes.openvino import _convert

    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    other = build(tiny("roberta"), tmp_path / "other", pooling="mean")
    (path / "openvino").mkdir()
    openvino.save_model(_convert(read_card(other), None), path / "openvino" / "openvino_model.xml")
    ids = Ragged.from_rows([[5, 6, 7], [9]])
    runtime = runtimes.load(read_card(path), runtime="openvino", autocast=False)
    got, _ = runtime.states(ids, padding_side="right")
    expected, _ = runtimes.load(read_card(other), autocast=False).states(ids, padding_side="right")
    np.testing.assert_allclose(got, expected, atol=5e-3)  # exports are stored in float16
    weights = sum(weight.numel() for weight in load_weights(other, torch.float32).parameters())
    assert 1.9 * weights <= runtime.weight_bytes <= 4 * weights  # those of unused token types are left out
    assert runtime.batch_memory(1000) == 0
