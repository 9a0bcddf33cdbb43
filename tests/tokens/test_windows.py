from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.tokens.windows import split


@given(
    bodies=st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=8),
    lead=st.integers(0, 3),
    trail=st.integers(0, 2),
    room=st.integers(1, 9),
    data=st.data(),
)
def test_windows_are_slices_in_their_frame(bodies, lead, trail, room, data):
    overlap = data.draw(st.integers(0, room - 1))
    rows = [
        [] if body is None else [*range(-lead, 0), *range(1, body + 1), *range(1000, 1000 + trail)]
        for body in bodies
    ]
    chunks = split(Ragged.from_rows(rows), limit=lead + room + trail, overlap=overlap, lead=lead, trail=trail)
    expected = []
    for i, row in enumerate(rows):
        body = row[lead : len(row) - trail] if row else []
        start = 0
        while True:
            window = row[:lead] + body[start : start + room] + (row[len(row) - trail :] if row else [])
            expected.append((i, start, window))
            if start + room >= len(body):
                break
            start += room - overlap
    got = [
        (int(i), int(s), chunks.ids.row(k).tolist())
        for k, (i, s) in enumerate(zip(chunks.rows, chunks.starts, strict=True))
    ]
    assert got == expected
    assert chunks.sizes.tolist() == [len(w) - (lead + trail if rows[i] else 0) for i, _, w in expected]
    firsts = np.flatnonzero(chunks.numbers == 0)
    assert chunks.rows[firsts].tolist() == list(range(len(rows)))
