"""Hypothesis strategies shared by the property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from nemo_embed_dask.ragged import Ragged

lengths = st.lists(st.integers(0, 40), max_size=30)
filled = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@st.composite
def ragged(draw, lengths=lengths):
    counts = draw(lengths)
    seed = draw(st.integers(0, 2**16))
    values = np.random.default_rng(seed).integers(1, 1000, sum(counts)).astype(np.int32)
    return Ragged.from_lengths(values, counts)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
texts = st.lists(words, max_size=60).map(" ".join)
