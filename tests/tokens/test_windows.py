from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.tokens.windows import split


@given(
    bodies=st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=8),
    n_prefix=st.integers(0, 3),
    n_suffix=st.integers(0, 2),
    room=st.integers(1, 9),
    data=st.data(),
)
def test_windows_are_slices_in_their_frame(bodies, n_prefix, n_suffix, room, data):
    overlap = data.draw(st.integers(0, room - 1))
    rows = [
        [] if body is None else [*range(-n_prefix, 0), *range(1, body + 1), *range(1000, 1000 + n_suffix)]
        for body in bodies
    ]
    chunks = split(
        Ragged.from_rows(rows),
        limit=n_prefix + room + n_suffix,
        overlap=overlap,
        n_prefix=n_prefix,
        n_suffix=n_suffix,
    )
    expected = []
    for i, row in enumerate(rows):
        body = row[n_prefix : len(row) - n_suffix] if row else []
        start = 0
        while True:
            window = row[:n_prefix] + body[start : start + room] + (row[len(row) - n_suffix :] if row else [])
            expected.append((i, start, window))
            if start + room >= len(body):
                break
            start += room - overlap
    got = [
        (int(i), int(s), chunks.ids.row(k).tolist())
        for k, (i, s) in enumerate(zip(chunks.rows, chunks.starts, strict=True))
    ]
    assert got == expected
    assert chunks.sizes.tolist() == [len(w) - (n_prefix + n_suffix if rows[i] else 0) for i, _, w in expected]
    firsts = np.flatnonzero(chunks.numbers == 0)
    assert chunks.rows[firsts].tolist() == list(range(len(rows)))
