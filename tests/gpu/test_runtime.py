"""The model on a GPU: kernels, waiting, vectors, and memory."""

import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from nemo_embed_dask import EmbeddingCreatorStage, engine, runtimes
from nemo_embed_dask.engine.batches import Run
from nemo_embed_dask.models import card as cards
from nemo_embed_dask.rows import Embedded
from nemo_embed_dask.runtimes import layouts
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes import torch as runtime_torch
from nemo_embed_dask.tokens.texts import tokenize_texts


@pytest.fixture(autouse=True)
def _fresh():
    yield
    runtimes.unload()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def on_cpu(minilm, texts):
    """The reference: the plain model, one text at a time, float32, on the CPU, mean of its states."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(
                [text[:20_000]], truncation=True, max_length=256, return_tensors="pt", padding=False
            )
            rows.append(model(**ids)[0][0].mean(0))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def cosines(a, b):
    return torch.nn.functional.cosine_similarity(a.cpu().double(), b.cpu().double(), dim=1)


def test_bfloat16_models_run_packed_by_a_varlen_kernel(minilm):
    runtime = runtimes.load(cards.read_card(minilm))
    before = attention.call_count()
    runtime._run_trial_batch(1000)
    assert (runtime.device.type, runtime.dtype, runtime.pads) == ("cuda", torch.bfloat16, False)
    assert attention.call_count() == before + 6


@pytest.mark.parametrize("kind", ["bert", "roberta", "qwen3"])
def test_every_architecture_finds_a_way(kind, tiny):
    for autocast in (True, False):
        runtime = runtime_torch.load(cards.read_card(tiny(kind)), autocast=autocast)
        print(kind, "autocast" if autocast else "float32", runtime._layout)


@pytest.mark.parametrize(("autocast", "least"), [(True, 0.999), (False, 0.99999)])
def test_vectors_are_those_of_the_cpu(minilm, texts, on_cpu, autocast, least):
    settings = EmbeddingCreatorStage(model_identifier=str(minilm), autocast=autocast).settings
    near = cosines(engine.embed_texts(texts, settings).matrix, on_cpu)
    print(f"cosine: least {near.min():.6f}, mean {near.mean():.6f}")
    assert near.min() >= least


def test_padded_and_packed_agree(minilm, texts):
    settings = EmbeddingCreatorStage(model_identifier=str(minilm)).settings
    packed = engine.embed_texts(texts, settings).matrix
    runtime = engine.load_runtime(settings)
    assert layouts.set_attention(runtime.model, "sdpa")
    runtime._layout, runtime.pads = runtime._layout._replace(packed=False), True
    assert cosines(packed, engine.embed_texts(texts, settings).matrix).min() >= 0.999


@pytest.mark.parametrize("pooling", ["mean_pooling", "cls+max", "weighted_mean"])
@pytest.mark.parametrize("skip", [0, 3])
def test_the_loop_never_waits_for_the_card(minilm, texts, pooling, skip):
    settings = EmbeddingCreatorStage(model_identifier=str(minilm), embedding_pooling=pooling).settings
    engine.embed_texts(texts, settings)  # what is loaded late may wait
    model, tokens = engine.load_model(settings), tokenize_texts(texts, settings)
    model = replace(model, reader=replace(model.reader, prompt_tokens=skip))
    out = Embedded.from_tokens(tokens, model.zeros(len(texts)))
    run = Run(model, settings, None)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert engine._embed_rows(out, tokens.ids, run) == {}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    engine._fail_rows_that_are_not_finite(out)
    assert out.failures == {}


@pytest.mark.parametrize("mode", ["truncate", "mean"])
def test_the_same_texts_have_the_same_bits(minilm, texts, mode):
    """Every sum over a row has a fixed order."""
    settings = EmbeddingCreatorStage(model_identifier=str(minilm), long_documents=mode).settings
    first, *others = [engine.embed_texts(texts, settings).matrix for _ in range(5)]
    assert all(torch.equal(first, other) for other in others)


def test_sts_benchmark_is_within_bfloat16_of_the_published_score(minilm, data_dir):
    from scipy.stats import spearmanr

    pairs = pd.read_csv(data_dir / "stsb_test.tsv", sep="\t", header=None, quoting=3)
    settings = EmbeddingCreatorStage(model_identifier=str(minilm)).settings
    left, right = (engine.embed_texts(pairs[k].tolist(), settings).matrix for k in (1, 2))
    found = spearmanr(cosines(left, right).numpy(), pairs[0]).statistic
    print(f"STS-Benchmark test, Spearman {found:.5f}, published 0.82032")
    assert abs(found - 0.8203247) < 2e-3


def test_the_budget_is_what_this_card_s_free_memory_allows(minilm):
    whole = runtimes.load(cards.read_card(minilm)).budget
    runtimes.unload()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(int(free * 0.97), dtype=torch.uint8, device="cuda")
    little = runtimes.load(cards.read_card(minilm)).budget
    del taken
    print(f"budget {whole} tokens, {little} with 3 % of the card free")
    assert 1024 <= little <= whole == 131_072


def test_out_of_memory_is_halved_and_remembered(minilm, texts):
    settings = EmbeddingCreatorStage(model_identifier=str(minilm)).settings
    expected = engine.embed_texts(texts, settings).matrix
    runtime = engine.load_runtime(settings)
    many = texts * 8
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 300e6) / total)
    try:
        out = engine.embed_texts(many, settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(f"{out.stats.ooms} out of memory, budget now {runtime.budget}")
    assert out.stats.ooms > 0
    assert runtime.budget < 131_072
    assert out.valid.all()
    assert cosines(out.matrix[: len(texts)], expected).min() >= 0.999


def test_random_partitions_do_not_make_memory_grow(minilm):
    """A minute of them; NEMO_EMBED_SOAK_S=1800 for half an hour."""
    import cudf

    from nemo_embed_dask import embed

    rng, until = np.random.default_rng(0), time.monotonic() + float(os.environ.get("NEMO_EMBED_SOAK_S", "60"))
    words, marks, rounds = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"], [], 0
    while time.monotonic() < until:
        lengths = rng.integers(0, rng.integers(2, 400), rng.integers(1, 4000))
        column = [None if n == 3 else " ".join(rng.choice(words, n)) for n in lengths]
        out = embed(cudf.DataFrame({"text": cudf.Series(column, dtype="str")}), model_identifier=str(minilm))
        assert out.embeddings.null_count == sum(text is None for text in column)
        del out
        rounds += 1
        free, total = torch.cuda.mem_get_info()
        marks.append((torch.cuda.memory_allocated(), total - free))
    allocated, used = zip(*marks, strict=True)
    half = len(marks) // 2
    print(
        f"{rounds} partitions; allocated {allocated[0]} to {allocated[-1]}, used {used[0]} to {used[-1]} bytes"
    )
    assert max(allocated[half:]) <= max(allocated[:half]) + 2**20
    assert max(used[half:]) <= max(used[:half]) + 2**30
