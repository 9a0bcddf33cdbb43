"""The model on a GPU: kernels, waiting, vectors."""

from dataclasses import replace

import pytest
import torch

from nemo_embed_dask import engine, runtimes
from nemo_embed_dask.engine.batches import Run
from nemo_embed_dask.engine.compute import embed_rows
from nemo_embed_dask.models import card as cards
from nemo_embed_dask.rows import Embedded
from nemo_embed_dask.runtimes import layouts
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes import torch as runtime_torch
from nemo_embed_dask.runtimes.compiled import CompiledModel
from nemo_embed_dask.tokens.texts import tokenize_texts

from .device import DEVICE, REHEARSAL, cosines, settings_of, waiting_is_an_error

pytestmark = pytest.mark.usefixtures("fresh")


def test_minilm_runs_packed_by_a_varlen_kernel(minilm):
    runtime = runtimes.load(cards.read_card(minilm))
    before = attention.call_count()
    runtime._run_trial_batch(1000)
    assert (runtime.device.type, runtime.pads) == (DEVICE.type, False)
    assert attention.call_count() == before + 6


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("kind", ["bert", "roberta", "qwen3"])
def test_every_architecture_finds_a_layout(kind, autocast, tiny):
    """Loading compares its states with those of single rows. Whether it packs depends on the kernels."""
    runtime = runtime_torch.load(cards.read_card(tiny(kind)), autocast=autocast)
    print(kind, "autocast" if autocast else "float32", runtime._layout)
    assert next(runtime.model.parameters()).device.type == DEVICE.type
    if not (autocast or REHEARSAL):
        assert runtime.pads  # no kernel for variable lengths takes float32


@pytest.mark.parametrize(("autocast", "least"), [(True, 0.999), (False, 0.99999)])
def test_vectors_are_those_of_the_cpu(minilm, texts, on_cpu, autocast, least):
    settings = settings_of(minilm, autocast=autocast)
    near = cosines(engine.embed_texts(texts, settings).matrix, on_cpu["mean_pooling"])
    print(f"cosine: least {near.min():.6f}, mean {near.mean():.6f}")
    assert near.min() >= least


def test_padded_and_packed_agree(minilm, texts):
    settings = settings_of(minilm)
    runtime = engine.load_runtime(settings)
    assert not runtime.pads
    packed = engine.embed_texts(texts, settings).matrix
    calls = attention.call_count()
    assert layouts.set_attention(runtime.model, "sdpa")
    runtime._layout, runtime.pads = runtime._layout._replace(packed=False), True
    assert cosines(packed, engine.embed_texts(texts, settings).matrix).min() >= 0.999
    assert attention.call_count() == calls


@pytest.mark.parametrize("pooling", ["mean_pooling", "cls+max", "weighted_mean"])
@pytest.mark.parametrize("skip", [0, 3])
def test_the_loop_never_waits_for_the_card(minilm, texts, pooling, skip):
    settings = settings_of(minilm, pooling=pooling)
    engine.embed_texts(texts, settings)  # what is loaded late may wait
    model, tokens = engine.load_model(settings), tokenize_texts(texts, settings)
    model = replace(model, reader=replace(model.reader, prompt_tokens=skip))
    out = Embedded.from_tokens(tokens, model.zeros(len(texts)))
    run = Run(model, settings, None)
    with waiting_is_an_error():
        assert embed_rows(out, tokens.ids, run) == {}
    assert out.matrix.isfinite().all()
    assert (out.matrix != 0).any(dim=1).all()


@pytest.mark.parametrize("mode", ["truncate", "mean"])
def test_the_same_texts_have_the_same_bits_in_every_run(minilm, texts, mode):
    """In equal batches: cuBLAS chooses its kernels by the size of a batch."""
    settings = settings_of(minilm, long_documents=mode)
    engine.embed_texts(texts, settings)  # rows of new lengths are tried in the first run
    first, *others = [engine.embed_texts(texts, settings).matrix for _ in range(4)]
    assert all(torch.equal(first, other) for other in others)


def test_vectors_hardly_depend_on_their_batch(minilm, texts):
    settings = settings_of(minilm)
    whole = engine.embed_texts(texts, settings).matrix
    parts = engine.embed_texts(texts, replace(settings, model_inference_batch_size=7)).matrix
    print(f"largest difference {(whole - parts).abs().max():.1e}")
    assert cosines(whole, parts).min() >= 0.9995


@pytest.mark.cuda
def test_a_compiled_model_gives_the_vectors_of_the_cpu(minilm, texts, on_cpu):
    settings = settings_of(minilm, compile=True)
    near = cosines(engine.embed_texts(texts, settings).matrix, on_cpu["mean_pooling"])
    used = isinstance(engine.load_runtime(settings)._model_for_batches, CompiledModel)
    print(f"the compiled model is {'used' if used else 'not used'}; cosine: least {near.min():.6f}")
    assert near.min() >= 0.999


def test_sts_benchmark_is_near_the_published_score(minilm, data_dir):
    import pandas as pd
    from scipy.stats import spearmanr

    pairs = pd.read_csv(data_dir / "stsb_test.tsv", sep="\t", header=None, quoting=3)
    settings = settings_of(minilm)
    left, right = (engine.embed_texts(pairs[k].tolist(), settings).matrix for k in (1, 2))
    found = spearmanr(cosines(left, right).numpy(), pairs[0]).statistic
    print(f"STS-Benchmark test, Spearman {found:.5f}, published 0.82032")
    assert abs(found - 0.8203247) < 2e-3
