"""Vectors are those of sentence-transformers, for each architecture and what stands behind it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Transformer

from nemo_embed_dask import engine, runtimes
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.cards import POOLINGS, TEXTS, WILD, alone, assemble, build, reference
from ..helpers.tiny import KINDS, MORE

PROMPTS = {"query": "query: ", "doc": "title: none | text: "}


def ours(path, texts, **changes):
    settings = Settings(ModelRef(str(path)), pooling="auto", autocast=False, **changes)
    return embed_texts(texts, settings).matrix.numpy()


def one_by_one(path, texts, **changes):
    return np.concatenate([ours(path, [text], **changes) for text in texts])


def near(got, expected, *what):
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5, err_msg=str(what))


def check(path, expected, **changes):
    for side in ("right", "left"):
        near(ours(path, TEXTS, padding_side=side, **changes), expected, side)
    near(one_by_one(path, TEXTS, **changes), expected, "alone")


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pooling_of_every_architecture(kind, pooling, tiny, tmp_path):
    path = build(tiny(kind), tmp_path / "m", pooling=pooling)
    check(path, reference(path, TEXTS))


@pytest.mark.parametrize("kind", MORE)
def test_more_architectures(kind, tiny, tmp_path):
    """Texts alone are the reference: in a batch, sentence-transformers itself is wrong about some (GPT-2)."""
    pooling = "lasttoken" if MORE[kind][2] == "decoder" else "mean"
    path = build(tiny(kind), tmp_path / "m", pooling=pooling)
    check(path, alone(path, TEXTS))


@pytest.mark.parametrize("kind", WILD)
def test_every_combination_in_the_wild(kind, tiny, tmp_path):
    """The transformer and its directory stay; sentence-transformers saves one head after the other into it."""
    transformer, path = Transformer(str(tiny(kind))), tmp_path / "m"
    transformer.tokenizer.padding_side = "right"
    seen = {}
    for pooling, dense, unit, include in itertools.product(*WILD[kind], [False, True], [False, True]):
        model = assemble(
            transformer, pooling=pooling, dense=dense, normalize=unit, include_prompt=include, prompts=PROMPTS,
            default_prompt_name="doc",
        )  # fmt: skip
        model.save_pretrained(str(path), create_model_card=False)
        read_card.cache_clear()
        engine._load_head.cache_clear()
        for name, given in (("query", {"prompt_name": "query"}), ("doc", {}), ("", {"prompt": ""})):
            what = (pooling, dense, unit, include, name)
            expected = model.encode(TEXTS, show_progress_bar=False, **given)
            for side in ("right", "left"):
                near(ours(path, TEXTS, padding_side=side, **given), expected, side, *what)
            if name == "query":
                near(one_by_one(path, TEXTS, **given), expected, "alone", *what)
            seen[trace(*what)] = expected
    assert_distinct(seen)
    assert len([key for key in runtimes._loaded if str(path) in key[1]]) == 1


def trace(pooling, dense, unit, include, name):
    """A combination without what leaves no trace in vectors: a length that is scaled away, a prompt's place."""
    scaled = pooling == "mean_sqrt_len_tokens" and unit and dense != "tanh"
    return "mean" if scaled else pooling, dense, unit, include or not name or pooling == "lasttoken", name


def assert_distinct(seen):
    """Any other combination, or any other text, would have been noticed."""
    for vectors in seen.values():
        apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2)
        assert apart[~np.eye(len(vectors), dtype=bool)].min() > 1e-3
    for one, other in itertools.combinations(seen, 2):
        if seen[one].shape == seen[other].shape:
            assert np.abs(seen[one] - seen[other]).max() > 1e-3, (one, other)
