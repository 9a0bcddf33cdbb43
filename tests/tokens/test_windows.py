from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.tokens.windows import split


@given(
    texts=st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=8),
    n_prefix=st.integers(0, 3),
    n_suffix=st.integers(0, 2),
    room=st.integers(1, 9),
    data=st.data(),
)
def test_windows_are_slices_between_prefix_and_suffix(texts, n_prefix, n_suffix, room, data):
    overlap = data.draw(st.integers(0, room - 1))
    rows = [
        [] if text is None else [*range(-n_prefix, 0), *range(1, text + 1), *range(1000, 1000 + n_suffix)]
        for text in texts
    ]
    windows = split(
        Ragged.from_rows(rows),
        limit=n_prefix + room + n_suffix,
        overlap=overlap,
        n_prefix=n_prefix,
        n_suffix=n_suffix,
    )
    expected = []
    for i, row in enumerate(rows):
        text = row[n_prefix : len(row) - n_suffix] if row else []
        start = 0
        while True:
            window = row[:n_prefix] + text[start : start + room] + (row[len(row) - n_suffix :] if row else [])
            expected.append((i, start, window))
            if start + room >= len(text):
                break
            start += room - overlap
    got = [
        (int(i), int(s), windows.ids.row(k).tolist())
        for k, (i, s) in enumerate(zip(windows.rows, windows.starts, strict=True))
    ]
    assert got == expected
    assert windows.sizes.tolist() == [len(w) - (n_prefix + n_suffix if rows[i] else 0) for i, _, w in expected]
    firsts = np.flatnonzero(windows.numbers == 0)
    assert windows.rows[firsts].tolist() == list(range(len(rows)))
