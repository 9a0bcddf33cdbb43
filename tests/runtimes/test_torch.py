from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from nemo_embed_dask import runtimes
from nemo_embed_dask.device import cpu_flags
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ConfigError, ModelError, RowError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import layouts
from nemo_embed_dask.runtimes import torch as torch_runtime
from nemo_embed_dask.runtimes.layouts import Layout
from nemo_embed_dask.settings import Settings

from ..helpers.architectures import tiny_model

KINDS = ("bert", "roberta", "qwen3")
SHIFT = {"bert": 0, "roberta": 2, "qwen3": 0}


def ids_of(lengths, seed=0):
    values = np.random.default_rng(seed).integers(5, 80, sum(lengths)).astype(np.int32)
    return Ragged.from_lengths(values, lengths)


@pytest.fixture(scope="module")
def loaded(tiny):
    return {kind: runtimes.load(read_card(tiny(kind)), autocast=False) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_are_found_by_probing(loaded, kind):
    assert loaded[kind]._layout == Layout(True, SHIFT[kind])
    assert loaded[kind].dimension == 32
    assert not loaded[kind].pads


@pytest.mark.parametrize("kind", KINDS)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_packed_states_equal_each_row_alone_in_the_published_model(tiny, loaded, kind, lengths, seed):
    ids = ids_of(lengths, seed)
    states, offsets = loaded[kind].states(ids)
    assert offsets.tolist() == ids.offsets.tolist()
    plain = published(tiny(kind))
    with torch.inference_mode():
        alone = [
            plain(input_ids=torch.from_numpy(ids.row(i).astype(np.int64))[None])[0][0] for i in range(len(ids))
        ]
    torch.testing.assert_close(states, torch.cat(alone), atol=3e-5, rtol=1e-4)


_plain: dict[str, torch.nn.Module] = {}


def published(path):
    if str(path) not in _plain:
        _plain[str(path)] = AutoModel.from_pretrained(path).eval()
    return _plain[str(path)]


@pytest.mark.parametrize("kind", KINDS)
def test_padded_states_equal_packed_ones(loaded, kind):
    runtime, ids = loaded[kind], ids_of([9, 4, 1, 9])
    packed, _ = runtime.states(ids)
    eager = layouts.attention_name(runtime.model)
    layouts.set_attention(runtime.model, "sdpa")
    try:
        with torch.inference_mode():
            padded = layouts.forward(runtime.model, Layout(False, SHIFT[kind]), ids, runtime.device)
    finally:
        layouts.set_attention(runtime.model, eager)
    torch.testing.assert_close(padded, packed, atol=1e-5, rtol=1e-4)


def test_bfloat16_stays_close(tiny):
    if "avx512_bf16" not in cpu_flags():
        pytest.skip("SKIPPED: this CPU has no bfloat16")
    card = read_card(tiny("bert"))
    runtime = runtimes.load(card, autocast=True)
    assert runtime.dtype == torch.bfloat16
    exact, _ = runtimes.load(card, autocast=False).states(ids_of([20, 7]))
    rough, _ = runtime.states(ids_of([20, 7]))
    assert torch.nn.functional.cosine_similarity(rough.float(), exact, dim=1).min() > 0.99


def test_loaded_once_by_many_threads_and_keyed_on_model_fields(tiny, monkeypatch):
    runtimes.unload()
    count, real = [], torch_runtime.load

    def counting(card, **knobs):
        count.append(card.path)
        return real(card, **knobs)

    monkeypatch.setattr(torch_runtime, "load", counting)
    card, got = read_card(tiny("bert")), []
    threads = [
        threading.Thread(target=lambda: got.append(runtimes.load(card, autocast=False))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1
    assert len({id(runtime) for runtime in got}) == 1


def test_error_for_an_unknown_runtime(tiny):
    with pytest.raises(ConfigError, match="abacus"):
        runtimes.load(read_card(tiny("bert")), runtime="abacus")


def test_missing_weights_are_an_error_not_random_numbers(tiny, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    weights.pop("encoder.layer.0.output.dense.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights"):
        torch_runtime.load(read_card(tmp_path / "m"), autocast=False)


def test_a_model_that_mixes_rows_outside_attention_is_padded_or_refused(tiny):
    """A model runs packed only if its rows keep their states; in this one the first layer reads neighbours."""

    class Mixing(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner, self.config = model, model.config
            self.set_attn_implementation = model.set_attn_implementation

        def forward(self, input_ids, attention_mask=None, position_ids=None):
            shifted = torch.roll(input_ids, 1, dims=1)
            shifted[:, 0] = 7
            mixed = torch.where(input_ids % 2 == 0, input_ids, shifted)
            return self.inner(input_ids=mixed, attention_mask=attention_mask, position_ids=position_ids)

    model = Mixing(AutoModel.from_pretrained(tiny("bert")).eval())
    layout, _ = layouts.find_layout(model, torch.device("cpu"), torch.float32)
    assert layout == Layout(False, 0)


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_a_pad_token_in_a_text_has_no_position(tiny, kind):
    """These models do not count padding ids as positions, so a "<pad>" in a text has no position."""
    ids, pad = ids_of([9, 6, 4]), 1
    ids.values[[2, 3, 9]] = pad
    states, _ = runtimes.load(read_card(tiny(kind)), autocast=False).states(ids)
    with torch.inference_mode():
        rows = [torch.from_numpy(ids.row(i).astype(np.int64))[None] for i in range(len(ids))]
        alone = torch.cat([published(tiny(kind))(input_ids=row)[0][0] for row in rows])
    torch.testing.assert_close(states, alone, atol=1e-5, rtol=1e-4)


def test_a_model_that_reads_the_weights_of_its_linear_layers_runs_without_packed_ones(tmp_path):
    tiny_model(transformers.MambaConfig).save_pretrained(tmp_path)
    ids = ids_of([9, 3, 30])
    states, _ = runtimes.load(read_card(tmp_path), autocast=False).states(ids)
    with torch.inference_mode():
        rows = [torch.from_numpy(ids.row(i).astype(np.int64))[None] for i in range(len(ids))]
        alone = torch.cat([published(tmp_path)(input_ids=row)[0][0] for row in rows])
    torch.testing.assert_close(states, alone, atol=1e-5, rtol=1e-4)


def test_errors_for_models_without_text_input_and_damaged_models(tiny):
    class Picture(torch.nn.Module):
        config = AutoModel.from_pretrained(tiny("bert")).config

        def forward(self, pixels):
            return pixels

    broken = AutoModel.from_pretrained(tiny("bert"))
    torch.nn.init.constant_(broken.encoder.layer[0].output.dense.weight, torch.inf)
    with pytest.raises(ModelError, match=f"of {tiny('bert').name!r} gives NaN or infinite states"):
        layouts.find_layout(broken, torch.device("cpu"), torch.float32)
    with pytest.raises(ModelError, match=r"Picture gives no states for token ids alone \(TypeError"):
        layouts.find_layout(Picture(), torch.device("cpu"), torch.float32)


def test_rows_with_nan_fail_alone_and_the_others_keep_their_vectors(tiny, tmp_path):
    """The position of the 31st token is damaged, which the short rows that are tried at load do not reach."""
    path = tmp_path / "m"
    shutil.copytree(tiny("bert"), path)
    weights = load_file(path / "model.safetensors")
    weights["embeddings.position_embeddings.weight"][30] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    texts = ["fox", "the lazy dog " * 30, "dogs are lazy " * 5]
    chosen = Settings(ModelRef(str(path)), autocast=False, on_error="null")
    got = embed_texts(texts, chosen)
    assert got.valid.tolist() == [True, False, True]
    whole = embed_texts(texts, replace(chosen, model=ModelRef(str(tiny("bert")))))
    np.testing.assert_allclose(got.matrix[[0, 2]], whole.matrix[[0, 2]], atol=1e-6)
    with pytest.raises(RowError, match="row 1: the model gave NaN"):
        embed_texts(texts, replace(chosen, on_error="raise"))
