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
def test_pad_then_unpad_is_identity(r, side):
    block, mask = r.pad(fill=-1, side=side), r.mask(side)
    assert rows(Ragged.unpad(block, mask)) == rows(r)
    assert (block[~mask] == -1).all()
    if len(r) and r.lengths.max(initial=0):
        edge = 0 if side == "right" else -1
        assert mask[r.lengths > 0, edge].all()


@given(ragged(), st.data())
def test_take_equals_indexing(r, data):
    picked = data.draw(st.lists(st.integers(0, len(r) - 1))) if len(r) else []
    assert rows(r.take(picked)) == [rows(r)[i] for i in picked]


@given(ragged(), st.integers(1, 50), st.sampled_from(["left", "right"]))
def test_clip_keeps_the_named_end(r, limit, side):
    expected = [row[:limit] if side == "right" else row[-limit:] for row in rows(r)]
    assert rows(r.clip(limit, side)) == expected


@given(st.lists(ragged(), max_size=4))
def test_concat_appends_rows(parts):
    assert rows(Ragged.concat(parts)) == [row for part in parts for row in rows(part)]


@given(ragged())
def test_positions_count_from_zero_in_every_row(r):
    assert r.positions_in_rows().tolist() == [k for row in rows(r) for k in range(len(row))]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_by_hand(side):
    r = Ragged.from_rows([[1, 2, 3], [4]])
    expected = {"right": [[1, 2, 3], [4, 0, 0]], "left": [[1, 2, 3], [0, 0, 4]]}
    assert r.pad(side=side).tolist() == expected[side]


@given(ragged(), st.lists(st.integers(0, 9), max_size=3), st.lists(st.integers(0, 9), max_size=3))
def test_framed_rows_are_their_frame_around_them(r, prefix, suffix):
    assert rows(r.surround(prefix, suffix)) == [[*prefix, *row, *suffix] for row in rows(r)]


@given(ragged(), st.integers(0, 50))
def test_what_is_after_a_prompt_is_a_row_s_tail_and_at_least_its_last_value(r, skip):
    kept, offsets = r.drop_first(skip)
    expected = [row[min(skip, len(row) - 1) :] if row else [] for row in rows(r)]
    assert rows(Ragged(r.values[kept], offsets)) == expected
