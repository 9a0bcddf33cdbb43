"""OpenVINO is held to what the torch runtime is held to: the vectors of sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("openvino")

from nemo_embed_dask import runtimes
from nemo_embed_dask.cards import read_card
from nemo_embed_dask.ragged import Ragged

from .cards import TEXTS, build, reference
from .test_fidelity import ours


@pytest.mark.parametrize("kind", ["bert", "qwen3", "t5"])
def test_vectors_are_those_of_sentence_transformers(kind, tiny, tmp_path):
    path = build(tiny(kind), tmp_path / "m", pooling="mean", dense="tanh", normalize=True)
    expected = reference(path, TEXTS)
    np.testing.assert_allclose(ours(path, TEXTS, runtime="openvino"), expected, atol=1e-5)
    alone = np.concatenate([ours(path, [text], runtime="openvino") for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_an_export_in_the_directory_is_used(tiny, tmp_path):
    import openvino

    from nemo_embed_dask.runtimes.openvino import _converted

    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    other = build(tiny("roberta"), tmp_path / "other", pooling="mean")
    (path / "openvino").mkdir()
    openvino.save_model(_converted(read_card(other), None), path / "openvino" / "openvino_model.xml")
    ids = Ragged.from_rows([[5, 6, 7], [9]])
    got, _ = runtimes.load(read_card(path), runtime="openvino", autocast=False).states(
        ids, padding_side="right"
    )
    expected, _ = runtimes.load(read_card(other), autocast=False).states(ids, padding_side="right")
    np.testing.assert_allclose(got, expected, atol=5e-3)  # exports are stored in float16
