from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.batching import batches, cost, slabs

lengths = st.lists(st.integers(1, 300), max_size=80).map(lambda x: np.array(x, dtype=np.int64))
options = {
    "budget": st.integers(1, 2000),
    "max_rows": st.integers(1, 64),
    "pads": st.booleans(),
    "sort": st.booleans(),
}


@given(lengths, st.fixed_dictionaries(options))
def test_every_row_is_in_one_batch_within_the_budget_and_max_rows(lens, knobs):
    cut = batches(lens, **knobs)
    placed = np.concatenate([np.empty(0, np.int64), *cut])
    assert sorted(placed.tolist()) == list(range(len(lens)))
    for batch in cut:
        assert 1 <= len(batch) <= knobs["max_rows"]
        assert len(batch) == 1 or cost(lens[batch], pads=knobs["pads"]) <= knobs["budget"]
        assert (np.diff(lens[batch]) <= 0).all(), "longest first inside a batch"


@given(lengths, st.integers(1, 2000), st.booleans())
def test_sorted_batches_start_with_the_longest_rows(lens, budget, pads):
    cut = batches(lens, budget=budget, max_rows=1024, pads=pads)
    longest = [int(lens[g].max()) for g in cut]
    assert longest == sorted(longest, reverse=True)


@given(lengths, st.integers(1, 2000))
def test_unsorted_batches_follow_the_input_order(lens, budget):
    cut = batches(lens, budget=budget, max_rows=16, sort=False)
    for before, after in pairwise(cut):
        assert before.max() < after.min()


@given(lengths, st.integers(1, 2000), st.booleans())
def test_batches_are_as_large_as_the_budget_allows(lens, budget, pads):
    cut = batches(lens, budget=budget, max_rows=10**6, pads=pads)
    for batch, following in pairwise(cut):
        assert cost(lens[np.append(batch, following[0])], pads=pads) > budget


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 1000), st.integers(1, 20))
def test_slabs_are_consecutive_and_bounded(sizes, max_size, max_rows):
    array = np.array(sizes, dtype=np.int64)
    spans = slabs(array, max_size=max_size, max_rows=max_rows)
    assert [i for s in spans for i in range(s.start, s.stop)] == list(range(len(sizes)))
    for span in spans:
        rows = span.stop - span.start
        assert rows == 1 or (rows <= max_rows and array[span].sum() <= max_size)
