"""The runtime of static models against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from nemo_embed_dask import runtimes
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.static import StaticRuntime

from ..helpers.static import make_model2vec, make_st, table

TABLE = table(50)


@given(st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=40), min_size=1, max_size=20))
@settings(max_examples=50)
def test_means_and_states(rows):
    runtime, ids = StaticRuntime(torch.from_numpy(TABLE)), Ragged.from_rows(rows)
    expected = [TABLE[row].astype(np.float64).mean(axis=0) for row in rows]
    np.testing.assert_allclose(runtime.means(ids), expected, atol=1e-6)
    states, offsets = runtime.states(ids)
    assert (states.numpy() == TABLE[ids.values]).all()
    assert (offsets.numpy() == ids.offsets).all()


@pytest.mark.parametrize("shared", [True, False])
def test_a_table_of_model2vec_has_one_vector_per_token(shared, tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", shared=shared, weighted=True)
    runtime = runtimes.load(read_card(path))
    stored = load_file(path / "model.safetensors")
    vocabulary = len(stored["weights"])
    assert (runtime.vocabulary, runtime.dimension) == (vocabulary + 1, 16)
    states, _ = runtime.states(Ragged.from_rows([range(vocabulary + 1)]))
    rows = stored["embeddings"][stored["mapping"]] if shared else stored["embeddings"]
    np.testing.assert_allclose(states[:-1], rows * stored["weights"][:, None], rtol=1e-6)
    assert not states[-1].any()  # of a text without tokens


def test_a_table_that_is_written_again_does_not_change_the_loaded_one(tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m")
    runtime, ids = runtimes.load(read_card(path)), Ragged.from_rows([[1, 2]])
    before = runtime.means(ids).clone()
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\0" * 4096)
        file.seek(200)
        file.write(b"\0" * 2000)
    assert (runtime.means(ids) == before).all()
    changed = load_file(make_st(tiny("bert"), tmp_path / "other") / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in changed.items()}, path / "model.safetensors")
    np.testing.assert_allclose(runtimes.load(read_card(path)).means(ids), before + 1, atol=1e-6)


@pytest.mark.parametrize("row", [-1, 100_000])
def test_a_wrong_row_of_the_table_is_named(row, tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", shared=True)
    stored = load_file(path / "model.safetensors")
    stored["mapping"][3] = row
    save_file(stored, path / "model.safetensors")
    with pytest.raises(ModelError, match=f"maps a token to row {row} of"):
        runtimes.load(read_card(path))
