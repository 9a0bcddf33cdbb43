"""Vectors of real texts, compared with sentence-transformers and with published scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

import nemo_embed_dask as ned
from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.device import cpu_flags, default_device

from ..helpers.slow import slow
from ..helpers.tiny import TEXT

# embeddings-benchmark/results for all-MiniLM-L6-v2 (mteb 1.12.75): Spearman, Pearson.
PUBLISHED = {"test": (0.8203247, 0.8274064), "dev": (0.8671631, 0.8696195)}
FLOAT32, BFLOAT16 = (1.5e-4, 1e-6), (2e-3, 2e-3)


def vectors(texts, **parameters):
    frame = pd.DataFrame({"text": texts}).pipe(ned.embed, **parameters)
    return ned.to_matrix(frame.embeddings)


def needs_bfloat16():
    if default_device().type == "cpu" and not {"avx512_bf16", "amx_bf16"} & cpu_flags():
        pytest.skip("this CPU has no bfloat16, so autocast would run in float32")


@pytest.fixture(scope="session")
def reference(minilm, real_texts):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm), device="cpu")
    return model.encode(real_texts, batch_size=32, normalize_embeddings=True)


@pytest.mark.timeout(900)
def test_float32_vectors_equal_those_of_sentence_transformers(real_texts, reference):
    cosine = (vectors(real_texts, autocast=False) * reference).sum(axis=1)
    assert len(cosine) in (600, 2000)  # the second with --slow
    assert cosine.min() >= 0.99999


@pytest.mark.timeout(900)
def test_bfloat16_vectors_are_close_and_do_not_depend_on_their_batch(real_texts, reference):
    needs_bfloat16()
    ours = vectors(real_texts)
    assert (ours * reference).sum(axis=1).min() >= 0.999
    some = real_texts[::15]
    for change in ({"sort_by_length": False}, {"model_inference_batch_size": 1}, {"padding_side": "left"}):
        assert (vectors(some, **change) * ours[::15]).sum(axis=1).min() >= 0.9995


@pytest.mark.parametrize("split", ["test", *slow("dev")])
@pytest.mark.parametrize("autocast", [False, True])
def test_sts_benchmark_has_the_published_scores(data_dir, split, autocast):
    if autocast:
        needs_bfloat16()
    lines = (data_dir / f"stsb_{split}.tsv").read_text(encoding="utf-8").splitlines()
    scores, left, right = zip(*(line.split("\t") for line in lines), strict=True)
    gold = np.array(scores, dtype=float)
    both = vectors([*left, *right], autocast=autocast).astype(np.float64)
    a, b = both[: len(gold)], both[len(gold) :]
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    got = spearmanr(cosine, gold).statistic, pearsonr(cosine, gold).statistic
    for value, published, tolerance in zip(
        got, PUBLISHED[split], BFLOAT16 if autocast else FLOAT32, strict=True
    ):
        assert abs(value - published) <= tolerance


# First four and last two components of MiniLM's float32 vectors, from sentence-transformers 6.2.
GOLDEN = {
    "The quick brown fox jumps over the lazy dog.": [
        0.0439336,
        0.0589344,
        0.0481784,
        0.0775481,
        0.0561065,
        0.1020639,
    ],
    "": [-0.1188384, 0.0482988, -0.0025482, -0.0110112, 0.046549, -0.0157173],
    "Привет, мир! 你好，世界。": [0.0011256, 0.0957411, 0.0405592, -0.0158964, -0.0153105, 0.0301875],
}


def test_golden_vectors(minilm):
    got = vectors([*GOLDEN], autocast=False)
    np.testing.assert_allclose(got[:, [0, 1, 2, 3, -2, -1]], [*GOLDEN.values()], atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "pooling", "mode"),
    [
        ("bert", "cls", "cls"),
        ("roberta", "cls", "cls"),
        ("roberta", "mean_pooling", "mean"),
        ("qwen3", "last_token", "lasttoken"),
        ("bert", "last_token", "lasttoken"),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_poolings_equal_those_of_sentence_transformers_on_tiny_models(tiny, kind, pooling, mode, side):
    """One model is a decoder with left padding, which sentence-transformers pads and this package packs."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    texts = [*TEXT, "a", "many words " * 40]
    body = Transformer(str(tiny(kind)))
    model = SentenceTransformer(
        modules=[body, Pooling(body.get_embedding_dimension(), pooling_mode=mode)], device="cpu"
    )
    expected = model.encode(texts, normalize_embeddings=True)
    stage = EmbeddingCreatorStage(
        model_identifier=str(tiny(kind)), embedding_pooling=pooling, padding_side=side, autocast=False
    )
    got = ned.to_matrix(stage(pd.DataFrame({"text": texts})).embeddings)
    np.testing.assert_allclose(got, expected, atol=1e-5)
