"""Copies of a tokenizer give what one gives."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask import device
from nemo_embed_dask.tokens.copies import TokenizerCopies, _edges
from nemo_embed_dask.tokens.huggingface import Tokenizer


@pytest.fixture(scope="module")
def make(tiny):
    path = tiny("bert")
    return lambda: Tokenizer.from_directory(path)


@pytest.mark.parametrize("copies", [1, 2, 3, 7])
def test_ids_do_not_depend_on_the_number_of_copies(make, copies):
    texts = [f"row {i} " + "word " * (i % 90) for i in range(1500)] + [""] * 600
    expected, found = make().encode(texts, 32), TokenizerCopies(make, copies).encode(texts, 32)
    assert (found.ids.offsets == expected.ids.offsets).all()
    assert (found.ids.values == expected.ids.values).all()
    assert (found.truncated == expected.truncated).all()
    assert found.truncated.any()


def test_few_rows_are_left_to_one_copy(make, monkeypatch):
    copies = TokenizerCopies(make, 4)
    monkeypatch.setattr("nemo_embed_dask.tokens.copies.ThreadPoolExecutor", lambda *_: pytest.fail("threads"))
    assert len(copies.encode(["a"] * 500, 32).ids) == 500
    assert len(copies.encode([], 32).ids) == 0


def test_what_is_no_text_is_the_tokenizer_s_own_error(make):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        TokenizerCopies(make, 2).encode(["fine"] * 1000 + [7], 32)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=8, max_size=60), count=st.integers(2, 8))
def test_slices_cover_every_row_once_and_share_characters_fairly(sizes, count):
    edges = _edges(["x" * size for size in sizes], count)
    assert edges == sorted(edges)
    assert (edges[0], edges[-1], len(edges)) == (0, len(sizes), count + 1)
    held = [sum(sizes[a:b]) for a, b in pairwise(edges)]
    assert max(held) <= sum(sizes) / count + 2 * max(sizes)


@pytest.mark.parametrize(("kind", "rayon", "copies"), [("cpu", "16", 1), ("cuda", "16", 4), ("cuda", "2", 1)])
def test_only_a_gpu_is_fed_by_several_copies(monkeypatch, kind, rayon, copies):
    monkeypatch.setenv("RAYON_NUM_THREADS", rayon)
    monkeypatch.setattr(device, "default_device", lambda: device.torch.device(kind))
    assert device.tokenizer_copy_count() == copies
