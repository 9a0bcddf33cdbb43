"""Equal texts are embedded once, and a vector does not depend on the batch of its row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nemo_embed_dask.device import default_device
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.rows import deduplicate
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, build
from ..helpers.slow import slow
from ..helpers.tiny import KINDS
from ..helpers.versions import needs

# Most that float32 and autocast vectors differ by between batches on a GPU, where cuBLAS chooses its kernels by the
# size of a batch.
ON_GPU = {False: 1e-5, True: 5e-3}


def check_close(found, expected, *, on_cpu=0.0, on_gpu):
    """Require a difference of at most ``on_cpu`` or ``on_gpu``, depending on the device."""
    atol = on_cpu if default_device().type == "cpu" else on_gpu
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def settings_of(path, **changes):
    return Settings(ModelRef(str(path)), **{"autocast": False, **changes})


def test_equal_texts_are_embedded_once(tiny):
    texts = [None, "one", "two", "one", "three", "one", None, "two"]
    shared = embed_texts(texts, settings_of(tiny("bert")))
    each = embed_texts(texts, settings_of(tiny("bert"), share_equal_texts=False))
    assert (shared.stats.shared, each.stats.shared) == (3, 0)
    assert shared.stats.fraction_deduplicated == 3 / 8
    assert (shared.stats.rows, shared.stats.nulls) == (8, 2) == (each.stats.rows, each.stats.nulls)
    assert shared.valid.tolist() == each.valid.tolist()
    assert torch.equal(shared.matrix[1], shared.matrix[3])
    np.testing.assert_allclose(shared.matrix.cpu(), each.matrix.cpu(), atol=1e-6)
    distinct = [f"text {i}" for i in range(50)]
    assert deduplicate(distinct) == (distinct, None)


def repeated(texts, seed=0):
    """Return the texts and a third as many random repeats of them, shuffled."""
    rng = np.random.default_rng(seed)
    return [
        texts[i] for i in rng.permutation([*range(len(texts)), *rng.integers(0, len(texts), len(texts) // 3)])
    ]


def vectors_in_four_ways(texts, settings):
    """Return vectors with deduplication, without it, in small batches, and of the first texts one at a time."""
    each = replace(settings, share_equal_texts=False)
    shared = embed_texts(texts, settings)
    assert shared.stats.fraction_deduplicated > 0.2
    few = embed_texts(texts, replace(each, model_inference_batch_size=7)).matrix
    alone = torch.cat([embed_texts([text], each).matrix for text in texts[:20]])
    return shared.matrix, embed_texts(texts, each).matrix, few, alone


@needs("torch", "2.13", "the products of torch 2.6 depend on the size of a batch in the last bit")
@pytest.mark.parametrize("autocast", [True, *slow(False)])
def test_minilm_has_the_same_bits_with_deduplication_and_in_any_batch(autocast, minilm, real_texts):
    shared, each, few, alone = vectors_in_four_ways(
        repeated(real_texts[::10]), settings_of(minilm, autocast=autocast)
    )
    for other in (each, few, alone):
        check_close(shared[: len(other)], other, on_gpu=ON_GPU[autocast])


@pytest.mark.parametrize("kind", KINDS)
def test_deduplication_and_batches_change_rounding_at_most(kind, tiny, tmp_path):
    path = build(tiny(kind), tmp_path / "m", pooling="mean", dense="tanh", normalize=True)
    settings = settings_of(path, pooling="auto")
    shared, each, few, alone = vectors_in_four_ways(
        repeated([text + str(i) for text in TEXTS for i in range(8)]), settings
    )
    # Padding, and attention in sliding windows, round differently.
    exact = kind in {"bert", "roberta", "xlm-roberta", "qwen3"}
    for other in (each, few, alone):
        check_close(shared[: len(other)], other, on_cpu=0.0 if exact else 1e-6, on_gpu=ON_GPU[False])


def test_a_failed_text_fails_all_its_rows(tiny):
    texts = ["good", "\ud800", "good", "\ud800"]
    out = embed_texts(texts, settings_of(tiny("bert"), on_error="null"))
    assert out.valid.tolist() == [True, False, True, False]
    assert set(out.failures) == {1, 3}
