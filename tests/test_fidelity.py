"""Vectors are those of sentence-transformers, for each architecture and what stands behind it."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models import ModelRef
from nemo_embed_dask.settings import Settings

from .cards import HEADS, POOLINGS, TEXTS, build, reference
from .tiny import KINDS

PROMPTS = {"query": "query: ", "doc": "title: none | text: "}


def ours(path, texts, **changes):
    settings = Settings(ModelRef(str(path)), pooling="auto", autocast=False, **changes)
    return embed_texts(texts, settings).matrix.numpy()


def check(path, texts=TEXTS, prompt=None, **changes):
    options = {} if prompt is None else {"prompt_name": prompt}
    expected = reference(path, texts, **options)
    for side in ("right", "left"):
        got = ours(path, texts, padding_side=side, **options, **changes)
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
    alone = np.concatenate([ours(path, [text], **options) for text in texts])
    np.testing.assert_allclose(alone, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pooling_of_every_architecture(kind, pooling, tiny, tmp_path):
    check(build(tiny(kind), tmp_path / "m", pooling=pooling))


@pytest.mark.parametrize(("dense", "normalize"), HEADS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_head_of_every_architecture(kind, dense, normalize, tiny, tmp_path):
    pooling = "lasttoken" if kind == "qwen3" else "mean"
    check(build(tiny(kind), tmp_path / "m", pooling=pooling, dense=dense, normalize=normalize))


@pytest.mark.parametrize(("pooling", "include"), [("mean", True), ("mean", False), ("weightedmean", False)])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_every_architecture(kind, pooling, include, tiny, tmp_path):
    path = build(
        tiny(kind), tmp_path / "m", pooling=pooling, include_prompt=include, prompts=PROMPTS,
        default_prompt_name="doc",
    )  # fmt: skip
    check(path, prompt="query")
    check(path)  # its default prompt
