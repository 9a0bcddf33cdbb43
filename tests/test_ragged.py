from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.ragged import Ragged

from .helpers.strategies import ragged


def rows(r: Ragged) -> list[list[int]]:
    return [r.row(i).tolist() for i in range(len(r))]


@given(ragged())
def test_rows_round_trip(r):
    again = Ragged.from_rows(rows(r))
    assert rows(again) == rows(r)
    assert again.values.dtype == np.int32
    assert again.offsets.dtype == np.int64


@given(ragged(), st.sampled_from(["left", "right"]))
def test_the_masked_cells_of_the_padded_block_are_the_rows(r, side):
    block, mask = r.pad(fill=-1, side=side), r.mask(side)
    assert rows(Ragged.from_lengths(block[mask], mask.sum(axis=1))) == rows(r)
    assert (block[~mask] == -1).all()
    if len(r) and r.lengths.max(initial=0):
        edge = 0 if side == "right" else -1
        assert mask[r.lengths > 0, edge].all()


@given(ragged(), st.data())
def test_take_equals_indexing(r, data):
    picked = data.draw(st.lists(st.integers(0, len(r) - 1))) if len(r) else []
    assert rows(r.take(picked)) == [rows(r)[i] for i in picked]


@given(ragged(), st.integers(1, 50), st.sampled_from(["left", "right"]))
def test_clip_cuts_the_given_side(r, limit, side):
    expected = [row[:limit] if side == "right" else row[-limit:] for row in rows(r)]
    assert rows(r.clip(limit, side)) == expected


@given(st.lists(ragged(), max_size=4))
def test_concat_appends_rows(parts):
    assert rows(Ragged.concat(parts)) == [row for part in parts for row in rows(part)]


@given(ragged())
def test_positions_in_rows_count_from_zero(r):
    assert r.positions_in_rows().tolist() == [k for row in rows(r) for k in range(len(row))]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_by_hand(side):
    r = Ragged.from_rows([[1, 2, 3], [4]])
    expected = {"right": [[1, 2, 3], [4, 0, 0]], "left": [[1, 2, 3], [0, 0, 4]]}
    assert r.pad(side=side).tolist() == expected[side]


@given(ragged(), st.lists(st.integers(0, 9), max_size=3), st.lists(st.integers(0, 9), max_size=3))
def test_surround_adds_the_prefix_and_the_suffix_to_every_row(r, prefix, suffix):
    assert rows(r.surround(prefix, suffix)) == [[*prefix, *row, *suffix] for row in rows(r)]


@given(ragged(), st.integers(0, 50))
def test_drop_first_keeps_at_least_the_last_value_of_every_row(r, count):
    kept, offsets = r.drop_first(count)
    expected = [row[min(count, len(row) - 1) :] if row else [] for row in rows(r)]
    assert rows(Ragged(r.values[kept], offsets)) == expected
