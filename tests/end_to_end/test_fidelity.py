"""Vectors equal those of sentence-transformers, for each architecture with its poolings, layers and prompts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Transformer

from nemo_embed_dask import runtimes
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.cards import POOLINGS, TEXTS, WILD, alone, assemble, build, reference
from ..helpers.slow import slow
from ..helpers.tiny import KINDS, MORE

PROMPTS = {"query": "query: ", "doc": "title: none | text: "}


def ours(path, texts, **changes):
    settings = Settings(ModelRef(str(path)), pooling="auto", autocast=False, **changes)
    return embed_texts(texts, settings).matrix.numpy()


def one_by_one(path, texts, **changes):
    return np.concatenate([ours(path, [text], **changes) for text in texts])


def assert_close(got, expected, *case):
    # The rounding of a row's values grows with the largest of them, which is 6 without normalization.
    largest = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, largest / 2), rtol=1e-5, err_msg=str(case))


def check(path, expected, **changes):
    """Compare vectors of one batch, padded on either side, and of one text at a time."""
    for side in ("right", "left"):
        assert_close(ours(path, TEXTS, padding_side=side, **changes), expected, side)
    assert_close(one_by_one(path, TEXTS, **changes), expected, "one by one")


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pooling_of_every_architecture(kind, pooling, tiny, tmp_path):
    path = build(tiny(kind), tmp_path / "m", pooling=pooling)
    check(path, reference(path, TEXTS))


@pytest.mark.parametrize("kind", MORE)
def test_more_architectures(kind, tiny, tmp_path):
    """The reference embeds one text at a time: sentence-transformers pads some models wrongly (GPT-2)."""
    pooling = "lasttoken" if MORE[kind][2] == "decoder" else "mean"
    path = build(tiny(kind), tmp_path / "m", pooling=pooling)
    check(path, alone(path, TEXTS))


@pytest.mark.parametrize(
    "kind",
    ["bert", "modernbert", "t5", *slow(*sorted(WILD.keys() - {"bert", "modernbert", "t5"}))],
)
def test_every_combination_in_the_wild(kind, tiny, tmp_path):
    """The transformer stays in its directory; sentence-transformers saves each combination of layers into it."""
    transformer, path = Transformer(str(tiny(kind))), tmp_path / "m"
    transformer.tokenizer.padding_side = "right"
    found = {}
    for pooling, dense, unit, include in itertools.product(*WILD[kind], [False, True], [False, True]):
        model = assemble(
            transformer,
            pooling=pooling,
            dense=dense,
            normalize=unit,
            include_prompt=include,
            prompts=PROMPTS,
            default_prompt_name="doc",
        )
        model.save_pretrained(str(path), create_model_card=False)
        for name, given in (("query", {"prompt_name": "query"}), ("doc", {}), ("", {"prompt": ""})):
            case = (pooling, dense, unit, include, name)
            expected = model.encode(TEXTS, show_progress_bar=False, **given)
            for side in ("right", "left"):
                assert_close(ours(path, TEXTS, padding_side=side, **given), expected, side, *case)
            if name == "query":
                assert_close(one_by_one(path, TEXTS, **given), expected, "one by one", *case)
            found[distinct_case(*case)] = expected
    assert_distinct(found)
    assert len([key for key in runtimes._loaded if str(path) in str(key)]) == 1


def distinct_case(pooling, dense, unit, include, name):
    """Return one key for all combinations with equal vectors, for example if Normalize removes a scale."""
    scaled = pooling == "mean_sqrt_len_tokens" and unit and dense != "tanh"
    return "mean" if scaled else pooling, dense, unit, include or not name or pooling == "lasttoken", name


def assert_distinct(found):
    """Check that texts and combinations have different vectors, so that a wrong one would be detected."""
    for vectors in found.values():
        distances = np.abs(vectors[:, None] - vectors[None]).max(axis=2)
        assert distances[~np.eye(len(vectors), dtype=bool)].min() > 1e-3
    for one, other in itertools.combinations(found, 2):
        if found[one].shape == found[other].shape:
            assert np.abs(found[one] - found[other]).max() > 1e-3, (one, other)
