"""Lists of values per row: tests of `nemo_embed_dask.lists`."""

import numpy as np
import torch

from nemo_embed_dask.lists import Lists

ROWS = [[7, 3], [], [9], [4, 4, 4]]


def lists(rows):
    """Return lists of numbers, and of vectors that repeat each number twice."""
    flat = torch.tensor([value for row in rows for value in row], dtype=torch.float32)
    offsets = np.cumsum([0, *map(len, rows)])
    return Lists({"": flat, "_pairs": torch.stack([flat, flat], dim=1)}, offsets)


def as_rows(found):
    pairs = zip(found.offsets[:-1], found.offsets[1:], strict=True)
    slices = [slice(int(start), int(stop)) for start, stop in pairs]
    assert all((found.columns["_pairs"][part, 1] == found.columns[""][part]).all() for part in slices)
    return [found.columns[""][part].tolist() for part in slices]


def test_rows_are_taken_in_order_and_repeatedly():
    assert as_rows(lists(ROWS).take([3, 0, 0, 1])) == [[4, 4, 4], [7, 3], [7, 3], []]
    assert as_rows(lists(ROWS).take([])) == []


def test_marked_rows_become_empty():
    assert as_rows(lists(ROWS).without(np.array([True, False, False, True]))) == [[], [], [9], []]


def test_the_first_values_of_each_row_are_kept():
    assert as_rows(lists(ROWS).first(2)) == [[7, 3], [], [9], [4, 4]]
    assert as_rows(lists(ROWS).first(0)) == [[], [], [], []]


def test_parts_are_joined_in_order():
    assert as_rows(Lists.concat([lists(ROWS[:1]), lists([]), lists(ROWS[1:])])) == ROWS
